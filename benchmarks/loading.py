"""Images read per second: our whole reading path against plain Pillow for one core, and against the number of workers.

    python benchmarks/loading.py [--sizes 256 1024 4000] [--size 240] [--seconds 0.5] [--csv results/bench_loading.csv]
    python benchmarks/loading.py --workers 1 2 4 8 --only-workers

Plain: `Image.open(file).convert("RGB").resize(square, BICUBIC)` to an array. Ours: `Dataset.read_image` (EXIF, modes,
16 bits, errors) and `image_to_array`, one after another, and `load_batches`, whose threads are charged by CPU seconds.
Every round measures all ways on the same files, and the ratio is the median over rounds. Files are generated and lie in
the page cache. With `fast_jpeg` the ratio says what reduced decoding gains; its pixels are not the same.

Workers: wall time of `load_batches` over 64 files of 1024 pixels with so many threads, the best of five rounds that
take turns. More than there are cores cannot help.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from zsad_bench.contract import Dataset, Sample
from zsad_bench.data.geometry import Geometry, image_to_array
from zsad_bench.engine.dataset_card import dataset_at
from zsad_bench.feature_store.loading import load_batches

FORMATS = ("jpeg", "png", "bmp", "tiff16", "gray")
SUFFIX = {"jpeg": ".jpg", "png": ".png", "bmp": ".bmp", "tiff16": ".tif", "gray": ".png"}
LIMIT = 1.15
"""Plain seconds times this is what our path may take."""


def make_files(folder: Path, kind: str, side: int, count: int) -> None:
    """``count`` images of ``side`` pixels: smooth shapes with a little noise, as photos are."""
    random = np.random.default_rng(side)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:side, :side] * (12 / side)
    for number in range(count):
        grey = 110 + 60 * np.sin(rows + number) * np.cos(columns) + random.normal(0, 4, (side, side))
        pixels = np.clip(grey, 0, 255).astype(np.uint8)
        if kind == "tiff16":
            image = Image.fromarray(pixels.astype(np.uint16) * 257)
        elif kind == "gray":
            image = Image.fromarray(pixels)
        else:
            image = Image.fromarray(np.stack([pixels, 255 - pixels, np.roll(pixels, side // 3, 1)], axis=2))
        image.save(folder / f"{number:03}{SUFFIX[kind]}")


def plain(path: Path, size: int) -> np.ndarray:
    """Decode and resize with Pillow alone; of 16 bits numpy takes the high byte."""
    with Image.open(path) as image:
        decoded = image
        if image.mode.startswith("I;16"):
            decoded = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.asarray(decoded.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def one_by_one(dataset: Dataset, samples: list[Sample], geometry: Geometry) -> None:
    """Our path in this thread."""
    for sample in samples:
        image_to_array(dataset.read_image(sample, geometry.size), geometry)


def in_threads(dataset: Dataset, samples: list[Sample], geometry: Geometry, workers: int | None = None) -> None:
    """Our path in the loader's threads, batches of 8."""
    batches = [samples[start : start + 8] for start in range(0, len(samples), 8)]
    for _ in load_batches(dataset, batches, geometry, workers):
        pass


def by_workers(folder: Path, kind: str, size: int, counts: list[int]) -> dict[int, float]:
    """Images per second of wall time by number of workers."""
    make_files(folder, kind, 1024, 64)
    dataset = dataset_at("folder", folder)
    (category,) = dataset.categories
    samples = dataset.samples(category)
    shortest = dict.fromkeys(counts, float("inf"))
    for _ in range(5):
        for workers in counts:
            start = time.perf_counter()
            in_threads(dataset, samples, Geometry(size), workers)
            shortest[workers] = min(shortest[workers], time.perf_counter() - start)
    return {workers: len(samples) / seconds for workers, seconds in shortest.items()}


def cpu_seconds(work: Callable[[], None], repeats: int) -> float:
    """CPU seconds of all threads."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return time.process_time() - start


def measure(folder: Path, kind: str, side: int, size: int, seconds: float) -> dict[str, float]:
    """Images per second and core of every way, and its seconds over the plain way's."""
    count = 16 if side <= 1024 else 4
    make_files(folder, kind, side, count)
    geometry = Geometry(size)
    datasets = {fast: dataset_at("folder", folder, fast_jpeg=fast) for fast in (False, True)}
    (category,) = datasets[False].categories
    samples = datasets[False].samples(category)
    ways: dict[str, Callable[[], None]] = {
        "plain": lambda: [plain(sample.path, size) for sample in samples] and None,
        "ours": lambda: one_by_one(datasets[False], samples, geometry),
        "threads": lambda: in_threads(datasets[False], samples, geometry),
    }
    if kind == "jpeg":
        ways["fast_jpeg"] = lambda: one_by_one(datasets[True], samples, geometry)
    repeats = max(1, round(seconds / max(cpu_seconds(ways["plain"], 1), 1e-4)))
    rounds = [{name: cpu_seconds(work, repeats) for name, work in ways.items()} for _ in range(5)]
    found = {}
    for name in ways:
        found[f"{name}_per_second"] = count * repeats / statistics.median(one[name] for one in rounds)
        found[f"{name}_ratio"] = statistics.median(one[name] / one["plain"] for one in rounds)
    return found


def main() -> None:
    """Measure everything, print ratios, write CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4000], help="sides of the files, in pixels")
    parser.add_argument("--size", type=int, default=240, help="what they are resized to")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each way in each of five rounds")
    parser.add_argument("--csv", type=Path, default=Path("results/bench_loading.csv"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], help="threads to compare")
    parser.add_argument("--only-workers", action="store_true", help="leave out the comparison with plain Pillow")
    args = parser.parse_args()
    rows: list[dict[str, str | int | float]] = []
    with tempfile.TemporaryDirectory() as name:
        print(f"images / s with {os.cpu_count()} cores, by workers: {', '.join(map(str, args.workers))}")
        for kind in ("jpeg", "png"):
            rates = by_workers(Path(name) / f"{kind}_workers", kind, args.size, args.workers)
            print(f"{kind:8}" + "".join(f"{rate:9.1f}" for rate in rates.values()), flush=True)
            rows += [{"format": kind, "side": 1024, "workers": n, "per_second": rate} for n, rate in rates.items()]
        if args.only_workers:
            return
        print(f"{'':8}{'pixels':>7}  plain/s   ours/s   ours   threads  fast_jpeg   (seconds over plain, median of 5)")
        for kind in FORMATS:
            for side in args.sizes:
                found = measure(Path(name) / f"{kind}_{side}", kind, side, args.size, args.seconds)
                rows.append({"format": kind, "side": side, **found})
                fast = f"{found['fast_jpeg_ratio']:9.2f}" if "fast_jpeg_ratio" in found else ""
                late = "  more than 15 % over" if found["ours_ratio"] > LIMIT else ""
                speeds = f"{found['plain_per_second']:9.1f}{found['ours_per_second']:9.1f}"
                print(f"{kind:8}{side:7}{speeds}{found['ours_ratio']:7.2f}{found['threads_ratio']:10.2f}  {fast}{late}")
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    with args.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    print(args.csv)


if __name__ == "__main__":
    main()

"""Peak memory of a run against the number of images of a category, with and without what lies on disk meanwhile.

    python benchmarks/memory.py [--images 100 400 1600] [--methods clip_ad musc] [--csv results/bench_memory.csv]
    python benchmarks/memory.py --device cuda    # the memory of the host still, beside a GPU that computes

Every run is a process of its own: a small random-weight CLIP (maps of 240 x 240), generated images of one category,
half of them with a drawn defect, no feature store, one contact sheet. Its peak resident memory is what the
operating system says about the finished process. Random weights: scores mean nothing here.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import add_device_option

TOWER = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 240, "layers": 4, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
BATCH = 16


def make_images(folder: Path, count: int) -> None:
    """``count`` test images (256 x 256, PNG) in MVTec style; every second one has a bright disc and its mask."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:256, :256]
    for index in range(count):
        kind = "disc" if index % 2 else "good"
        picture = random.integers(0, 60, (256, 256, 3), dtype=np.uint8) + np.uint8(80)
        if kind == "disc":
            y, x, radius = random.integers(40, 216), random.integers(40, 216), random.integers(8, 28)
            mask = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
            picture[mask] += np.uint8(100)
            save(folder / f"part/ground_truth/disc/{index:05}_mask.png", mask.astype(np.uint8) * 255)
        save(folder / f"part/test/{kind}/{index:05}.png", picture)


def save(path: Path, pixels: np.ndarray) -> None:
    """Write an image, quickly rather than small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def peak_mib(folder: Path, model: Path, method: str, count: int, device: str) -> float:
    """Peak resident memory of a run over the first ``count`` images, in MiB."""
    command = [sys.executable, "-m", "zsad_bench", f"method={method}", f"batch_size={BATCH}", "dataset=mvtec"]
    command += [f"dataset.root={folder}", "dataset.name=drawn", f"encoder.model={model}", "encoder.pretrained=null"]
    command += [f"encoder.device={device}", "features=off", "maps=sheet", f"name={method}_{count}", "overwrite=always"]
    process = subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    message = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{message}")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Run everything and print growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--methods", nargs="+", default=["clip_ad", "musc"], help="names of conf/method")
    parser.add_argument("--csv", type=Path, default=Path("results/bench_memory.csv"))
    add_device_option(parser)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "small.json"
        model.write_text(json.dumps(TOWER))
        for count in sorted(args.images):
            folder = Path(name) / f"images_{count}"
            make_images(folder, count)
            rows += [(method, count, peak_mib(folder, model, method, count, args.device)) for method in args.methods]
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    with args.csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "images", "peak_mib", "growth"])
        for method in args.methods:
            peaks = [(count, peak) for other, count, peak in rows if other == method]
            for count, peak in peaks:
                growth = peak / peaks[0][1] - 1
                writer.writerow([method, count, f"{peak:.1f}", f"{growth:.4f}"])
                print(f"{method:10} {count:6} images {peak:8.1f} MiB  {100 * growth:+5.1f} %")
    print(args.csv)


if __name__ == "__main__":
    main()

"""Result files of made-up methods on drawn photos, written by the real code: for tables, plots and the report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from tests.helpers.miniatures import save_image
from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.seeds import named_seed
from zsad_bench.data.geometry import Geometry
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.engine.batches import compose_batches, shuffled
from zsad_bench.engine.identity import fingerprint
from zsad_bench.engine.measure import evaluate_images, evaluate_pixels, read_masks
from zsad_bench.engine.pictures import write_maps, write_worst
from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import CategoryResult, ImageResult, JobInfo
from zsad_bench.statistics.kept import kept_arrays

SIZE = 48
CATEGORIES = ("bolt", "plate", "washer")


@dataclass(frozen=True)
class Pretend:
    """A made-up method: how far it raises defects above the noise, with one image and with many."""

    name: str
    setting: str
    skill: float
    gain: float = 0.0
    variant: str = "paper"
    speed: float = 10.0


METHODS = (
    Pretend("winclip", "single", 0.7, speed=4.0),
    Pretend("clip_ad", "single", 1.1, variant="official", speed=30.0),
    Pretend("musc", "batch", 0.2, 0.5, speed=12.0),
    Pretend("fiseclip", "batch", 0.8, 0.3, variant="reconstruction", speed=9.0),
)


def draw_photos(root: Path, categories: tuple[str, ...] = CATEGORIES, n: int = 24) -> Dataset:
    """Photos with bright spots of three sizes and scratches, in MVTec layout; two in three are anomalous."""
    y, x = np.mgrid[:SIZE, :SIZE]
    for category in categories:
        random = np.random.default_rng(named_seed(0, category))
        for index in range(n):
            pixels = np.stack([gaussian_filter(random.normal(120, 60, (SIZE, SIZE)), 2)] * 3, axis=-1)
            kind = ("good", "spot", "scratch")[index % 3]
            if kind != "good":
                cy, cx = random.uniform(12, SIZE - 12, 2)
                radius = (2, 4, 8)[index % 9 // 3]
                long, wide = (radius, radius) if kind == "spot" else (2.5 * radius, 1 + radius / 4)
                mask = ((y - cy) / long) ** 2 + ((x - cx) / wide) ** 2 <= 1
                pixels[mask] += 70
                save_image(
                    root / category / "ground_truth" / kind / f"{index:03}_mask.png", mask.astype(np.uint8) * 255
                )
            save_image(root / category / "test" / kind / f"{index:03}.png", pixels.clip(0, 255).astype(np.uint8))
    return MVTec(root=root, name="drawn")


def make_run(
    folder: Path,
    dataset: Dataset,
    methods: tuple[Pretend, ...] = METHODS,
    batch_sizes: tuple[int, ...] = (1, 4, 8),
    seeds: tuple[int, ...] = (0,),
    pictures: bool = True,
) -> None:
    """Result files of every method, batch size and seed."""
    for method in methods:
        for batch_size in batch_sizes:
            for seed in seeds if method.setting == "batch" else seeds[:1]:
                _make_job(folder, dataset, method, batch_size, seed, pictures)


def _make_job(folder: Path, dataset: Dataset, method: Pretend, batch_size: int, seed: int, pictures: bool) -> None:
    labels = (method.name, method.variant, method.setting, "drawn", "standard", "tiny", "random", SIZE)
    digest = f"{named_seed(0, method.name, str(batch_size), str(seed)):016x}"[:12]
    series = f"{named_seed(0, method.name, str(batch_size)):016x}"[:12]
    info = JobInfo(*labels, batch_size, seed, digest, dataset.categories, series)
    job = JobFolder(folder, info)
    job.start(f"method: {{name: {method.name}}}\nbatch_size: {batch_size}\nseed: {seed}\n")
    for category in dataset.categories:
        samples = dataset.samples(category)
        batches = compose_batches(shuffled(samples, seed), batch_size, seed)
        position = {sample.image_id: number for number, batch in enumerate(batches) for sample in batch.new}
        share = {
            number: float(np.mean([sample.label or 0 for sample in batch.samples]))
            for number, batch in enumerate(batches)
        }
        geometry = Geometry(SIZE, "squash")
        masks = read_masks(dataset, samples, geometry)
        maps = _maps(method, batch_size, seed, samples, masks, [share[position[s.image_id]] for s in samples])
        scores = maps.reshape(len(maps), -1).max(axis=1)
        image, notes = evaluate_images(samples, scores)
        pixels = evaluate_pixels(samples, masks, maps, sweep200=False)
        images = tuple(
            ImageResult(sample.image_id, sample.label, sample.defect_type, float(score), position[sample.image_id])
            for sample, score in zip(samples, scores, strict=True)
        )
        anomalous = sum(sample.label == 1 for sample in samples)
        timing = {"charged_encode": len(samples) / method.speed, "charged_text": 0.0, "encoded_on": "a processor"}
        timing |= {"seconds_score": 0.1, "peak_memory_mb": 1024.0}
        facts = {"device": "a processor", "python": "3.11", "torch": "2.6"}
        result = CategoryResult(
            category,
            len(samples),
            anomalous,
            0,
            {**image, **pixels.metrics},
            "; ".join(notes),
            fingerprint(samples),
            images,
            timing={**timing, **facts},
        )
        if pictures and batch_size > 1 and not seed:
            write_maps(job.path / "maps", category, dataset, samples, maps, "sheet", geometry)
            by_id = {image.image_id: image.score for image in images}
            write_worst(job.path / "maps", category, dataset, samples, maps, by_id, geometry)
        job.save(result, kept_arrays(category, result.units, pixels.summary))


def _maps(
    method: Pretend,
    batch_size: int,
    seed: int,
    samples: list[Sample],
    masks: list[np.ndarray | None],
    shares: list[float],
) -> np.ndarray:
    """Smooth noise, the same for all methods up to a part of its own, raised inside the masks."""
    maps = np.empty((len(samples), SIZE, SIZE), np.float32)
    for index, (sample, mask, share) in enumerate(zip(samples, masks, shares, strict=True)):
        common = np.random.default_rng(named_seed(1, sample.image_id)).normal(size=(SIZE, SIZE))
        own_seed = named_seed(2, sample.image_id, method.name, str(batch_size), str(seed))
        own = np.random.default_rng(own_seed).normal(size=(SIZE, SIZE))
        height = method.skill + method.gain * np.log2(batch_size) * (1 - 0.7 * share)
        assert mask is not None
        maps[index] = 2 * gaussian_filter(common + 0.7 * own, 2) + height * gaussian_filter(mask.astype(float), 1)
    return maps


if __name__ == "__main__":  # a run to look at: python tests/helpers/example_run.py <folder>
    import sys

    target = Path(sys.argv[1])
    names = ("bolt", "cable", "gear", "plate")
    make_run(
        target / "example",
        draw_photos(target / "photos", names, int(os.environ.get("N_IMAGES", "30"))),
        batch_sizes=(1, 4, 16),
        seeds=(0, 1),
    )

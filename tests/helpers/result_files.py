"""Small hand-made jobs in a results folder, and what of a run must not depend on when it ran."""

from __future__ import annotations

from pathlib import Path

from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import CategoryResult, ImageResult, JobInfo
from zsad_bench.statistics.kept import kept_arrays

TIMED: dict[str, float | str] = {"encoded_on": "CPU", "device": "CPU", "charged_text": 0.0}
"""What every timing of today's form has."""


def info(
    method: str = "winclip", batch_size: int | str = 8, setting: str = "single", digest: str = "a" * 12
) -> JobInfo:
    """A job on the categories bottle and cable."""
    labels = (method, "paper", setting, "mvtec", "standard", "ViT", "tag", 240)
    return JobInfo(*labels, batch_size, 0, digest, ("bottle", "cable"))


def category(name: str, auroc: float, pixel: float = 0.5) -> CategoryResult:
    """A result of two images in which all image metrics are one value, and all pixel metrics another."""
    metrics = dict.fromkeys(("image_auroc", "image_ap", "image_f1max"), auroc)
    metrics |= dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"), pixel)
    images = (ImageResult(f"{name}/a.png", 0, "good", 0.1), ImageResult(f"{name}/b.png", None, "", 0.25))
    return CategoryResult(name, 2, 1, 0, metrics, "", "print", images, {"seconds_load": 1.5})


def saved(folder: Path, job: JobInfo, *results: CategoryResult) -> JobFolder:
    """The folder of a job that wrote these results."""
    job_folder = JobFolder(folder, job)
    job_folder.start("seed: 0\n")
    for result in results:
        job_folder.save(result, kept_arrays(result.category, result.units, None))
    return job_folder


def comparable_tables(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on when and how fast it was computed."""
    return {name: (folder / name).read_bytes() for name in ("metrics.csv", "images.csv", "leaderboard.csv")}

"""Result files: one JSON per finished category, written atomically, with its histograms and replicates beside it.

``<results_dir>/<name>/jobs/<job>/categories/<category>.json`` is the unit of work that is kept or done again. The
tables in the folder are rebuilt from these files (:mod:`zsad_bench.tables`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_bench.bootstrap import Replicates, bootstrap
from zsad_bench.files import atomic_path, write_atomic
from zsad_bench.summaries import PixelSummary

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
METRIC_NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "pixel_aupro": "pixel AUPRO",
    "pixel_aupro_sweep200": "pixel AUPRO (200 thresholds)",
}
"""How a metric is called in text."""

OPTIONAL_METRICS = ("pixel_aupro_sweep200",)
JOB_COLUMNS = (
    *("method", "variant", "setting", "dataset", "protocol", "category"),
    *("encoder", "pretrained", "image_size", "batch_size", "seed"),
)
COUNT_COLUMNS = ("n_images", "n_anomalous", "n_skipped")


@dataclass(frozen=True)
class JobInfo:
    """The columns that every row of a job shares, and which categories it is made of.

    ``series`` is the hash of the config without its seed: jobs of one series differ in the seed only.
    """

    method: str
    variant: str
    setting: str
    dataset: str
    protocol: str
    encoder: str
    pretrained: str
    image_size: int
    batch_size: int | str
    seed: int
    config_hash: str
    categories: tuple[str, ...]
    series: str = ""

    @property
    def folder(self) -> str:
        """Folder name of the job, ``[a-z0-9_.-]`` only."""
        method = self.method if self.variant == "paper" else f"{self.method}-{self.variant}"
        raw = f"{method}_{self.dataset}_b{self.batch_size}_s{self.seed}_{self.config_hash}"
        return "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in raw.lower())


@dataclass(frozen=True)
class ImageResult:
    """Score of one image; label None if unknown; batch counts the category's batches from 0, None if not recorded."""

    image_id: str
    label: int | None
    defect_type: str
    score: float
    batch: int | None = None


@dataclass(frozen=True)
class CategoryResult:
    """Everything a finished category leaves behind.

    Attributes:
        metrics: fractions 0 to 1, NaN where undefined.
        notes: why a metric is undefined, which images were left out.
        fingerprint: of the list of image and mask files; a changed dataset is evaluated again.
        filled_with: images that were scored before and filled the last batch.
        timing: what it took, and facts about the machine; ``docs/performance.md`` says what each number is.
    """

    category: str
    n_images: int
    n_anomalous: int
    n_skipped: int
    metrics: dict[str, float]
    notes: str
    fingerprint: str
    images: tuple[ImageResult, ...]
    filled_with: tuple[str, ...] = ()
    timing: dict[str, float | str] = field(default_factory=dict)


def own_seconds(timing: Mapping[str, float | str]) -> float:
    """Seconds of a category's text, of its images' features and of the method, as if the method had run alone.

    NaN if not all of them are known: features or text that were encoded by a version that did not time their parts.
    """
    parts = (timing.get(name, math.nan) for name in ("charged_text", "charged_encode", "seconds_score"))
    return math.fsum(map(float, parts))


def _finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else float(value) for key, value in values.items()}


class JobFolder:
    """Files of one job."""

    def __init__(self, run_folder: Path, info: JobInfo) -> None:
        self.info = info
        self.path = run_folder / "jobs" / info.folder

    def start(self, config_yaml: str) -> None:
        """Write what the job is, before anything is computed."""
        write_atomic(self.path / "config.yaml", config_yaml)
        write_atomic(self.path / "job.json", json.dumps(asdict(self.info), indent=1) + "\n")

    def category_file(self, category: str) -> Path:
        """Where a finished category lies."""
        return self.path / "categories" / f"{category.replace('/', '_')}.json"

    def save(self, result: CategoryResult, summary: PixelSummary | None = None) -> None:
        """Keep a finished category. Its summary and replicates come first: the JSON file says that it is finished."""
        arrays = self.category_file(result.category)
        if summary is not None:
            with atomic_path(arrays.with_suffix(".summary.npz")) as path:
                summary.save(path)
        with atomic_path(arrays.with_suffix(".replicates.npz")) as path:
            self._bootstrap(result, summary).save(path)
        content = {**asdict(result), "metrics": _finite_or_none(result.metrics)}
        write_atomic(self.category_file(result.category), json.dumps(content, indent=1) + "\n")

    def _bootstrap(self, result: CategoryResult, summary: PixelSummary | None) -> Replicates:
        ids, labels, scores = zip(*((image.image_id, image.label, image.score) for image in result.images), strict=True)
        return bootstrap(self.info.dataset, result.category, ids, labels, np.array(scores), summary)

    def load(self, category: str) -> CategoryResult | None:
        """A finished category, or None if there is none or its file is damaged."""
        return _read_category(self.category_file(category))

    def summary(self, category: str) -> PixelSummary | None:
        """Pixel histograms of a finished category, or None."""
        return PixelSummary.load(self.category_file(category).with_suffix(".summary.npz"))

    def replicates(self, category: str) -> Replicates | None:
        """Metrics of the resamples of a finished category, or None."""
        return Replicates.load(self.category_file(category).with_suffix(".replicates.npz"))


def _read_category(path: Path) -> CategoryResult | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {key: math.nan if value is None else value for key, value in content.pop("metrics").items()}
        images = tuple(ImageResult(**image) for image in content.pop("images"))
        return CategoryResult(metrics=metrics, images=images, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shown_metrics(table: pd.DataFrame) -> list[str]:
    """Metric columns of a table, in the field's order."""
    return [metric for metric in (*METRICS, *OPTIONAL_METRICS) if metric in table]


def percent(value: float) -> str:
    """A fraction as percent with one decimal; a dash where there is no value."""
    return "-" if pd.isna(value) else f"{100 * value:.1f}"


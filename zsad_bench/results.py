"""Result files: one JSON per finished category, written atomically, with its histograms and replicates beside it.

``<results_dir>/<name>/jobs/<job>/categories/<category>.json`` is the unit of work that is kept or done again. The
tables in the folder are rebuilt from these files (:mod:`zsad_bench.tables`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from zsad_bench.bootstrap import Replicates, bootstrap
from zsad_bench.core.names import near_misses, safe_name
from zsad_bench.errors import UserError
from zsad_bench.files import atomic_path, write_atomic
from zsad_bench.summaries import PixelSummary
from zsad_bench.units import OBJECTS_NOTE, Units, units_of

RESULT_FORMAT = 2
"""Raised when a change of the code changes numbers or what files mean, so that older results are computed again.

2: photos count by content, a short last batch is filled, rows say at which size pixels were compared.
"""

PARITY, RECONSTRUCTION, EXAMPLE = "parity", "reconstruction", "example"
"""Levels of fidelity of a method: proven against public code by a test; rebuilt from a text; shown how to write one."""
MODIFIED, OWN = "modified", "own"
"""What rows say instead: keys were changed; the method's YAML says nothing of fidelity."""

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
    *("encoder", "pretrained", "image_size", "precision", "batch_size", "seed"),
)
COUNT_COLUMNS = ("n_images", "n_anomalous", "n_skipped")


@dataclass(frozen=True)
class JobInfo:
    """The columns that every row of a job shares, and which categories it is made of.

    Attributes:
        method, variant, setting: the method; ``variant`` is ``modified (...)`` where keys differ from its YAML.
        dataset, protocol: what was measured, and how; rows that differ in them are never ranked together.
        encoder, pretrained, image_size, precision: the encoder.
        batch_size, seed: of the job.
        config_hash: the job's identity, see :mod:`zsad_bench.engine.identity`.
        categories: those that the job is made of.
        series: the identity without the seed: jobs of one series differ in the seed only.
        fidelity: ``parity``, ``reconstruction``, ``example``, ``own`` or ``modified``.
        preset: the variant of the YAML, whether keys were changed or not.
        root: stands for the folder of data without a published identity; empty for published datasets.
        keys: every key that can change a number -> its value as it is written on the command line.
        format: number of the result format, 1 for files without one.
        superseded: whether the same command was given again with other code or other contents of files.
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
    precision: str = ""
    fidelity: str = ""
    preset: str = ""
    root: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    format: int = RESULT_FORMAT
    superseded: bool = False

    @property
    def command(self) -> JobInfo:
        """What was asked for, whatever files and code were found then."""
        keys = {key: value for key, value in self.keys.items() if key != "method.version"}
        return replace(self, config_hash="", series="", format=0, superseded=False, keys=keys)

    @property
    def folder(self) -> str:
        """Folder name of the job; it ends in the job's identity."""
        preset = self.preset or self.variant
        method = self.method if preset == "paper" else f"{self.method}-{preset}"
        return f"{safe_name(f'{method}_{self.dataset}_b{self.batch_size}_s{self.seed}')}_{self.config_hash}"


@dataclass(frozen=True, slots=True)
class ImageResult:
    """Score of one image; label None if unknown; batch counts the category's batches from 0, None if not recorded.

    ``group`` names the object that the photo shows with others; empty for a photo that stands alone, and in files of
    versions that did not record it.
    """

    image_id: str
    label: int | None
    defect_type: str
    score: float
    batch: int | None = None
    group: str = ""


@dataclass(frozen=True)
class CategoryResult:
    """Everything a finished category leaves behind.

    Attributes:
        metrics: fractions 0 to 1, NaN where undefined.
        notes: why a metric is undefined, which images were left out.
        fingerprint: of the list of image and mask files; a changed dataset is evaluated again.
        timing: seconds per stage (``load``, ``encode``, ``score``, ``metrics``), and facts about the machine.
        filled_with: images that were scored before and filled the last batch.
    """

    category: str
    n_images: int
    n_anomalous: int
    n_skipped: int
    metrics: dict[str, float]
    notes: str
    fingerprint: str
    images: tuple[ImageResult, ...]
    timing: dict[str, float | str] = field(default_factory=dict)
    filled_with: tuple[str, ...] = ()

    @property
    def units(self) -> Units:
        """What the image metrics are over; nothing where the file does not tell (:attr:`lacks_groups`).

        Made anew every time: a report of many results would hold a third more memory otherwise.
        """
        images = () if self.lacks_groups else self.images
        return units_of(images, [image.score for image in images])

    @property
    def n_units(self) -> int:
        """Objects, and images that stand alone."""
        groups = [image.group for image in self.images if image.group]
        return self.n_images - len(groups) + len(set(groups))

    @property
    def lacks_groups(self) -> bool:
        """Whether the image metrics are over objects that the file, of an older version, does not name."""
        return OBJECTS_NOTE in self.notes and not any(image.group for image in self.images)


def _finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else float(value) for key, value in values.items()}


class JobFolder:
    """Files of one job."""

    def __init__(self, run_folder: Path, info: JobInfo, path: Path | None = None) -> None:
        self.info = info
        self.path = path or run_folder / "jobs" / info.folder

    def start(self, config_yaml: str) -> None:
        """Write what the job is, before anything is computed.

        A job of the same command with another identity is superseded: it was made with other code of a method, or with
        other contents of files of the same names. Its files stay, and tables leave it out.
        """
        write_atomic(self.path / "config.yaml", config_yaml)
        self._write_info(self.info)
        if not self.info.keys:
            return
        for place, other in self._like_it():
            if other.config_hash != self.info.config_hash and other.command == self.info.command:
                JobFolder(Path(), other, place)._write_info(replace(other, superseded=True))

    def require_started(self) -> None:
        """Raise UserError, naming what there is, unless the job or one that it stands for has begun before.

        It stands for jobs of the same command with another identity, and for those of version 0.1.
        """
        if (self.path / "job.json").exists():
            return
        if any(other.command == self.info.command or other.format < self.info.format for _, other in self._like_it()):
            return
        jobs = self.path.parent
        there = sorted(path.parent.name for path in jobs.glob("*/job.json"))
        near = near_misses(self.path.name, there, count=3, cutoff=0)
        listed = f"; it has {', '.join(near)}{' and others' if len(there) > len(near) else ''}" if near else ""
        raise UserError(
            f"{jobs.parent}: has no job {self.path.name}, and overwrite=never computes nothing{listed}; correct the "
            "choices, or leave overwrite=never out"
        )

    def _like_it(self) -> Iterator[tuple[Path, JobInfo]]:
        """Folders and columns of jobs whose folders have the same name up to the identity."""
        start = self.info.folder.removesuffix(self.info.config_hash)
        for path in self.path.parent.glob(f"{start}*/job.json"):
            if (other := read_job_info(path)) is not None:
                yield path.parent, other

    def _write_info(self, info: JobInfo) -> None:
        write_atomic(self.path / "job.json", json.dumps(asdict(info), indent=1) + "\n")

    def category_file(self, category: str) -> Path:
        """Where a finished category lies: where version 0.1 put it, if that file is there and is of this category."""
        return self._file(self._stem(category), ".json")

    def save(self, result: CategoryResult, summary: PixelSummary | None = None) -> None:
        """Keep a finished category. Its summary and replicates come first: the JSON file says that it is finished."""
        stem = safe_name(result.category)
        if summary is not None:
            with atomic_path(self._file(stem, ".summary.npz")) as path:
                summary.save(path)
        with atomic_path(self._file(stem, ".replicates.npz")) as path:
            bootstrap(result.category, result.units, summary).save(path)
        content = {"format": self.info.format, **asdict(result), "metrics": _finite_or_none(result.metrics)}
        write_atomic(self._file(stem, ".json"), json.dumps(content, indent=1) + "\n")

    def worst_picture(self, category: str) -> Path:
        """The sheet of a category's worst images."""
        return self.path / "maps" / f"{self._stem(category)}.worst.png"

    def _file(self, stem: str, ending: str) -> Path:
        return self.path / "categories" / f"{stem}{ending}"

    def _stem(self, category: str) -> str:
        """File name of a category without its ending."""
        stem, earlier = safe_name(category), category.replace("/", "_")
        if stem == earlier or self._file(stem, ".json").exists():
            return stem
        found = _read_category(self._file(earlier, ".json"))
        return earlier if found is not None and found.category == category else stem

    def load(self, category: str) -> CategoryResult | None:
        """A finished category, or None if there is none or its file is damaged."""
        found = _read_category(self.category_file(category))
        # Version 0.1 wrote categories such as a/b and a_b into one file: it holds the one that was finished last.
        return found if found is not None and found.category == category else None

    def summary(self, category: str) -> PixelSummary | None:
        """Pixel histograms of a finished category, or None."""
        return PixelSummary.load(self._file(self._stem(category), ".summary.npz"))

    def replicates(self, category: str) -> Replicates | None:
        """Metrics of the resamples of a finished category, or None."""
        return Replicates.load(self._file(self._stem(category), ".replicates.npz"))


def _read_category(path: Path) -> CategoryResult | None:
    try:
        content = _known(CategoryResult, json.loads(path.read_text(encoding="utf-8")))
        content["metrics"] = {key: math.nan if value is None else value for key, value in content["metrics"].items()}
        content["images"] = tuple(ImageResult(**_known(ImageResult, image)) for image in content["images"])
        content["filled_with"] = tuple(content.get("filled_with", ()))
        return CategoryResult(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a file that a dataclass has; files of later versions may hold more."""
    return {key.name: content[key.name] for key in fields(kind) if key.name in content}


def read_job_info(path: Path) -> JobInfo | None:
    """What a job is, from its ``job.json``; None if the file is damaged. Keys of other versions are ignored."""
    try:
        content = _known(JobInfo, json.loads(path.read_text(encoding="utf-8")))
        return JobInfo(**{"format": 1, **content, "categories": tuple(content["categories"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def shown_metrics(table: pd.DataFrame) -> list[str]:
    """Metric columns of a table, in the field's order."""
    return [metric for metric in (*METRICS, *OPTIONAL_METRICS) if metric in table]


def percent(value: float) -> str:
    """A fraction as percent with one decimal; a dash where there is no value."""
    return "-" if pd.isna(value) else f"{100 * value:.1f}"


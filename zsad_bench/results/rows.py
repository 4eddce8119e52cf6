"""What a job is and what a finished category leaves behind: the values that result files and rows are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from zsad_bench.core.names import safe_name
from zsad_bench.metrics.units import OBJECTS_NOTE, Units, units_of

RESULT_FORMAT = 2
"""Raised when a change of the code changes numbers or what files mean, so that older results are computed again.

2: photos count by content, a short last batch is filled, rows say at which size pixels were compared.
"""

PARITY, RECONSTRUCTION, EXAMPLE = "parity", "reconstruction", "example"
"""Levels of fidelity of a method: proven against public code by a test; rebuilt from a text; shown how to write one."""
MODIFIED, OWN = "modified", "own"
"""What rows say instead: keys were changed; the method's YAML says nothing of fidelity."""
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
        stamp: hash of what the columns were made from; empty in files of versions that made them anew every time.
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
    stamp: str = ""

    @property
    def command(self) -> JobInfo:
        """What was asked for, whatever files and code were found then."""
        keys = {key: value for key, value in self.keys.items() if key != "method.version"}
        return replace(self, config_hash="", series="", format=0, superseded=False, stamp="", keys=keys)

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


def own_seconds(timing: Mapping[str, float | str]) -> float:
    """Seconds of a category's text, of its images' features and of the method, as if the method had run alone.

    NaN if not all of them are known: features or text that were encoded by a version that did not time their parts.
    """
    parts = (timing.get(name, math.nan) for name in ("charged_text", "charged_encode", "seconds_score"))
    return math.fsum(map(float, parts))


def mean_metrics(results: list[CategoryResult]) -> tuple[dict[str, float], str]:
    """Unweighted mean over categories; a metric that is undefined in a category has no mean, and the note says so."""
    means, notes = {}, []
    for metric in results[0].metrics:
        values = [result.metrics.get(metric, math.nan) for result in results]
        defined = [value for value in values if not math.isnan(value)]
        means[metric] = math.fsum(values) / len(values) if len(defined) == len(values) else math.nan
        if len(defined) < len(values):
            notes.append(f"{metric} defined in {len(defined)}/{len(values)} categories")
    return means, "; ".join(notes)

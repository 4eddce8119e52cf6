"""Result files: one JSON per finished category, written atomically, and the tables that are built from them.

``<results_dir>/<name>/jobs/<job>/categories/<category>.json`` is the unit of work that is kept or done again. The other
tables in the folder (``metrics.csv``, ``images.csv``, ``timing.csv``, ``leaderboard.*``) are rebuilt from these files.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_bench.bootstrap import Replicates, bootstrap
from zsad_bench.errors import UserError
from zsad_bench.published import add_published
from zsad_bench.summaries import PixelSummary

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
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
        timing: seconds per stage (``load``, ``encode``, ``score``, ``metrics``), and facts about the machine.
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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, so nobody reads half a file.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another results_dir"
        ) from None


def write_atomic(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all; raises UserError if the folder cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


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

    def _category_file(self, category: str) -> Path:
        return self.path / "categories" / f"{category.replace('/', '_')}.json"

    def save(self, result: CategoryResult, summary: PixelSummary | None = None) -> None:
        """Keep a finished category. Its summary and replicates come first: the JSON file says that it is finished."""
        arrays = self._category_file(result.category)
        if summary is not None:
            with atomic_path(arrays.with_suffix(".summary.npz")) as path:
                summary.save(path)
        with atomic_path(arrays.with_suffix(".replicates.npz")) as path:
            self._bootstrap(result, summary).save(path)
        content = {**asdict(result), "metrics": _finite_or_none(result.metrics)}
        write_atomic(self._category_file(result.category), json.dumps(content, indent=1) + "\n")

    def _bootstrap(self, result: CategoryResult, summary: PixelSummary | None) -> Replicates:
        ids, labels, scores = zip(*((image.image_id, image.label, image.score) for image in result.images), strict=True)
        return bootstrap(self.info.dataset, result.category, ids, labels, np.array(scores), summary)

    def load(self, category: str) -> CategoryResult | None:
        """A finished category, or None if there is none or its file is damaged."""
        return _read_category(self._category_file(category))

    def summary(self, category: str) -> PixelSummary | None:
        """Pixel histograms of a finished category, or None."""
        return PixelSummary.load(self._category_file(category).with_suffix(".summary.npz"))

    def replicates(self, category: str) -> Replicates | None:
        """Metrics of the resamples of a finished category, or None."""
        return Replicates.load(self._category_file(category).with_suffix(".replicates.npz"))


def _read_category(path: Path) -> CategoryResult | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {key: math.nan if value is None else value for key, value in content.pop("metrics").items()}
        images = tuple(ImageResult(**image) for image in content.pop("images"))
        return CategoryResult(metrics=metrics, images=images, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


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


@dataclass(frozen=True)
class RunTables:
    """Tables of a results folder, as pandas frames."""

    metrics: pd.DataFrame
    images: pd.DataFrame
    timing: pd.DataFrame
    leaderboard: pd.DataFrame


def _jobs(run_folder: Path) -> Iterator[tuple[JobInfo, list[CategoryResult]]]:
    for path in sorted(run_folder.glob("jobs/*/job.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        info = JobInfo(**{**content, "categories": tuple(content["categories"])})
        folder = JobFolder(run_folder, info)
        found = [result for category in info.categories if (result := folder.load(category)) is not None]
        yield info, found


def collect(run_folder: Path) -> RunTables:
    """Read every job of a results folder."""
    metrics, images, timing, board = [], [], [], []
    for info, results in _jobs(run_folder):
        shared = {column: getattr(info, column, "") for column in JOB_COLUMNS}
        for result in results:
            row = {**shared, "category": result.category}
            counts = {column: getattr(result, column) for column in COUNT_COLUMNS}
            metrics.append({**row, **counts, **result.metrics, "config_hash": info.config_hash, "notes": result.notes})
            images += [{**row, **asdict(image), "config_hash": info.config_hash} for image in result.images]
            timing.append({**row, "n_images": result.n_images, **result.timing, "config_hash": info.config_hash})
        complete = len(results) == len(info.categories)
        means, notes = mean_metrics(results) if complete else (dict.fromkeys(METRICS, math.nan), "")
        counts = {column: sum(getattr(result, column) for result in results) for column in COUNT_COLUMNS}
        if complete:
            metrics.append(
                {**shared, "category": "mean", **counts, **means, "config_hash": info.config_hash, "notes": notes}
            )
        done = {"categories": f"{len(results)}/{len(info.categories)}"}
        board.append({**shared, **done, "n_images": counts["n_images"], **means, "config_hash": info.config_hash})
    return RunTables(_sorted(metrics), _sorted(images), _sorted(timing), add_published(_ranked(_sorted(board))))


def _sorted(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows in an order that does not depend on when they were computed; the mean row of a job comes last."""
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    sizes = table["batch_size"].map(lambda size: math.inf if size == "all" else int(size))
    order = table.assign(_size=sizes, _mean=table["category"] == "mean")
    keys = [
        "dataset",
        "protocol",
        "method",
        "variant",
        "encoder",
        "pretrained",
        "image_size",
        "_size",
        "seed",
        "config_hash",
        "_mean",
        "category",
    ]
    keys += [key for key in ("image_id",) if key in table]
    return table.loc[order.sort_values(keys, kind="stable").index].reset_index(drop=True)


def _ranked(board: pd.DataFrame) -> pd.DataFrame:
    """Rank by image AUROC among jobs that can be compared: same dataset, protocol and setting."""
    if board.empty:
        return board
    board = board.drop(columns="category")
    groups = board.groupby(["dataset", "protocol", "setting"], sort=False)["image_auroc"]
    board.insert(0, "rank", groups.rank(ascending=False, method="min").astype("Int64"))
    order = board.assign(_unranked=board["rank"].isna())
    return board.loc[
        order.sort_values(["dataset", "protocol", "setting", "_unranked", "rank"], kind="stable").index
    ].reset_index(drop=True)


def write_tables(run_folder: Path) -> RunTables:
    """Rebuild every table of a results folder from the files of its jobs."""
    tables = collect(run_folder)
    for name in ("metrics", "images", "timing", "leaderboard"):
        write_atomic(run_folder / f"{name}.csv", getattr(tables, name).to_csv(index=False, lineterminator="\n"))
    write_atomic(run_folder / "leaderboard.md", leaderboard_markdown(tables.leaderboard))
    return tables


def shown_metrics(table: pd.DataFrame) -> list[str]:
    """Metric columns of a table, in the field's order."""
    return [metric for metric in (*METRICS, *OPTIONAL_METRICS) if metric in table]


def percent(value: float) -> str:
    """A fraction as percent with one decimal; a dash where there is no value."""
    return "-" if pd.isna(value) else f"{100 * value:.1f}"


def leaderboard_markdown(board: pd.DataFrame) -> str:
    """The leaderboard as a Markdown table, percent with one decimal."""
    columns = [
        "rank",
        "method",
        "variant",
        "setting",
        "dataset",
        "protocol",
        "encoder",
        "batch_size",
        "seed",
        "categories",
    ]
    if board.empty:
        return "No finished job.\n"
    head = [*columns, *shown_metrics(board)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in board.to_dict("records"):
        cells = ["-" if pd.isna(row[column]) else str(row[column]) for column in columns]
        lines.append("| " + " | ".join(cells + [percent(row[metric]) for metric in shown_metrics(board)]) + " |")
    return (
        "\n".join(lines)
        + "\n\nPercent; mean over categories. Ranked by image AUROC within dataset, protocol and setting.\n"
    )

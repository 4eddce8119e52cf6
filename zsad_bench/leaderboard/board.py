"""The leaderboard: a row per method, dataset, encoder and batch size, ranked among rows that can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from zsad_bench.core.errors import UserError
from zsad_bench.core.names import batch_size_order, did_you_mean
from zsad_bench.leaderboard.comparisons import series_interval
from zsad_bench.leaderboard.merged_rows import merge_batches
from zsad_bench.leaderboard.paper_figures import comparable
from zsad_bench.leaderboard.series import Series
from zsad_bench.metrics.names import METRICS, OPTIONAL_METRICS
from zsad_bench.results.rows import JobInfo
from zsad_bench.results.runs import Job
from zsad_bench.results.varied_keys import varied_keys, varied_values

ALWAYS = ("dataset", "protocol")
"""Rows of different datasets or protocols are never ranked together."""

LABELS = (
    *("method", "variant", "fidelity", "setting", "dataset", "protocol"),
    *("encoder", "pretrained", "image_size", "precision", "batch_size"),
)


@dataclass(frozen=True)
class BoardOptions:
    """What the leaderboard shows, keys ``board.*`` of the configuration.

    Attributes:
        metric: ranks the rows.
        group: columns within which rows are ranked, besides dataset and protocol.
        filter: column -> values to keep; other rows are left out before ranking.
    """

    metric: str = "image_auroc"
    group: tuple[str, ...] = ("setting",)
    filter: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric not in (*METRICS, *OPTIONAL_METRICS):
            raise UserError(f"board.metric={self.metric}: no such metric{did_you_mean(self.metric, METRICS)}")
        for key, names in (("board.group", self.group), ("board.filter", tuple(self.filter))):
            for name in names:
                if name not in LABELS:
                    raise UserError(f"{key}: no column {name}{did_you_mean(name, LABELS)}")

    @staticmethod
    def from_config(values: Mapping[str, object]) -> BoardOptions:
        """Options from the plain values of a config, where one value may stand for a list of one.

        Raises:
            UserError: an unknown metric or column.
        """
        chosen = values.get("filter") or {}
        if not isinstance(chosen, Mapping):
            raise UserError("board.filter: give columns with values, for example board.filter={method:[musc,winclip]}")
        return BoardOptions(
            str(values.get("metric", "image_auroc")),
            _names(values.get("group", "setting")),
            {str(name): _names(wanted) for name, wanted in chosen.items()},
        )

    def keeps(self, info: JobInfo) -> bool:
        """Whether the filter lets a job pass."""
        labels = label_columns(info)
        return all(str(labels[name]) in wanted for name, wanted in self.filter.items())


def _names(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else (str(value),)


def label_columns(info: JobInfo) -> dict[str, object]:
    """What a row is about."""
    return {name: getattr(info, name) for name in LABELS}


def build_board(series: Sequence[Series], options: BoardOptions | None = None) -> pd.DataFrame:
    """All columns of the leaderboard, ranked and ordered.

    Per metric: the mean over categories and seeds; ``_low`` and ``_high``, its 95 % interval over images;
    ``_seed_std``, the standard deviation over seeds; ``published_`` and ``difference_`` (ours minus the paper's) where
    comparable. Keys that a sweep varied (:mod:`zsad_bench.results.varied_keys`) are columns under their full names.
    """
    options = options or BoardOptions()
    varied = varied_keys([entry.info for entry in series])
    kept = [entry for entry in series if options.keeps(entry.info)]
    if not kept:
        return pd.DataFrame()
    board = pd.DataFrame([_row(entry, varied) for entry in kept])
    metrics = [name for name in (*METRICS, *OPTIONAL_METRICS) if name in board]
    if options.metric not in board:
        raise UserError(f"board.metric={options.metric}: not in these results; choose from {', '.join(metrics)}")
    groups = list(dict.fromkeys([*ALWAYS, *options.group]))
    # Batch sizes that are one row for a reader count once; grouped by batch size they are rows of their own.
    merged = [(entry,) for entry in kept] if "batch_size" in groups else merge_batches(kept)
    rows = {entry.info.config_hash: place for place, group in enumerate(merged) for entry in group}
    row_of = board["config_hash"].map(rows)
    once = ~row_of.duplicated()
    found = board[once].groupby(groups, sort=False, dropna=False)[options.metric].rank(ascending=False, method="min")
    ranks = row_of.map(dict(zip(row_of[once], found, strict=True)))
    board.insert(0, "rank", ranks.astype("Int64"))
    sizes = board["batch_size"].map(batch_size_order)
    texts = {name: board[name].astype(str) for name in groups}
    order = board.assign(_size=sizes, _unranked=board["rank"].isna(), **texts)
    keys = [*groups, "_unranked", "rank", "method", "variant", "encoder", "_size", "config_hash"]
    return board.loc[order.sort_values(keys, kind="stable").index].reset_index(drop=True)


def _row(series: Series, varied: Sequence[str]) -> dict[str, object]:
    info, job = series.info, (series.finished or series.jobs)[0]
    names = [name for name in (*METRICS, *OPTIONAL_METRICS) if name in METRICS or _has(job, name)]
    row: dict[str, object] = {
        **label_columns(info),
        **varied_values(info, varied),
        "seed": series.seeds,
        "n_seeds": len(series.finished),
        "categories": series.progress,
        "n_images": series.n_images,
    }
    means = {name: series.mean(name) for name in names}
    row |= means
    for name in METRICS:
        row[f"{name}_low"], row[f"{name}_high"] = series_interval(series, name)
        row[f"{name}_seed_std"] = spread(series.seed_means(name))
    printed = comparable(info)
    for name in METRICS:
        row[f"published_{name}"] = printed.values.get(name, math.nan)
        row[f"difference_{name}"] = means[name] - printed.values.get(name, math.nan)
    return {**row, "published_source": printed.source, "config_hash": info.config_hash, "notes": _notes(series)}


def _has(job: Job, metric: str) -> bool:
    return any(metric in result.metrics for result in job.results.values())


def _notes(series: Series) -> str:
    """Which metrics have no mean, and which seeds are not finished."""
    notes = []
    if 0 < len(series.finished) < len(series.jobs):
        notes.append(f"{len(series.finished)} of {len(series.jobs)} seeds finished")
    for job in series.finished[:1]:
        for name in METRICS:
            values = [result.metrics.get(name, math.nan) for result in job.results.values()]
            defined = sum(not math.isnan(value) for value in values)
            if defined < len(values):
                notes.append(f"{name} defined in {defined}/{len(values)} categories")
    return "; ".join(notes)


def spread(values: Sequence[float]) -> float:
    """Standard deviation (n - 1) over seeds; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))

"""The tables of results folders, rebuilt from the files of their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from zsad_bench.core.files import write_atomic
from zsad_bench.core.names import batch_size_order
from zsad_bench.leaderboard.board import BoardOptions, build_board
from zsad_bench.leaderboard.merged_rows import shown_rows
from zsad_bench.leaderboard.series import group_series
from zsad_bench.leaderboard.speed import build_speed
from zsad_bench.leaderboard.text import leaderboard_latex, leaderboard_markdown
from zsad_bench.results.rows import COUNT_COLUMNS, JOB_COLUMNS, ImageResult, mean_metrics
from zsad_bench.results.runs import Job, read_runs
from zsad_bench.results.varied_keys import varied_keys, varied_values


@dataclass(frozen=True)
class RunTables:
    """Tables of results folders, as pandas frames; ``shown`` is the leaderboard as people read it."""

    metrics: pd.DataFrame
    images: pd.DataFrame
    timing: pd.DataFrame
    leaderboard: pd.DataFrame
    speed: pd.DataFrame
    shown: pd.DataFrame


def collect(run_folder: Path, options: BoardOptions | None = None) -> RunTables:
    """Read every job of a results folder."""
    return build_tables(read_runs([run_folder]).jobs, options)


def build_tables(jobs: Sequence[Job], options: BoardOptions | None = None) -> RunTables:
    """Tables of jobs: a row per category and mean, per image, per timing, the leaderboard and its speeds."""
    metrics, images, timing = [], [], []
    varied = varied_keys([job.info for job in jobs])
    grouped = any(image.group for job in jobs for result in job.results.values() for image in result.images)
    for job in jobs:
        info = job.info
        shared = {**{column: getattr(info, column, "") for column in JOB_COLUMNS}, **varied_values(info, varied)}
        for result in job.results.values():
            row = {**shared, "category": result.category}
            counts = {column: getattr(result, column) for column in COUNT_COLUMNS}
            metrics.append({**row, **counts, **result.metrics, "config_hash": info.config_hash, "notes": result.notes})
            images += [_image_row(image, row, info.config_hash, grouped) for image in result.images]
            timing.append({**row, "n_images": result.n_images, **result.timing, "config_hash": info.config_hash})
        if job.complete and job.results:
            metrics.append(_mean_row(shared, job))
    series = group_series(jobs)
    board = build_board(series, options)
    speed, shown = build_speed(series, board), shown_rows(series, board)
    return RunTables(_sorted(metrics), _sorted(images), _sorted(timing), board, speed, shown)


def _image_row(image: ImageResult, shared: dict[str, object], digest: str, grouped: bool) -> dict[str, object]:
    """The columns of an image; the object that it shows only in tables with objects."""
    columns = asdict(image)
    if not grouped:
        del columns["group"]
    return {**shared, **columns, "config_hash": digest}


def _mean_row(shared: dict[str, object], job: Job) -> dict[str, object]:
    results = list(job.results.values())
    means, notes = mean_metrics(results)
    counts = {column: sum(getattr(result, column) for result in results) for column in COUNT_COLUMNS}
    return {**shared, "category": "mean", **counts, **means, "config_hash": job.info.config_hash, "notes": notes}


def _sorted(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows in an order that does not depend on when they were computed; the mean row of a job comes last."""
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    sizes = table["batch_size"].map(batch_size_order)
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


def write_tables(run_folder: Path, options: BoardOptions | None = None) -> RunTables:
    """Rebuild every table of a results folder from the files of its jobs."""
    options = options or BoardOptions()
    tables = collect(run_folder, options)
    for name in ("metrics", "images", "timing"):
        write_atomic(run_folder / f"{name}.csv", csv_text(getattr(tables, name)))
    write_leaderboard(run_folder, tables.leaderboard, tables.speed, tables.shown, options)
    return tables


def write_leaderboard(
    folder: Path, board: pd.DataFrame, speed: pd.DataFrame, shown: pd.DataFrame, options: BoardOptions
) -> None:
    """``leaderboard.csv``, which repeats byte for byte, its speeds, and what people read as Markdown and LaTeX."""
    write_atomic(folder / "leaderboard.csv", csv_text(board))
    write_atomic(folder / "leaderboard_speed.csv", csv_text(speed))
    write_atomic(folder / "leaderboard.md", leaderboard_markdown(shown, options))
    write_atomic(folder / "leaderboard.tex", leaderboard_latex(shown, options))


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV, the same bytes on every system."""
    return table.to_csv(index=False, lineterminator="\n")

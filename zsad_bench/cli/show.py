"""The tables that the command line shows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from zsad_bench.core.console import out, warn
from zsad_bench.metrics.names import percent, shown_metrics
from zsad_bench.results.varied_keys import key_columns, short_key

SUSPICIOUS = 0.4
"""A method that ranks images worse than this is more likely wired wrongly than bad."""

_WIDTHS = {"method": 10, "category": 10}
_HEADINGS = {
    "setting": "sees",
    "reconstruction": "recon.",
    "n_images": "n",
    "n_anomalous": "anom.",
    "batch_size": "batch",
}

# The leaderboard's speeds are shown on terminals of at least so many columns; narrower ones need them for the metrics.
_WIDE = 150
_SPEEDS = {"images_per_second": "images/s", "method_images_per_second": "images/s\nmethod\nalone"}


def _table(title: str, rows: pd.DataFrame, labels: list[str]) -> Table:
    """Label columns and metrics in percent; a label that is the same in every row moves into the title.

    Speeds follow if the rows have them and there is room.
    """
    constant = [
        label for label in labels if len(rows) > 1 and label != "rank" and rows[label].nunique(dropna=False) == 1
    ]
    title += "".join(f", {_HEADINGS.get(label, short_key(label))} {rows[label].iloc[0]}" for label in constant)
    table = Table(
        title=title,
        title_justify="left",
        caption="percent",
        caption_justify="right",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    shown = [label for label in labels if label not in constant]
    metrics = shown_metrics(rows)
    for label in shown:
        heading = _HEADINGS.get(label, short_key(label))
        table.add_column(heading, overflow="fold", min_width=_WIDTHS.get(label))
    for metric in metrics:
        table.add_column(metric.replace("_", "\n"), justify="right", no_wrap=True)
    speeds = [name for name in _SPEEDS if name in rows and out.width >= _WIDE]
    for name in speeds:
        table.add_column(_SPEEDS[name], justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        style = "bold" if row.get("category") == "mean" else None
        cells = [Text("-" if pd.isna(row[label]) else str(row[label])) for label in shown]
        rates = ["-" if pd.isna(row[name]) else f"{row[name]:.1f}" for name in speeds]
        table.add_row(*cells, *(percent(row[metric]) for metric in metrics), *rates, style=style)
    return table


def show_metrics(metrics: pd.DataFrame, path: Path) -> None:
    """Print the rows of one job."""
    if metrics.empty:
        return
    labels = ["method", "variant", "dataset", "encoder", "precision", "category", "n_images", "n_anomalous"]
    out.print(_table("results", metrics, [*labels, *key_columns(metrics), "batch_size", "seed"]))
    for note in sorted({f"{row['category']}: {row['notes']}" for row in metrics.to_dict("records") if row["notes"]}):
        out.print(Text(note, style="dim"))
    out.print(Text(f"rows: {path}"), soft_wrap=True)


def show_leaderboard(board: pd.DataFrame, path: Path) -> None:
    """Print the leaderboard of a sweep."""
    if board.empty:
        return
    labels = [
        *("rank", "method", "variant", "setting", "dataset", "protocol"),
        *("encoder", "precision", *key_columns(board), "batch_size", "seed", "categories"),
    ]
    out.print(_table("leaderboard", board, labels))
    for row in board.to_dict("records"):
        if row["image_auroc"] < SUSPICIOUS:
            warn(
                f"{row['method']}, batch {row['batch_size']}: image AUROC {percent(row['image_auroc'])} is worse than "
                "chance; look for a flipped sign, wrong weights or wrong labels"
            )
    out.print(Text(f"leaderboard: {path}"), soft_wrap=True)

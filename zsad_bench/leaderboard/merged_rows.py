"""One row for several batch sizes, where the batch size changes nothing that is printed.

A method that looks at images one by one gives the same numbers at every batch size. For a reader that is one row
("1, 4, 16"); ``leaderboard.csv`` keeps them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from zsad_bench.leaderboard.series import Series
from zsad_bench.leaderboard.speed import SPEED, encoded_on, speed_columns
from zsad_bench.metrics.names import METRICS, OPTIONAL_METRICS, percent

DEPENDENT = "batch"
"""The setting of methods that compare the images of a batch: their rows stay apart even where they print the same."""

_HASHES = ("config_hash", "series", "stamp")
_APART = ("batch_size", "seed")


def merge_batches(series: Sequence[Series]) -> list[tuple[Series, ...]]:
    """Groups of series that are one row, each ascending by batch size, in the order of their first members.

    Series are one row if they are finished, their method does not compare the images of a batch, they differ in the
    batch size alone, and every metric prints the same.
    """
    families: dict[tuple[object, ...], list[Series]] = {}
    for entry in series:
        families.setdefault(_family(entry), []).append(entry)
    groups: list[tuple[Series, ...]] = []
    for entries in families.values():
        ordered = sorted(entries, key=lambda entry: entry.batch_order)
        groups += [tuple(ordered)] if _same(ordered) else [(entry,) for entry in entries]
    places = {id(entry): place for place, entry in enumerate(series)}
    return sorted(groups, key=lambda group: min(places[id(entry)] for entry in group))


def batch_text(group: Sequence[Series]) -> str:
    """Batch sizes of a row, such as ``1, 4, 16``."""
    return ", ".join(str(entry.info.batch_size) for entry in group)


def fastest(group: Sequence[Series]) -> Series:
    """The series of a row whose speed and memory are shown; the first if no speed is known."""
    rates = [speed_columns(entry)["images_per_second"] for entry in group]
    known = [rate for rate in rates if not math.isnan(rate)]
    return group[rates.index(max(known))] if known else group[0]


def _family(entry: Series) -> tuple[object, ...]:
    """Everything that a job is but its batch size and seed, and the seeds that are finished."""
    info = entry.info
    values = {field.name: getattr(info, field.name) for field in fields(info) if field.name not in (*_HASHES, *_APART)}
    keys = values.pop("keys", {})
    known = tuple(sorted((name, text) for name, text in keys.items() if name not in _APART))
    return (*(str(value) for value in values.values()), known, entry.seeds, len(entry.finished), entry.n_images)


def _same(entries: Sequence[Series]) -> bool:
    """Whether series of one family, ascending by batch size, are one row."""
    if any(entry.info.setting == DEPENDENT or not entry.finished for entry in entries):
        return False
    if len({str(entry.info.batch_size) for entry in entries}) < len(entries):
        return False  # something else tells them apart
    return (
        len({tuple(percent(entry.mean(metric)) for metric in (*METRICS, *OPTIONAL_METRICS)) for entry in entries}) == 1
    )


def shown_rows(series: Sequence[Series], board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as people read it: a row for each of :func:`merge_batches`, with its speed and memory.

    ``batch_size`` holds all batch sizes of a row, ``fastest_batch`` the one whose speed and memory are shown where
    there are several.

    Args:
        series: those of the leaderboard, and perhaps more.
        board: of :func:`zsad_bench.leaderboard.board.build_board`.
    """
    if board.empty:
        return board
    places = {digest: place for place, digest in enumerate(board["config_hash"])}
    shown = [entry for entry in series if entry.info.config_hash in places]
    rows = []
    for group in merge_batches(sorted(shown, key=lambda entry: places[entry.info.config_hash])):
        best = fastest(group)
        text = batch_text(group) if len(group) > 1 else group[0].info.batch_size
        more = {"fastest_batch": str(best.info.batch_size) if len(group) > 1 else "", "encoded_on": encoded_on(best)}
        row = board.iloc[min(places[entry.info.config_hash] for entry in group)]
        rows.append(pd.Series({**row, "batch_size": text, **speed_columns(best), **more}))
    return pd.DataFrame(rows, columns=[*board.columns, *SPEED, "fastest_batch", "encoded_on"])

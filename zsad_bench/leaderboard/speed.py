"""Images per second and memory of the leaderboard's rows.

They differ from run to run and from machine to machine, so they have a file of their own, ``leaderboard_speed.csv``:
everything in ``leaderboard.csv`` is the same bytes for the same configuration and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from zsad_bench.leaderboard.series import Series
from zsad_bench.results.rows import CategoryResult, own_seconds

KEYS = ("method", "variant", "dataset", "protocol", "encoder", "batch_size", "config_hash")
"""Columns that say which row of the leaderboard a speed belongs to."""

SPEED = ("images_per_second", "method_images_per_second", "peak_memory_mb", "peak_gpu_memory_mb")
"""Speeds as if every method had encoded for itself, and on features that are there; memory that the method adds."""

UNKNOWN = "unknown"
"""What tables say where nobody knows how long the encoder took for a method."""


def timed(result: CategoryResult) -> bool:
    """Whether a result charges its method for its own share of the encoding; older versions did not."""
    return "encoded_on" in result.timing


def images_per_second(series: Series) -> float:
    """Images of all finished categories per second of text, encoder and method, each as if the method had run alone.

    Loading, setting up and metrics do not count. NaN if that is not known.
    """
    return _rate(series, lambda result: own_seconds(result.timing))


def method_images_per_second(series: Series) -> float:
    """Images of all finished categories per second of the method alone, on features that are there."""
    return _rate(series, lambda result: float(result.timing.get("seconds_score", math.nan)))


def _rate(series: Series, taken: Callable[[CategoryResult], float]) -> float:
    """Images over seconds of all results that were timed."""
    images = seconds = 0.0
    for job in series.finished or series.jobs:
        for result in job.results.values():
            if not math.isnan(value := taken(result)):
                images += result.n_images
                seconds += value
    return images / seconds if seconds > 0 else math.nan


def peak_memory(series: Series, name: str = "peak_memory_mb") -> float:
    """Largest memory in MiB that the method added in any category, or on the GPU; NaN if not recorded."""
    results = (result for job in series.jobs for result in job.results.values())
    seen = [float(result.timing[name]) for result in results if timed(result) and name in result.timing]
    return max(seen, default=math.nan)


def encoded_on(series: Series) -> str:
    """What the features and the text of a row were encoded on, where that is not what the method ran on; else empty."""
    found: dict[str, None] = {}
    for job in series.jobs:
        for result in job.results.values():
            device = str(result.timing.get("encoded_on", ""))
            if device and device != result.timing.get("device"):
                found[device] = None
    return ", ".join(found)


def speed_columns(series: Series) -> dict[str, float]:
    """The values of :data:`SPEED` for a row."""
    return {
        "images_per_second": images_per_second(series),
        "method_images_per_second": method_images_per_second(series),
        "peak_memory_mb": peak_memory(series),
        "peak_gpu_memory_mb": peak_memory(series, "peak_gpu_memory_mb"),
    }


def build_speed(series: Sequence[Series], board: pd.DataFrame) -> pd.DataFrame:
    """Speed and memory of every row of the leaderboard, in its order.

    Args:
        series: those of the leaderboard, and perhaps more.
        board: of :func:`zsad_bench.leaderboard.board.build_board`.
    """
    if board.empty:
        return pd.DataFrame()
    rows = {tuple(str(getattr(entry.info, name)) for name in KEYS): entry for entry in series}
    kept = [rows[tuple(map(str, row))] for row in board[list(KEYS)].itertuples(index=False)]
    numbers = pd.DataFrame([{**speed_columns(entry), "encoded_on": encoded_on(entry)} for entry in kept])
    return pd.concat([board[list(KEYS)].reset_index(drop=True), numbers], axis=1)

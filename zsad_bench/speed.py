"""Images per second and memory of the leaderboard's rows.

They differ from run to run and from machine to machine, so they have a file of their own, ``leaderboard_speed.csv``:
everything in ``leaderboard.csv`` is the same bytes for the same configuration and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from zsad_bench.results import CategoryResult, JobInfo
from zsad_bench.runs import Job
from zsad_bench.series import Series

KEYS = ("method", "variant", "dataset", "protocol", "encoder", "batch_size", "config_hash")
"""Columns that say which row of the leaderboard a speed belongs to."""

SPEED = ("images_per_second", "peak_memory_mb")
"""What tables show of it; the file has ``method_images_per_second`` too."""

EncoderTimes = Mapping[tuple[object, ...], float]
"""Seconds per image of the encoder, by what is encoded and where; see :func:`encoder_times`."""


def encoder_times(series: Sequence[Series]) -> EncoderTimes:
    """What the encoder took per image, from the jobs that encoded.

    The jobs of a sweep share stored features: the first one encodes for all, the others read. Without this, the first
    method of a sweep would look slow and the others as if they needed no encoder.
    """
    found: dict[tuple[object, ...], float] = {}
    for job in (job for entry in series for job in entry.jobs):
        for result in job.results.values():
            if _from_store(result) and "seconds_encode" in result.timing and result.n_images:
                key = _place(job.info, result)
                found[key] = max(found.get(key, 0.0), float(result.timing["seconds_encode"]) / result.n_images)
    return found


def _from_store(result: CategoryResult) -> bool:
    """Whether the job read features from a store, which others may have filled."""
    return "seconds_read" in result.timing


def _place(info: JobInfo, result: CategoryResult) -> tuple[object, ...]:
    """Images, encoder, and machine."""
    machine = result.timing.get("device"), result.timing.get("precision")
    return (info.dataset, info.protocol, result.category, info.encoder, info.pretrained, info.image_size, *machine)


def images_per_second(series: Series, times: EncoderTimes) -> float:
    """Images of all finished categories per second of encoder and method; NaN if that was not timed.

    Loading and metrics do not count. A job that read stored features is charged the encoder's seconds of the job that
    encoded them.
    """
    return _rate(series, lambda job, result: _seconds(job, result, times))


def method_images_per_second(series: Series) -> float:
    """Images of all finished categories per second of the method alone, on features that are there."""
    return _rate(series, lambda job, result: float(result.timing.get("seconds_score", math.nan)))


def _rate(series: Series, taken: Callable[[Job, CategoryResult], float]) -> float:
    """Images over seconds of all results that were timed."""
    images = seconds = 0.0
    for job in series.finished or series.jobs:
        for result in job.results.values():
            if not math.isnan(value := taken(job, result)):
                images += result.n_images
                seconds += value
    return images / seconds if seconds > 0 else math.nan


def _seconds(job: Job, result: CategoryResult, times: EncoderTimes) -> float:
    encode = float(result.timing.get("seconds_encode", math.nan))
    if _from_store(result):
        encode = result.n_images * times.get(_place(job.info, result), math.nan)
    return encode + float(result.timing.get("seconds_score", math.nan))


def peak_memory(series: Series) -> float:
    """Largest resident memory in MiB that was seen up to the end of any category; NaN if not recorded."""
    seen = [
        float(result.timing["peak_memory_mb"])
        for job in series.jobs
        for result in job.results.values()
        if "peak_memory_mb" in result.timing
    ]
    return max(seen, default=math.nan)


def build_speed(series: Sequence[Series], board: pd.DataFrame) -> pd.DataFrame:
    """Speed and memory of every row of the leaderboard, in its order.

    Args:
        series: all series, those that the leaderboard leaves out too: one of them may have encoded for the others.
        board: of :func:`zsad_bench.leaderboard.build_board`.
    """
    if board.empty:
        return pd.DataFrame()
    times = encoder_times(series)
    rows = {tuple(str(getattr(entry.info, name)) for name in KEYS): entry for entry in series}
    kept = [rows[tuple(map(str, row))] for row in board[list(KEYS)].itertuples(index=False)]
    numbers = {
        "images_per_second": [images_per_second(entry, times) for entry in kept],
        "method_images_per_second": [method_images_per_second(entry) for entry in kept],
        "peak_memory_mb": [peak_memory(entry) for entry in kept],
    }
    return board[list(KEYS)].assign(**numbers)


def with_speed(board: pd.DataFrame, speed: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard with the columns of :func:`build_speed` beside it, for what people read."""
    return board if board.empty else pd.concat([board, speed[list(SPEED)]], axis=1)

"""Recordings of public reference codes: how the compact set of ``tests/golden`` is unpacked, and how a test meets one.

Unpacked, a set is a folder of ``.npz`` and ``.safetensors`` files with the names, keys and shapes of the full set.
Where the compact set keeps only a part of an array, the rest is NaN, so that a test reads both sets alike.
``tests/golden/README.md`` describes the arrays and the codings; ``tools/compact_golden.py`` writes them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32).reshape(3, 1, 1)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32).reshape(3, 1, 1)
# Set: its folder in the full set.
FULL_SETS = {"clipad_anovl": "a_clipad_anoclip", "winclip_musc_metrics": "b_winclip_musc_metrics"}
COMPACT = Path(__file__).parents[1] / "golden"
SHARED = Path(os.environ.get("ZSAD_SHARED", Path(__file__).resolve().parents[3] / "shared"))
STREAM_LENGTH = 6_000_000  # as far as any recorded draw reaches into the stream of its seed


class Entry(TypedDict, total=False):
    """How one array is stored: a line of ``index.json``."""

    coding: str  # plain, bytes, grid, pixels, uniform or normal
    dtype: str
    shape: list[int]
    every: list[list[int]]  # of each axis the first index that is kept and the step to the next; absent: all
    step: float  # grid: distance of neighbouring values, a power of two
    low: int  # grid: the smallest value, in steps
    seed: int  # uniform, normal: of the Mersenne Twister
    at: list[int]  # uniform, normal: place in its stream where each of the array's equal pieces starts
    factor: list[float]  # uniform, normal: bound or standard deviation of each piece


def unpack(source: Path, target: Path) -> None:
    """Write a compact set as plain files: numbers that are left out are NaN."""
    index: dict[str, dict[str, Entry]] = json.loads((source / "index.json").read_text("utf-8"))
    target.mkdir(parents=True, exist_ok=True)
    for name, entries in index.items():
        with np.load((source / name).with_suffix(".npz")) as stored:
            arrays = {key: decode(entry, stored.get(key)) for key, entry in entries.items()}
        if name.endswith(".safetensors"):
            save_file(arrays, target / name)
        else:
            np.savez(target / name, **arrays)
    for path in source.glob("*.json"):
        if path.name != "index.json":
            shutil.copy(path, target / path.name)
    stream.cache_clear()


def decode(entry: Entry, stored: np.ndarray | None) -> np.ndarray:
    """The array of one entry of the index, in its full shape.

    Args:
        entry: Its line of the index.
        stored: What the archive holds for it; nothing for drawn numbers.
    """
    coding, shape, dtype = entry["coding"], tuple(entry["shape"]), np.dtype(entry["dtype"])
    if coding in DRAWN:
        pieces = zip(entry["at"], entry["factor"], strict=True)
        size = math.prod(shape) // len(entry["at"])
        values = np.concatenate([factor * DRAWN[coding](entry["seed"], at, size) for at, factor in pieces])
        return values.reshape(shape).astype(dtype)
    assert stored is not None, f"the archive lacks an array of coding {coding}"
    if coding == "pixels":
        return pixels(stored)
    if coding == "bytes":
        kept = np.ascontiguousarray(np.moveaxis(stored, 0, -1)).view(dtype)[..., 0]
    elif coding == "grid":
        steps = sum(plane.astype(np.int64) << 8 * position for position, plane in enumerate(stored))
        kept = ((steps + entry["low"]) * entry["step"]).astype(dtype)
    else:
        kept = stored
    if "every" not in entry:
        return kept
    whole = np.full(shape, np.nan, dtype)
    whole[tuple(slice(first, None, step) for first, step in entry["every"])] = kept
    return whole


def pixels(differences: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Normalised images (N, 3, H, W) of 8-bit pixels stored as differences along W, H and channels, modulo 256."""
    levels = differences
    for axis in (1, 2, 3):
        levels = np.cumsum(levels, axis=axis, dtype=np.uint8)
    return (levels.astype(np.float32) / np.float32(255) - CLIP_MEAN) / CLIP_STD


@cache
def stream(seed: int) -> npt.NDArray[np.float32]:
    """Numbers in [0, 1) as PyTorch draws them after ``manual_seed``: 24 of 32 bits of a Mersenne Twister (MT19937).

    NumPy promises that the stream of ``RandomState`` never changes.
    """
    raw = np.random.RandomState(seed).randint(0, 2**32, STREAM_LENGTH, dtype=np.uint32)
    return (raw & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


def uniform(seed: int, at: int, size: int) -> npt.NDArray[np.float64]:
    """Numbers in [-1, 1): PyTorch's ``uniform_``, from which its layers are initialised."""
    return 2 * stream(seed)[at : at + size].astype(np.float64) - 1


def normal(seed: int, at: int, size: int) -> npt.NDArray[np.float64]:
    """Standard normal numbers: PyTorch's ``normal_`` on a CPU (Box and Muller's method, 16 numbers at a time)."""
    radius, angle = np.moveaxis(stream(seed)[at : at + size].reshape(-1, 2, 8), 1, 0)
    radius = np.sqrt(-2 * np.log1p(-radius.astype(np.float64)))
    angle = (angle * np.float32(2 * np.pi)).astype(np.float64)  # PyTorch rounds the angle to float32
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


DRAWN: dict[str, Callable[[int, int, int], npt.NDArray[np.float64]]] = {"uniform": uniform, "normal": normal}


def assert_recorded(actual: npt.ArrayLike, recorded: npt.ArrayLike, atol: float) -> None:
    """Every recorded number is met within ``atol``; NaN stands for a number that the set leaves out."""
    ours, theirs = np.asarray(actual), np.asarray(recorded)
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    kept = ~np.isnan(theirs)
    assert kept.any(), "the set holds no number of this array"
    np.testing.assert_allclose(ours[kept], theirs[kept], atol=atol, rtol=0)


def shared_folder(*parts: str) -> Path:
    """A folder of the reference data beside the project; the test is skipped where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference data absent: {'/'.join(parts)} (set ZSAD_SHARED to the folder that holds it)")
    return path


def recorded_sets(name: str) -> list[Path]:
    """The compact set of recordings, and the full one where it lies beside the project."""
    return [path for path in (COMPACT / name, SHARED / "golden" / FULL_SETS[name]) if path.is_dir()]


def set_name(path: Path) -> str:
    """Which of the two a set is, for the name of a test."""
    return "compact" if path.parent == COMPACT else "full"


def plain_files(recordings: Path, temporary: pytest.TempPathFactory) -> Path:
    """The folder of a set as ``.npz`` and ``.safetensors`` files; the compact one is unpacked."""
    if recordings.parent != COMPACT:
        return recordings
    target = temporary.mktemp(recordings.name)
    unpack(recordings, target)
    return target

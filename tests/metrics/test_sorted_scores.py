"""Scores sorted in parts give the same counts, hence the same metrics to the last bit, as scores sorted at once."""

from __future__ import annotations

import errno
import tempfile
from itertools import pairwise

import numpy as np
import pytest

from zsad_bench.core.errors import UserError
from zsad_bench.metrics import pixel_metrics, ranked, sorted_scores
from zsad_bench.metrics.sorted_scores import Marked, SortedRuns


@pytest.fixture
def tiny(monkeypatch):
    """Runs of a few values, read three values at a time."""
    monkeypatch.setattr(sorted_scores, "CAPACITY", 7 * 8)
    monkeypatch.setattr(sorted_scores, "SMALLEST_READ", 3)


def runs_of(values, parts=5, folder=None):
    runs = SortedRuns(values.dtype, values.size, folder)
    for part in np.array_split(values, parts):
        runs.add(part)
    return runs.seal()


def category(seed, levels, share, dtype=np.float32):
    random = np.random.default_rng(seed)
    masks = random.random((4, 9, 11)) < share
    maps = random.normal(size=masks.shape) + masks
    return masks, (maps if levels is None else np.round(maps * levels)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("levels", [None, 3, 0])
def test_metrics_do_not_depend_on_the_size_of_the_buffer(tiny, monkeypatch, dtype, share, levels):
    for seed in range(3):
        masks, maps = category(seed, levels, share, dtype)
        for block in (1, 6, 1 << 14):
            monkeypatch.setattr(ranked, "_BLOCK", block)
            spilled = pixel_metrics(masks, maps, sweep200=True)
            with monkeypatch.context() as at_once:
                at_once.setattr(sorted_scores, "CAPACITY", 1 << 20)
                np.testing.assert_equal(spilled, pixel_metrics(masks, maps, sweep200=True))


@pytest.mark.parametrize("levels", [None, 2])
def test_counts_are_those_of_all_values(tiny, levels):
    random = np.random.default_rng(0)
    values = random.normal(size=200) if levels is None else random.integers(0, levels, 200).astype(float)
    thresholds = np.unique(np.concatenate([values[::3], random.normal(size=9)]))[::-1]
    marked = Marked(runs_of(values))
    found = [marked.count(part) for part in np.array_split(thresholds, 7)]
    above, reached = (np.concatenate(counts) for counts in zip(*found, strict=True))
    assert above.tolist() == [(values > t).sum() for t in thresholds]
    assert reached.tolist() == [(values >= t).sum() for t in thresholds]


def test_blocks_from_the_top_hold_everything_once_and_never_cut_a_tie(tiny):
    random = np.random.default_rng(1)
    values = (random.integers(0, 12, 150) + 1j * random.integers(0, 4, 150)).astype(np.complex64)
    descent, blocks = runs_of(values).descend(), []
    while (block := descent.take_largest(10)).size:
        blocks.append(block)
    assert np.array_equal(np.concatenate(blocks[::-1]), np.sort(values))
    assert all(low[-1].real < high[0].real for high, low in pairwise(blocks))
    assert all(block.size >= 10 for block in blocks[:-1])


def test_values_that_are_not_finite_are_counted_in_every_run(tiny):
    masks, maps = category(0, None, 0.3)
    maps[0, 0, :3], maps[3, 8, 10] = np.nan, -np.inf
    with pytest.raises(ValueError, match=f"4 of {maps.size} scores"):
        pixel_metrics(masks, maps)


def test_the_file_has_no_name_and_small_categories_have_no_file(tmp_path, tiny):
    spilled = runs_of(np.arange(100.0), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (spilled.lowest, spilled.highest) == (0, 99)
    SortedRuns(np.dtype(np.float32), 4, tmp_path / "missing").add(np.zeros(4, np.float32))


def test_a_full_disk_is_one_line(tmp_path, tiny, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match=f"{tmp_path}: .*No space left on device"):
        runs_of(np.arange(100.0), folder=tmp_path)

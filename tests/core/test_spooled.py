"""Maps on disk are the maps in memory; nothing of them stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from zsad_bench.contract import Sample
from zsad_bench.core import spooled
from zsad_bench.core.npz import save_arrays
from zsad_bench.core.spooled import Masks, Stack
from zsad_bench.engine.measure import evaluate_pixels
from zsad_bench.metrics import pixel_metrics, sorted_scores
from zsad_bench.statistics import bootstrap
from zsad_bench.statistics.bootstrap import pixel_curves, resample_weights
from zsad_bench.statistics.histograms import summarise
from zsad_bench.toolkit.maps import quantiles


@pytest.fixture
def maps():
    random = np.random.default_rng(0)
    return random.normal(size=(9, 12, 10)).astype(np.float32)


@pytest.fixture
def on_disk(monkeypatch):
    """Everything goes to temporary files, a few values at a time."""
    monkeypatch.setattr(spooled, "IN_MEMORY", 1)
    monkeypatch.setattr(sorted_scores, "CAPACITY", 400)
    monkeypatch.setattr(sorted_scores, "SMALLEST_READ", 8)


def truth_of(maps):
    masks = maps > 1.2
    masks[::3] = False
    masks[1, :2, :2] = True
    return masks


@pytest.mark.parametrize("limit", [1, 1 << 20])
def test_arrays_come_back_whatever_lies_on_disk(maps, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(spooled, "IN_MEMORY", limit)
    stack = Stack.of(maps, np.float32, tmp_path)
    assert (len(stack), stack.shape) == (9, maps.shape)
    assert np.array_equal(np.stack(stack[:]), maps)
    assert np.array_equal(stack[-1], maps[-1])
    stack.append(maps[0])  # after reading
    assert np.array_equal(np.stack(list(stack)), [*maps, maps[0]])
    with pytest.raises(IndexError, match="10 arrays"):
        stack[10]
    with pytest.raises(ValueError, match=r"\(12, 10\), got \(3,\)"):
        stack.append(np.zeros(3, np.float32))
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_killed_process_leaves_no_file(tmp_path):
    code = (
        "import sys, time, pathlib, numpy as np\n"
        "from zsad_bench.core import spooled\n"
        "stack = spooled.Stack.of([np.zeros((500, 500), np.float32)] * 12, np.float32, pathlib.Path(sys.argv[1]))\n"
        "print(len(stack), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"12\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_npz_files_are_those_of_numpy(maps, tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        save_arrays(file, {"names": np.array(["a", "b"])}, {"maps": Stack.of(maps, np.float32)})
    with np.load(path) as content:
        assert np.array_equal(content["maps"], maps)
        assert content["names"].tolist() == ["a", "b"]


def test_masks_come_back_with_unknown_and_empty_ones(maps):
    masks, truth = Masks(12), np.zeros((4, 12, 12), bool)
    truth[1, 3:5, 7] = truth[3] = True
    given = [truth[0], truth[1], None, truth[3]]
    for mask in given:
        masks.append(mask)
    assert masks[2] is None
    assert all(np.array_equal(masks[index], given[index]) for index in (0, 1, 3))
    assert all(masks[index].dtype == bool for index in (0, 1, 3))


def test_metrics_and_summaries_are_the_same_from_disk(maps, on_disk, monkeypatch, tmp_path):
    truth = truth_of(maps)
    masks = [None if index == 4 else mask for index, mask in enumerate(truth)]
    samples = [Sample(str(i), tmp_path, "c", int(mask.any()), "x", None) for i, mask in enumerate(truth)]
    stack = Stack.of(maps, np.float32, tmp_path)
    from_disk = evaluate_pixels(samples, masks, stack, True, tmp_path)
    monkeypatch.undo()
    in_memory = evaluate_pixels(samples, masks, maps, True)
    known = [mask for mask in masks if mask is not None]
    assert in_memory.metrics == pixel_metrics(known, np.delete(maps, 4, axis=0), True)
    np.testing.assert_equal((from_disk.metrics, from_disk.notes), (in_memory.metrics, in_memory.notes))
    for one, other in zip(vars(from_disk.summary).values(), vars(in_memory.summary).values(), strict=True):
        assert np.array_equal(one, other)


def test_resampled_counts_do_not_depend_on_how_many_bins_are_widened_at_a_time(maps, monkeypatch):
    summary = summarise([str(index) for index in range(9)], list(truth_of(maps)), maps)
    weights = resample_weights([0, 1, 1] * 3, 0, 150)
    found = []
    for widened in (bootstrap._WIDENED, 1):
        monkeypatch.setattr(bootstrap, "_WIDENED", widened)
        parts = [(curve.true, curve.false, clump, curve.overlap) for curve, clump in pixel_curves(summary, weights)]
        found.append([np.concatenate(kind) for kind in zip(*parts, strict=True)])
    for one, other in zip(found[0][:3], found[1][:3], strict=True):
        assert np.array_equal(one, other)
    np.testing.assert_allclose(found[0][3], found[1][3], rtol=1e-6)


def test_quantiles_are_exact(maps):
    values = np.concatenate([maps, np.zeros((1, 12, 10), np.float32), -np.zeros((1, 12, 10), np.float32)])
    for shares in [(0.01, 0.999), (0.0, 1.0), (0.5, 0.25)]:
        expected = np.quantile(values.astype(np.float64), shares)
        assert quantiles(values, shares) == pytest.approx(expected, abs=1e-12)
    assert quantiles(np.full((1, 2, 2), -3, np.float32), (0.3,)) == (-3.0,)

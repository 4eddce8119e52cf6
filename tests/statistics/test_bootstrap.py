"""Pixel histograms and the bootstrap: how close to the exact metrics, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.drawn_maps import SHAPES, TOLERANCE, drawn_category
from zsad_bench.metrics import image_metrics, pixel_metrics
from zsad_bench.metrics.units import units_of
from zsad_bench.results.rows import ImageResult
from zsad_bench.statistics import binned
from zsad_bench.statistics.bootstrap import (
    BOOTSTRAPPED,
    RESAMPLES,
    Replicates,
    bootstrap,
    image_replicates,
    pixel_replicates,
    resample_weights,
)
from zsad_bench.statistics.histograms import PixelSummary, summarise


@pytest.mark.parametrize("shape", SHAPES)
def test_resampled_pixel_metrics_are_close_to_exact_ones(shape: str) -> None:
    masks, maps = drawn_category()
    maps = SHAPES[shape](maps).astype(np.float32)
    summary = summarise([str(index) for index in range(len(maps))], list(masks), maps)
    assert summary is not None
    weights = np.concatenate([np.ones((1, len(maps))), resample_weights(masks.any(axis=(1, 2)).tolist(), 1, 3)])
    for row, got in zip(weights, pixel_replicates(summary, weights), strict=True):
        drawn = np.repeat(np.arange(len(maps)), row.astype(int))
        exact = list(pixel_metrics(masks[drawn], maps[drawn]).values())
        assert got == pytest.approx(exact, abs=TOLERANCE)


def test_few_different_scores_are_exact() -> None:
    random = np.random.default_rng(0)
    masks = random.random((6, 9, 9)) < 0.2
    maps = random.integers(0, 40, (6, 9, 9)).astype(np.float32)
    summary = summarise(list("abcdef"), list(masks), maps)
    assert summary is not None
    (got,) = pixel_replicates(summary, np.ones((1, 6)))
    assert got == pytest.approx(list(pixel_metrics(masks, maps).values()), abs=1e-6)


def test_image_replicates_are_exact_with_ties() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 30).tolist()
    scores = random.integers(0, 8, 30).astype(float)
    weights = resample_weights(labels, 3, 5)
    for row, got in zip(weights, image_replicates(scores, labels, weights), strict=True):
        drawn = np.repeat(np.arange(30), row.astype(int))
        exact = image_metrics(np.array(labels)[drawn], scores[drawn])
        assert got == pytest.approx(list(exact.values()), abs=1e-12)


def test_resamples_keep_the_number_of_each_label_and_the_seed() -> None:
    labels = [0, 1, None, 1, 0, 1, None]
    weights = resample_weights(labels, 5, 200)
    for label, count in ((0, 2), (1, 3), (None, 2)):
        members = [index for index, other in enumerate(labels) if other == label]
        assert (weights[:, members].sum(axis=1) == count).all()
    assert (weights == resample_weights(labels, 5, 200)).all()
    assert (weights != resample_weights(labels, 6, 200)).any()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.25)


def test_two_methods_see_the_same_resamples_in_any_order_of_images() -> None:
    ids, labels = [f"{index:02}" for index in range(20)], [index % 2 for index in range(20)]
    scores = np.random.default_rng(0).random(20)
    images = [ImageResult(*row) for row in zip(ids, labels, [""] * 20, scores, strict=True)]
    first = bootstrap("bolt", units_of(images, scores), None)
    back = bootstrap("bolt", units_of(images[::-1], scores[::-1]), None)
    other = bootstrap("nut", units_of(images, scores), None)
    assert first.images == back.images
    np.testing.assert_array_equal(first.values[:, :3], back.values[:, :3])
    assert (first.values[:, :3] != other.values[:, :3]).any()
    assert first.values.shape == (RESAMPLES, len(BOOTSTRAPPED))
    assert np.isnan(first.values[:, 3:]).all()


def test_no_anomalous_pixel_and_unknown_masks() -> None:
    maps = np.zeros((3, 4, 4), np.float32)
    assert summarise(["a", "b", "c"], [np.zeros((4, 4), bool), None, None], maps) is None
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    summary = summarise(["a", "b", "c"], [None, mask, np.zeros((4, 4), bool)], maps)
    assert summary is not None
    assert summary.image_ids == ("b", "c")
    assert summary.areas.tolist() == [1]


def test_what_is_kept_comes_back() -> None:
    masks, maps = drawn_category(5, 24)
    summary = summarise(list("abcde"), list(masks), maps.astype(np.float32))
    assert summary is not None
    loaded = PixelSummary.from_arrays(summary.to_arrays())
    assert loaded is not None
    assert loaded.image_ids == summary.image_ids
    np.testing.assert_array_equal(loaded.negatives, summary.negatives)
    np.testing.assert_array_equal(loaded.edges, summary.edges)
    values = Replicates("hash", np.random.default_rng(0).random((RESAMPLES, len(BOOTSTRAPPED))))
    back = Replicates.from_arrays(values.to_arrays())
    assert back is not None
    assert back.images == "hash"
    np.testing.assert_allclose(back.values, values.values, atol=1e-7)


def test_what_is_incomplete_is_none() -> None:
    values = Replicates("hash", np.zeros((RESAMPLES, len(BOOTSTRAPPED)))).to_arrays()
    assert Replicates.from_arrays({}) is None
    assert Replicates.from_arrays({**values, "values": values["values"][:-1]}) is None
    assert PixelSummary.from_arrays({"edges": np.zeros(3)}) is None


def test_undefined_resamples_are_nan() -> None:
    none = np.zeros((1, 3))
    some = np.array([[1.0, 2.0, 0.0]])
    for positive, negative in ((none, some), (some, none)):
        curve = binned.curves(binned.Counts(positive, negative, np.ones(3, bool), positive))
        assert np.isnan(binned.auroc(curve)).all()
        assert np.isnan(binned.aupro(curve)).all()
    empty = binned.curves(binned.Counts(none, some, np.ones(3, bool)))
    assert np.isnan(binned.average_precision(empty, np.ones(3, bool))).all()
    assert np.isnan(binned.f1max(empty)).all()

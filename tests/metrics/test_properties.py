"""Properties that every correct implementation of the metrics has, on generated categories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zsad_bench.metrics import image_metrics, pixel_metrics, undefined_reasons

ALMOST = 1e-12
fast = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def categories(draw, both=True):
    """(masks, maps) of a few small images; scores are whole numbers, so that ties and clean transforms exist."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    masks = draw(hnp.arrays(bool, shape))
    if both:  # at least one pixel of either kind
        masks[0, 0, 0], masks[-1, -1, -1] = True, False
    top = draw(st.sampled_from([1, 5, 1000]))
    maps = draw(hnp.arrays(np.int64, shape, elements=st.integers(-top, top)))
    return masks, maps.astype(np.float64)


@st.composite
def image_scores(draw):
    n = draw(st.integers(2, 30))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    labels[0], labels[1] = 0, 1
    scores = draw(hnp.arrays(np.int64, n, elements=st.integers(-20, 20)))
    return labels, scores.astype(np.float64)


def same(got, expected):
    assert got == pytest.approx(expected, abs=ALMOST, nan_ok=True)


@fast
@given(categories(both=False))
def test_every_value_is_a_fraction_or_nan_with_a_reason(category):
    masks, maps = category
    got = pixel_metrics(masks, maps, sweep200=True)
    got |= image_metrics(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)))
    pixel = {name: value for name, value in got.items() if name.startswith("pixel_")}
    assert all(np.isnan(value) or 0 <= value <= 1 for value in got.values())
    assert set(undefined_reasons(pixel, masks)) == {name for name, value in pixel.items() if np.isnan(value)}
    if masks.any() and not masks.all():
        assert not any(np.isnan(pixel[name]) for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"))


# Strictly increasing on the whole numbers from -1000 to 1000, without rounding two of them to one float64.
MONOTONE = {
    "affine": lambda x: 3 * x - 7,
    "cube": lambda x: x**3,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x / 100)),
    "exponential": lambda x: np.exp(x / 10),
    "float32": lambda x: x.astype(np.float32),
}


@pytest.mark.parametrize("name", MONOTONE)
@fast
@given(category=categories())
def test_strictly_increasing_transforms_change_nothing(name, category):
    masks, maps = category
    same(pixel_metrics(masks, MONOTONE[name](maps)), pixel_metrics(masks, maps))
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    same(image_metrics(labels, MONOTONE[name](scores)), image_metrics(labels, scores))


@fast
@given(categories(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_sweep_is_unchanged_by_powers_of_two_only(category, scale):
    masks, maps = category
    same(pixel_metrics(masks, maps * scale, sweep200=True), pixel_metrics(masks, maps, sweep200=True))


@fast
@given(categories(), st.randoms(use_true_random=False))
def test_order_of_images_flips_and_turns_change_nothing(category, random):
    masks, maps = category
    expected = pixel_metrics(masks, maps, sweep200=True)
    order = list(range(len(masks)))
    random.shuffle(order)
    same(pixel_metrics(masks[order], maps[order], sweep200=True), expected)
    for move in (lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: x.transpose(0, 2, 1)):
        same(pixel_metrics(move(masks), move(maps), sweep200=True), expected)


@fast
@given(categories(), st.randoms(use_true_random=False))
def test_pooling_ignores_where_a_normal_image_keeps_its_scores(category, random):
    masks, maps = category
    normal = np.array(maps[0]).ravel()
    shuffled = normal.copy()
    random.shuffle(shuffled)
    blank = np.zeros_like(masks[:1])
    first = pixel_metrics(np.concatenate([masks, blank]), np.concatenate([maps, normal.reshape(maps[:1].shape)]))
    second = pixel_metrics(np.concatenate([masks, blank]), np.concatenate([maps, shuffled.reshape(maps[:1].shape)]))
    same(second, first)


@fast
@given(categories())
def test_the_same_category_twice_has_the_same_values(category):
    masks, maps = category
    twice = pixel_metrics(np.concatenate([masks, masks]), np.concatenate([maps, maps]), sweep200=True)
    same(twice, pixel_metrics(masks, maps, sweep200=True))


@fast
@given(categories())
def test_perfect_ranking_is_one_and_constant_scores_are_chance(category):
    masks, maps = category
    perfect = pixel_metrics(masks, maps + 5000.0 * masks)
    assert perfect == dict.fromkeys(perfect, 1.0)
    chance = pixel_metrics(masks, np.zeros_like(maps))
    prevalence = masks.mean()
    expected = {"pixel_auroc": 0.5, "pixel_ap": prevalence, "pixel_f1max": 2 * prevalence / (1 + prevalence)}
    same(chance, expected | {"pixel_aupro": 0.15})


@fast
@given(categories())
def test_worst_ranking(category):
    masks, maps = category
    worst = pixel_metrics(masks, maps - 5000.0 * masks)
    assert worst["pixel_auroc"] == 0.0
    assert worst["pixel_aupro"] == 0.0
    assert worst["pixel_f1max"] == pytest.approx(2 * masks.mean() / (1 + masks.mean()), abs=ALMOST)


@fast
@given(image_scores())
def test_reversed_scores_and_swapped_labels(case):
    labels, scores = case
    auroc = image_metrics(labels, scores)["image_auroc"]
    assert image_metrics(labels, -scores)["image_auroc"] == pytest.approx(1 - auroc, abs=ALMOST)
    assert image_metrics(1 - labels, -scores)["image_auroc"] == pytest.approx(auroc, abs=ALMOST)


@fast
@given(image_scores(), st.randoms(use_true_random=False))
def test_order_of_image_scores_changes_nothing(case, random):
    labels, scores = case
    order = list(range(len(labels)))
    random.shuffle(order)
    same(image_metrics(labels[order], scores[order]), image_metrics(labels, scores))


@fast
@given(categories())
def test_image_scores_are_the_pixels_of_one_row(category):
    """Both functions share one definition: pixels given as images have the same AUROC, AP and F1-max."""
    masks, maps = category
    pixel, image = pixel_metrics(masks, maps), image_metrics(masks.ravel(), maps.ravel())
    for name in ("auroc", "ap", "f1max"):
        assert pixel[f"pixel_{name}"] == image[f"image_{name}"]


@fast
@given(categories())
def test_raising_the_score_of_an_anomalous_pixel_never_hurts_the_curves(category):
    masks, maps = category
    raised = maps.copy()
    raised[0, 0, 0] += 3000.0  # above all others; this pixel is anomalous
    before, after = pixel_metrics(masks, maps), pixel_metrics(masks, raised)
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"):
        assert after[name] >= before[name] - ALMOST

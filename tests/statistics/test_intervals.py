"""Intervals and tests against closed forms, simulation, and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from zsad_bench.leaderboard.comparisons import Comparison, verdict
from zsad_bench.metrics import image_metrics
from zsad_bench.statistics.bootstrap import image_replicates, resample_weights
from zsad_bench.statistics.intervals import critical_difference, holm, interval, paired, rank_test

NAMES = ("image_auroc", "image_ap", "image_f1max")


def truth(n_normal: int, n_anomalous: int, shift: float) -> list[float]:
    """Metrics of so large a sample that it stands for the population of the same composition."""
    random = np.random.default_rng(99)
    scale = 2000
    labels = np.repeat([0, 1], [scale * n_normal, scale * n_anomalous])
    return list(image_metrics(labels, random.normal(shift * labels)).values())


def test_intervals_cover_the_truth_in_95_of_100_cases() -> None:
    """AUROC has the closed form Phi(shift / sqrt 2); all three metrics are held to 93 to 97 %."""
    n_normal, n_anomalous, shift = 50, 70, 1.0
    expected = truth(n_normal, n_anomalous, shift)
    assert expected[0] == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=2e-3)
    labels = np.repeat([0, 1], [n_normal, n_anomalous])
    trials, hits = 500, np.zeros(3)
    for trial in range(trials):
        scores = np.random.default_rng(trial).normal(shift * labels)
        estimate = list(image_metrics(labels, scores).values())
        replicates = image_replicates(scores, labels.tolist(), resample_weights(labels.tolist(), trial, 400))
        for position in range(3):
            low, high = interval(estimate[position], replicates[:, position], len(labels))
            assert low <= estimate[position] <= high
            hits[position] += low <= expected[position] <= high
    for name, share in zip(NAMES, hits / trials, strict=True):
        assert 0.93 <= share <= 0.97, f"{name}: {share:.3f}"


def test_the_paired_test_rejects_at_its_nominal_rate_under_the_null() -> None:
    labels = np.repeat([0, 1], [60, 60])
    rejected, trials = 0, 400
    for trial in range(trials):
        random = np.random.default_rng(trial)
        common = random.normal(labels)
        scores = [common + random.normal(size=len(labels)) for _ in range(2)]
        weights = resample_weights(labels.tolist(), trial, 400)
        values = [image_metrics(labels, score)["image_auroc"] for score in scores]
        replicates = [image_replicates(score, labels.tolist(), weights)[:, 0] for score in scores]
        rejected += paired(values[0] - values[1], replicates[0] - replicates[1])[2] < 0.05
    assert 0.03 <= rejected / trials <= 0.08


def test_a_real_difference_is_found_and_its_interval_holds_it() -> None:
    replicates = np.random.default_rng(0).normal(0.1, 0.02, 1000)
    low, high, p = paired(0.1, replicates)
    assert p == pytest.approx(2 / 1001, abs=2e-3)
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.02, 0.1 + 1.96 * 0.02), abs=0.006)
    assert paired(-0.1, -replicates)[:2] == pytest.approx((-high, -low))


def test_equal_methods_are_equal() -> None:
    assert paired(0.0, np.zeros(1000)) == (0.0, 0.0, 1.0)
    assert paired(1e-8, np.random.default_rng(0).normal(0, 1e-8, 1000))[2] == 1.0


def test_intervals_at_the_ends_and_without_values() -> None:
    assert interval(1.0, np.ones(1000), 50) == (1.0, 1.0)
    low, high = interval(0.99, np.clip(np.random.default_rng(0).normal(0.99, 0.01, 1000), 0, 1), 50)
    assert 0.9 < low < 0.99 < high <= 1
    assert all(math.isnan(end) for end in interval(math.nan, np.ones(10), 5))
    assert all(math.isnan(end) for end in interval(0.5, np.full(10, math.nan), 5))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, math.nan, 0.9])[0] == 1.0
    assert math.isnan(holm([0.5, math.nan])[1])
    assert holm([]) == []


def test_ranks_by_hand_and_friedman_by_scipy() -> None:
    values = {
        "a": {"x": 0.9, "y": 0.8, "z": 0.7, "only": 1.0},
        "b": {"x": 0.8, "y": 0.7, "z": 0.6},
        "c": {"x": 0.1, "y": 0.7, "z": 0.5, "only": math.nan},
    }
    test = rank_test(values)
    assert test.n_blocks == 3
    assert test.ranks == pytest.approx({"a": 1.0, "b": (2 + 2.5 + 2) / 3, "c": (3 + 2.5 + 3) / 3})
    table = [[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.1, 0.7, 0.5]]
    assert test.p == pytest.approx(stats.friedmanchisquare(*table).pvalue)


def test_critical_difference_is_that_of_the_published_example() -> None:
    """Demsar 2006, section 3.2.4: four classifiers on 14 data sets, q = 2.569, CD = 1.25."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "one method"),
        ({"a": {"x": 0.5}}, "one method"),
        ({"a": {"x": 0.5}, "b": {"y": 0.5}}, "no category"),
        ({"a": {"x": 0.5}, "b": {"x": 0.6}}, "three methods"),
        ({name: {"x": 0.5} for name in "abc"}, "two categories"),
        ({name: {"x": 0.5, "y": 0.4} for name in "abc"}, "equal"),
    ],
)
def test_no_test_says_why(values: dict[str, dict[str, float]], reason: str) -> None:
    test = rank_test(values)
    assert reason in test.reason
    assert math.isnan(test.critical_difference)


def test_the_verdict_is_a_plain_sentence() -> None:
    apart = Comparison("b", "a", -0.1, -0.14, -0.06, 0.002, 0.004)
    alike = Comparison("b", "c", 0.01, -0.03, 0.05, 0.4, 0.4)
    text = verdict([apart, alike], "image_auroc")
    assert "1 of 2 pairs" in text
    assert "a above b by 10.0 points (6.0 to 14.0)" in text
    assert "Not distinguishable on these images: b and c." in text
    assert "cannot be compared" in verdict([], "image_auroc")

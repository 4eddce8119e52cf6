"""Thresholds: chosen on one half, judged on the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zsad_bench.leaderboard.series import group_series
from zsad_bench.leaderboard.thresholds import RULES, choose_threshold, operating_point, operating_points
from zsad_bench.results.runs import read_runs


def test_thresholds_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.25, 0.5, 0.7, 0.8])
    assert choose_threshold(labels, scores, None) == 0.25  # F1 8/10; 0.5 gives 6/8, 0.7 gives 4/6
    assert choose_threshold(labels, scores, 0.05) == np.nextafter(0.6, 1)  # 5 % of four images: none may pass
    assert choose_threshold(labels, scores, 0.25) == np.nextafter(0.3, 1)
    assert choose_threshold(labels, scores, 1.0) == 0.1


@pytest.mark.parametrize("rule", [rule for rule, fpr in RULES.items() if fpr is not None])
def test_the_false_positive_rate_holds_on_images_that_were_not_seen(rule: str) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [8000, 2000])
    point = operating_point(labels.tolist(), random.normal(2.0 * labels), rule, seed=0)
    assert point is not None
    assert point.fpr == pytest.approx(RULES[rule], abs=0.008)
    assert (point.n_estimate, point.n_test, point.normal_estimate) == (5000, 5000, 4000)
    assert 0.3 < point.recall < 0.8


def test_the_other_half_decides() -> None:
    """Scores that say nothing: the threshold fits its own half, the other half shows it."""
    labels = [0, 1] * 200
    scores = np.random.default_rng(0).random(400)
    point = operating_point(labels, scores, "fpr05", seed=1)
    assert point is not None
    assert point.recall == pytest.approx(point.fpr, abs=0.1)
    assert point == operating_point(labels, scores, "fpr05", seed=1)


def test_a_half_without_a_class_has_no_threshold() -> None:
    assert operating_point([0, 0, 0, 1], np.arange(4.0), "f1max", seed=0) is None
    assert operating_point([0, 0], np.arange(2.0), "f1max", seed=0) is None


def test_a_table_of_all_methods(example_run: Path) -> None:
    table = operating_points(group_series(read_runs([example_run]).jobs))
    assert set(table["rule"]) == set(RULES)
    assert set(table["category"]) == {"bolt", "plate", "mean"}
    means = table[table["category"] == "mean"].set_index(["method", "batch_size", "rule"])["recall"]
    rows = table[table["category"] != "mean"].groupby(["method", "batch_size", "rule"])["recall"].mean()
    assert means.sort_index().tolist() == pytest.approx(rows.sort_index().tolist())

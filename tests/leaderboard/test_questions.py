"""The tables behind the plots, against sums done by hand and against the exact metrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_curve

from tests.helpers.result_files import category, info, saved
from zsad_bench.leaderboard import defects, placements, questions
from zsad_bench.leaderboard.series import Series, group_series, largest_batches
from zsad_bench.metrics import image_metrics
from zsad_bench.results.rows import CategoryResult, ImageResult
from zsad_bench.results.runs import read_runs


@pytest.fixture(scope="module")
def series(example_run: Path) -> list[Series]:
    return group_series(read_runs([example_run]).jobs)


def test_the_pareto_front_by_hand() -> None:
    speed = np.array([1.0, 2.0, 3.0, 3.0, math.nan, 2.0])
    value = np.array([0.9, 0.8, 0.5, 0.5, 0.99, 0.7])
    assert questions.pareto_front(speed, value).tolist() == [True, True, True, True, False, False]


def test_placements_average_to_auroc(series: list[Series]) -> None:
    result = series[0].jobs[0].results["bolt"]
    placed = placements.placements(result.units)
    exact = image_metrics([image.label for image in result.images], [image.score for image in result.images])
    for label in (0, 1):
        values = [value for number, value in placed.items() if result.units.labels[number] == label]
        assert np.mean(values) == pytest.approx(exact["image_auroc"])


def test_shares_of_batches_by_hand(tmp_path: Path) -> None:
    rows = [("a", 0, 0.1, 0), ("b", 1, 0.9, 0), ("c", 1, 0.05, 1), ("d", 1, 0.5, 1), ("e", 0, 0.2, 2), ("f", 0, 0.3, 2)]
    images = tuple(ImageResult(name, label, "", score, batch) for name, label, score, batch in rows)
    result = CategoryResult("bottle", 6, 3, 0, {"image_auroc": 0.5}, "", "", images)
    saved(tmp_path, info(setting="batch"), result)
    table = questions.by_share(group_series(read_runs([tmp_path]).jobs)).set_index("share_to")
    # one half: a beats b and d, not c: 2/3; b beats all: 1. All anomalous: c beats none, d all. None: e and f 2/3 each
    assert table["value"].to_dict() == pytest.approx({0.5: (2 / 3 + 1) / 2, 1.0: 0.5, 0.25: 2 / 3})
    assert table["n_images"].to_dict() == {0.5: 2, 1.0: 2, 0.25: 2}


def test_images_that_fill_the_last_batch_count_in_its_share(tmp_path: Path) -> None:
    """e is judged together with b, which is anomalous and was scored in the first batch."""
    rows = [("a", 0, 0.1, 0), ("b", 1, 0.9, 0), ("e", 0, 0.2, 1)]
    images = tuple(ImageResult(name, label, "", score, batch) for name, label, score, batch in rows)
    result = CategoryResult("bottle", 3, 1, 0, {"image_auroc": 0.5}, "", "", images, filled_with=("b",))
    saved(tmp_path, info(setting="batch"), result)
    table = questions.by_share(group_series(read_runs([tmp_path]).jobs)).set_index("share_to")
    assert table["n_images"].to_dict() == {0.5: 3}


def test_region_values_average_to_aupro(series: list[Series]) -> None:
    entry = largest_batches(series)[0]
    job = entry.finished[0]
    for name in entry.categories:
        values = [value for _, value, _ in defects._region_aupro(job, name)]
        assert np.mean(values) == pytest.approx(job.results[name].metrics["pixel_aupro"], abs=3e-4)


def test_larger_defects_of_the_drawing_are_found_more_often(series: list[Series]) -> None:
    table = defects.by_defect_size(largest_batches(series))
    one = table[table["method"] == "clip_ad"]
    assert one["value"].iloc[-1] > one["value"].iloc[0]
    assert one["n_regions"].sum() == 24


def test_defect_types_against_a_direct_auroc(series: list[Series]) -> None:
    entry = series[0]
    table = defects.by_defect_type([entry]).set_index(["category", "defect_type"])
    images = entry.finished[0].results["plate"].images
    chosen = [image for image in images if image.defect_type in ("good", "spot")]
    exact = image_metrics([image.label for image in chosen], [image.score for image in chosen])["image_auroc"]
    assert table.loc[("plate", "spot"), "image_auroc"] == pytest.approx(exact)


def test_agreement_is_spearmans_of_scipy(series: list[Series]) -> None:
    entries = largest_batches(series)[:2]
    table = questions.agreement(entries)
    values = []
    for name in entries[0].categories:
        first, second = (
            {image.image_id: image.score for image in entry.finished[0].results[name].images} for entry in entries
        )
        values.append(stats.spearmanr([first[key] for key in first], [second[key] for key in first]).statistic)
    assert table.iloc[0, 1] == pytest.approx(np.mean(values))
    assert np.diag(table).tolist() == pytest.approx([1.0, 1.0])


def test_curves_of_one_category_against_scikit_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    scores = random.normal(labels)
    images = tuple(
        ImageResult(f"{i:02}", int(label), "", float(s))
        for i, (label, s) in enumerate(zip(labels, scores, strict=True))
    )
    saved(tmp_path, info(), CategoryResult("bottle", 60, int(labels.sum()), 0, {"image_auroc": 0.5}, "", "", images))
    (entry,) = group_series(read_runs([tmp_path]).jobs)
    table = questions.curves(entry)
    roc = table[table["curve"] == "image_roc"]
    fpr, recall, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert roc["y"].to_numpy() == pytest.approx(np.interp(roc["x"], fpr, recall))
    assert set(table["curve"]) == {"image_roc", "image_pr"}  # no histograms, no pixel curves
    precision = table[table["curve"] == "image_pr"]
    assert precision["y"].iloc[-1] == pytest.approx(
        labels.sum() / (labels.sum() + (scores[labels == 0] >= scores[labels == 1].min()).sum())
    )


def test_worst_images_are_the_highest_normal_and_lowest_anomalous(series: list[Series]) -> None:
    entry = series[0]
    table = questions.worst_images([entry], count=2)
    images = entry.finished[0].results["bolt"].images
    part = table[table["category"] == "bolt"]
    alarms = part.loc[part["kind"] == "false alarm", "score"].tolist()
    misses = part.loc[part["kind"] == "miss", "score"].tolist()
    assert alarms == sorted((image.score for image in images if image.label == 0), reverse=True)[:2]
    assert misses == sorted(image.score for image in images if image.label == 1)[:2]


def test_missing_values_do_not_stop_any_table(tmp_path: Path) -> None:
    saved(tmp_path, info("whole"), category("bottle", 0.5, math.nan), category("cable", math.nan))
    saved(tmp_path, info("part", digest="b" * 12), category("bottle", 0.9))
    saved(tmp_path, info("none", digest="c" * 12))
    entries = group_series(read_runs([tmp_path]).jobs)
    for build in (
        questions.by_batch_size,
        questions.by_category,
        questions.by_share,
        defects.by_defect_type,
        defects.by_defect_size,
        questions.worst_images,
        lambda found: questions.speed(found, "image_auroc"),
        questions.agreement,
    ):
        assert isinstance(build(entries), pd.DataFrame)
    assert questions.by_category(entries)["value"].notna().any()


def test_one_seed_says_nothing_of_spread(example_run: Path) -> None:
    series = group_series(read_runs([example_run]).jobs)
    assert set(questions.by_seed(series)["method"]) == {"musc", "fiseclip (reconstruction)"}  # clip_ad was run once

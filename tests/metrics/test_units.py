"""Units of image metrics: what an object is, and that metric, resamples and interval are of the same units."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tests.helpers.drawn_maps import SHAPES, TOLERANCE, drawn_category
from tests.helpers.layouts import real_iad
from tests.helpers.result_files import info, saved
from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main
from zsad_bench.contract import Sample
from zsad_bench.core.seeds import named_seed
from zsad_bench.engine.measure import evaluate_images
from zsad_bench.leaderboard import defects, placements, questions
from zsad_bench.leaderboard.board import BoardOptions
from zsad_bench.leaderboard.comparisons import category_intervals, not_compared, same_units
from zsad_bench.leaderboard.series import Series, group_series
from zsad_bench.leaderboard.tables import write_tables
from zsad_bench.leaderboard.thresholds import operating_points
from zsad_bench.metrics import image_metrics, pixel_metrics
from zsad_bench.metrics.units import Units, units_of
from zsad_bench.report.content import build_content
from zsad_bench.results.rows import CategoryResult, ImageResult
from zsad_bench.results.runs import read_runs
from zsad_bench.statistics.bootstrap import (
    BOOTSTRAPPED,
    Replicates,
    bootstrap,
    image_replicates,
    pixel_replicates,
    resample_weights,
)
from zsad_bench.statistics.histograms import summarise
from zsad_bench.statistics.intervals import interval
from zsad_bench.statistics.kept import REPLICATES

NAMES = BOOTSTRAPPED[:3]


def photo(
    name: str, label: int | None, score: float, group: str = "", kind: str = "", batch: int | None = None
) -> ImageResult:
    return ImageResult(name, label, kind, score, batch, group)


def units(images: list[ImageResult]) -> Units:
    return units_of(images, [image.score for image in images])


def samples(images: list[ImageResult]) -> list[Sample]:
    return [Sample(i.image_id, Path(i.image_id), "c", i.label, i.defect_type, None, i.group) for i in images]


def measured(images: list[ImageResult], name: str = "bottle") -> CategoryResult:
    """The result that the engine would write."""
    values, notes = evaluate_images(samples(images), np.array([image.score for image in images], np.float32))
    anomalous = sum(image.label == 1 for image in images)
    return CategoryResult(name, len(images), anomalous, 0, values, "; ".join(notes), "", tuple(images))


def series_of(folder: Path, *results: CategoryResult, **columns: object) -> Series:
    job = info(**columns)  # type: ignore[arg-type]
    saved(folder, job, *results)
    found = group_series(read_runs([folder]).jobs)
    return next(entry for entry in found if entry.info.config_hash == job.config_hash)


def by_hand(images: list[ImageResult]) -> tuple[list[int], list[float]]:
    """Labels and scores of the objects with a known label, written as plainly as can be."""
    objects: dict[object, list[ImageResult]] = {}
    for image in images:
        objects.setdefault(("object", image.group) if image.group else ("photo", image.image_id), []).append(image)
    labels, scores = [], []
    for members in objects.values():
        found = [member.label for member in members]
        if 1 in found or None not in found:
            labels.append(int(1 in found))
            scores.append(max(member.score for member in members))
    return labels, scores


@st.composite
def categories(draw: st.DrawFn) -> list[ImageResult]:
    """A category of any size: objects of one or many photos, photos that stand alone, unlabelled ones, many ties."""
    count = draw(st.integers(1, 14))
    groups = draw(st.lists(st.sampled_from(["", "", "a", "b", "0", "d", "e"]), min_size=count, max_size=count))
    labels = draw(st.lists(st.sampled_from([0, 0, 1, 1, None]), min_size=count, max_size=count))
    scores = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    rows = zip(groups, labels, scores, strict=True)
    return [photo(str(number), label, score / 4, group) for number, (group, label, score) in enumerate(rows)]


@settings(max_examples=150, deadline=None)
@given(categories(), st.randoms(use_true_random=False))
def test_metric_replicates_and_interval_are_of_the_same_units(images: list[ImageResult], shuffle: object) -> None:
    result = measured(images)
    labels, scores = by_hand(images)
    known = result.units
    assert sorted(zip(known.truth, known.scores[known.labelled], strict=True)) == sorted(
        zip(labels, scores, strict=True)
    )
    if len(set(labels)) < 2:
        assert all(math.isnan(value) for value in result.metrics.values())
        return
    assert list(result.metrics.values()) == pytest.approx(list(image_metrics(labels, scores).values()), abs=1e-12)
    once = image_replicates(known.scores, known.labels, np.ones((1, len(known))))
    assert once[0] == pytest.approx([result.metrics[name] for name in NAMES], abs=1e-12)
    drawn = bootstrap("c", known, None)
    assert result.n_units == len(known)
    for position, name in enumerate(NAMES):
        low, high = interval(result.metrics[name], drawn.values[:, position], result.n_units)
        assert 0 <= low <= result.metrics[name] <= high <= 1
    mixed = list(images)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    again = bootstrap("c", units(mixed), None)
    assert again.images == drawn.images
    np.testing.assert_array_equal(again.values, drawn.values)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [((0, 0), 0), ((0, 1), 1), ((1, None), 1), ((0, None), None), ((None, None), None), ((0, 1, None), 1)],
)
def test_anomalous_beats_unknown_beats_normal(labels: tuple[int | None, ...], expected: int | None) -> None:
    images = [photo(str(number), label, number / 10, "o") for number, label in enumerate(labels)]
    (found,) = units(images).labels
    assert found == expected
    assert units(images).scores.tolist() == [(len(labels) - 1) / 10]  # photos without a label count for the score


def test_objects_without_a_known_label_are_left_out_and_counted() -> None:
    images = [photo("a", 0, 0.1, "x"), photo("b", None, 0.9, "x"), photo("c", 1, 0.5), photo("d", 0, 0.2)]
    result = measured(images)
    assert result.metrics["image_auroc"] == 1.0
    assert "1 objects without a label left out" in result.notes
    assert "over 2 objects" in result.notes


def test_an_object_of_one_photo_is_that_photo() -> None:
    alone = [photo("b", 0, 0.1), photo("a", 1, 0.2), photo("c", 0, 0.3), photo("d", 1, 0.4)]
    one_each = [photo(i.image_id, i.label, i.score, f"z{3 - n}") for n, i in enumerate(alone)]
    assert units(alone).names == units(one_each).names == ("a", "b", "c", "d")
    assert units(alone).key == units(one_each).key
    assert not units(one_each).form_objects
    first, second = (bootstrap("c", units(images), None) for images in (alone, one_each))
    np.testing.assert_array_equal(first.values, second.values)


def test_an_object_may_be_called_like_another_photo() -> None:
    images = [photo("a", 0, 0.5), photo("b", 1, 0.2, "a"), photo("c", 1, 0.7, "a")]
    assert units(images).labels == (0, 1)
    assert measured(images).metrics["image_auroc"] == 1.0


def test_the_key_tells_photos_labels_and_objects_apart() -> None:
    base = [photo("a", 0, 0.5), photo("b", 1, 0.2), photo("c", 1, 0.7)]
    others = [
        [*base[:2], photo("c", 0, 0.7)],
        base[:2],
        [base[0], photo("b", 1, 0.2, "o"), photo("c", 1, 0.7, "o")],
        [base[0], photo("b", 1, 0.2, "p"), photo("c", 1, 0.7, "p")],
        [photo("a", 0, 0.5, "o"), photo("b", 1, 0.2, "o"), base[2]],
    ]
    assert len({units(images).key for images in (base, *others)}) == 6
    rescored = [photo(i.image_id, i.label, 1 - i.score) for i in reversed(base)]
    assert units(rescored).key == units(base).key


def test_the_type_of_an_object_is_that_of_its_anomalous_photos() -> None:
    images = [
        *(photo("1", 0, 0.9, "x", "good"), photo("2", 1, 0.1, "x", "scratch"), photo("3", 1, 0.2, "x", "scratch")),
        *(photo("4", 1, 0.1, "y", "scratch"), photo("5", 1, 0.2, "y", "dent"), photo("6", None, 0.3, "y")),
        *(photo("7", 0, 0.1, "z", "good"), photo("8", 0, 0.2, "z", "good")),
    ]
    found = units(images)
    assert [found.defect_type(number) for number in range(3)] == ["scratch", "dent+scratch", "good"]


def test_photos_seen_many_times_change_nothing() -> None:
    """k equal photos of an object are one photo: the pixels of an object are drawn together."""
    random = np.random.default_rng(0)
    masks = np.zeros((20, 24, 24), bool)
    masks[::2, 5:12, 8:15] = True
    maps = np.stack([gaussian_filter(random.normal(size=(24, 24)), 1) for _ in masks]) + 0.4 * masks
    labels, scores = masks.any(axis=(1, 2)).astype(int), maps.max(axis=(1, 2))
    alone = summarise([f"{n:02}" for n in range(20)], list(masks), maps.astype(np.float32))
    images = [
        photo(f"{n:02}/{copy}", int(label), float(score) - (copy > 0), f"{n:02}")
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
        for copy in range(3)
    ]
    known = [np.repeat(part, 3, axis=0) for part in (masks, maps.astype(np.float32))]
    together = summarise([image.image_id for image in images], list(known[0]), known[1])
    assert alone is not None
    weights = resample_weights(labels.tolist(), named_seed(0, "c", units(images).key, "bootstrap"))
    expected = np.hstack([image_replicates(scores, labels.tolist(), weights), pixel_replicates(alone, weights)])
    found = bootstrap("c", units(images), together).values
    for name in (*NAMES, "pixel_auroc", "pixel_aupro"):
        column = BOOTSTRAPPED.index(name)
        np.testing.assert_allclose(found[:, column], expected[:, column], atol=3e-4, err_msg=name)


@pytest.mark.parametrize("shape", ["plain", "sharp", "coarse"])
def test_pixel_metrics_of_drawn_objects_are_close_to_exact_ones(shape: str) -> None:
    masks, maps = drawn_category(21)
    maps = SHAPES[shape](maps).astype(np.float32)
    images = [photo(f"{n:02}", int(mask.any()), 0.0, f"o{n // 3}") for n, mask in enumerate(masks)]
    summary = summarise([image.image_id for image in images], list(masks), maps)
    assert summary is not None
    weights = np.repeat(resample_weights(units(images).labels, 1, 3), 3, axis=1)
    for row, got in zip(weights, pixel_replicates(summary, weights), strict=True):
        drawn = np.repeat(np.arange(21), row.astype(int))
        assert got == pytest.approx(list(pixel_metrics(masks[drawn], maps[drawn]).values()), abs=TOLERANCE)


def test_objects_whose_defect_is_seen_from_one_side_only() -> None:
    """60 objects of 5 photos: over photos AUROC is far from that over objects, and so were the resamples."""
    random, images = np.random.default_rng(0), []
    for number in range(60):
        hit = random.integers(5)
        for view in range(5):
            label = int(number % 2 and view == hit)
            images.append(photo(f"{number}_{view}", label, float(random.normal(1.5 * label)), f"o{number}"))
    result = measured(images)
    drawn = bootstrap("c", result.units, None).values[:, 0]
    auroc = result.metrics["image_auroc"]
    over_photos = image_metrics([i.label for i in images], [i.score for i in images])["image_auroc"]
    assert abs(over_photos - auroc) > 0.05
    assert drawn.mean() == pytest.approx(auroc, abs=0.01)
    low, high = interval(auroc, drawn, result.n_units)
    assert low < auroc - 0.05 < auroc + 0.05 < high


def test_intervals_of_pixel_metrics_cover_the_truth_when_photos_of_an_object_are_alike() -> None:
    """Resampling photos alone would cover it in about 7 of 10 cases only."""
    objects, views, side, trials = 30, 4, 4, 100
    mask = np.zeros((side, side), bool)
    mask[:2] = True
    labels = np.repeat([0, 1], objects // 2)

    def drawn(random: np.random.Generator, count: int) -> np.ndarray:
        truth = np.tile(labels, count // objects)
        height = random.normal(size=(count, 1, 1, 1)) * 1.5 + random.normal(size=(count, views, side, side))
        return (height + 0.8 * truth[:, None, None, None] * mask).astype(np.float32)

    large = drawn(np.random.default_rng(1), 500 * objects)
    truth = np.tile(labels, 500)
    inside = np.sort(large[truth == 1][..., mask].ravel())
    outside = np.sort(np.concatenate([large[truth == 0].ravel(), large[truth == 1][..., ~mask].ravel()]))
    expected = np.searchsorted(outside, inside).mean() / outside.size
    hits, photo_hits = 0, 0
    for trial in range(trials):
        maps = drawn(np.random.default_rng(100 + trial), objects).reshape(-1, side, side)
        given = np.repeat(labels, views)
        images = [photo(f"{n:03}", int(label), 0.0, f"{n // views:02}") for n, label in enumerate(given)]
        masks = [mask if label else np.zeros_like(mask) for label in given]
        summary = summarise([image.image_id for image in images], masks, maps)
        assert summary is not None
        found = units(images)
        weights = resample_weights(found.labels, trial, 200)
        estimate = pixel_replicates(summary, np.ones((1, len(images))))[0, 0]
        for by_object in (True, False):
            by_photo = np.repeat(weights, views, axis=1) if by_object else resample_weights(given.tolist(), trial, 200)
            replicates = pixel_replicates(summary, by_photo)[:, 0]
            low, high = interval(estimate, replicates, len(found) if by_object else len(images))
            hits += by_object and low <= expected <= high
            photo_hits += not by_object and low <= expected <= high
    assert 0.9 <= hits / trials <= 0.99
    assert photo_hits / trials < 0.85


# --- Tables that speak of images


@pytest.fixture
def objects(tmp_path: Path) -> Series:
    """Three normal objects (one of a single photo), three anomalous ones, in two batches."""
    images = [
        *(photo("n1/0", 0, 0.1, "n1", "good", 0), photo("n1/1", 0, 0.6, "n1", "good", 1)),
        *(photo("n2/0", 0, 0.2, "n2", "good", 0), photo("n2/1", 0, 0.3, "n2", "good", 1)),
        photo("n3", 0, 0.4, "", "good", 0),
        *(photo("p1/0", 0, 0.0, "p1", "good", 0), photo("p1/1", 1, 0.5, "p1", "dent", 1)),
        *(photo("p2/0", 1, 0.9, "p2", "dent", 1), photo("p2/1", 0, 0.7, "p2", "good", 0)),
        *(photo("p3/0", 1, 0.1, "p3", "scratch", 1), photo("p3/1", 0, 0.35, "p3", "good", 0)),
    ]
    return series_of(tmp_path, measured(images), measured(images, "cable"), setting="batch")


def test_placements_and_defect_types_are_of_objects(objects: Series) -> None:
    result = objects.jobs[0].results["bottle"]
    assert result.metrics["image_auroc"] == pytest.approx((2 / 3 + 1 + 1 / 3) / 3)
    placed = placements.placements(result.units)
    for label in (0, 1):
        values = [value for number, value in placed.items() if result.units.labels[number] == label]
        assert np.mean(values) == pytest.approx(result.metrics["image_auroc"])
    kinds = defects.by_defect_type([objects]).set_index(["category", "defect_type"])
    assert kinds.loc[("bottle", "dent"), "image_auroc"] == pytest.approx((2 / 3 + 1) / 2)
    assert kinds.loc[("bottle", "scratch"), "n_images"] == 1


def test_an_object_counts_in_the_batch_that_gave_its_score(objects: Series) -> None:
    table = questions.by_share([objects]).set_index("share_to")
    # batch 0 (no anomalous photo): n3, p3. Batch 1 (3 of 5): n1, n2, p1, p2. Two equal categories.
    assert table["n_images"].to_dict() == {0.25: 4, 0.75: 8}
    assert table.loc[0.25, "value"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_worst_images_are_those_of_the_worst_objects(objects: Series) -> None:
    table = questions.worst_images([objects], count=1).query("category == 'bottle'").set_index("kind")
    assert table.loc["false alarm", ["image_id", "object", "score"]].tolist() == ["n1/1", "n1", 0.6]
    # its score comes from a photo without the defect; shown is the photo with it
    assert table.loc["miss", ["image_id", "object", "score", "defect_type"]].tolist() == ["p3/0", "p3", 0.35, "scratch"]


def test_curves_thresholds_scores_and_agreement_are_of_objects(objects: Series) -> None:
    roc = questions.curves(objects).query("curve == 'image_roc'")
    assert np.trapezoid(roc["y"], roc["x"]) == pytest.approx(objects.mean("image_auroc"), abs=0.01)
    assert questions.score_table(objects).groupby("category").size().to_dict() == {"bottle": 6, "cable": 6}
    points = operating_points([objects]).query("category == 'bottle' and rule == 'f1max'")
    assert points[["n_estimate", "n_test", "normal_estimate"]].to_numpy().tolist() == [[4, 2, 2]]
    assert questions.agreement([objects, objects]).to_numpy() == pytest.approx(np.ones((2, 2)))


def test_regions_of_one_object_are_one_cluster() -> None:
    values = np.random.default_rng(0).normal(size=9)
    usual = values.std(ddof=1) / 3
    assert placements.clustered_error(values, range(9)) == pytest.approx(usual)
    assert placements.clustered_error(np.repeat(values, 4), np.repeat(range(9), 4).tolist()) == pytest.approx(usual)
    assert math.isnan(placements.clustered_error(values, ["one"] * 9))


# --- Files


def test_intervals_in_the_tables_are_over_objects(tmp_path: Path, objects: Series) -> None:
    write_tables(tmp_path)
    images = pd.read_csv(tmp_path / "images.csv", keep_default_na=False)
    assert images["group"].tolist()[:3] == ["n1", "n1", "n2"]
    board = pd.read_csv(tmp_path / "leaderboard.csv").iloc[0]
    assert board["image_auroc_low"] <= board["image_auroc"] <= board["image_auroc_high"]
    assert (objects.n_images, objects.n_units) == (22, 12)
    for part in objects.categories:
        for name, (low, high) in category_intervals(objects, part).items():
            assert not name.startswith("image") or low <= objects.value(part, name) <= high


def test_without_objects_tables_have_no_column_and_older_files_are_read(tmp_path: Path) -> None:
    result = measured([photo(str(number), number % 2, number / 10) for number in range(6)])
    folder = saved(tmp_path, info(), result)
    assert "group" not in write_tables(tmp_path).images
    path = folder.category_file("bottle")
    content = json.loads(path.read_text("utf-8"))
    for image in content["images"]:
        del image["group"]
    path.write_text(json.dumps(content), "utf-8")
    assert folder.load("bottle") == result


def test_old_files_that_do_not_name_their_objects_have_no_interval(tmp_path: Path, objects: Series) -> None:
    folder = objects.jobs[0].sources["bottle"]
    path = folder.category_file("bottle")
    content = json.loads(path.read_text("utf-8"))
    for image in content["images"]:
        del image["group"]
    path.write_text(json.dumps(content), "utf-8")
    runs = read_runs([tmp_path])
    (problem,) = runs.problems
    assert "bottle.json" in problem
    assert "run it again" in problem
    (entry,) = group_series(runs.jobs)
    assert entry.value("bottle", "image_auroc") == objects.value("bottle", "image_auroc")
    assert category_intervals(entry, "bottle") == {}
    assert set(questions.worst_images([entry])["category"]) == {"cable"}
    assert operating_points([entry])["category"].tolist() == ["cable"] * 3


def test_other_objects_are_not_paired_and_the_reason_is_said(tmp_path: Path) -> None:
    images = [photo(f"{n:02}", n % 2, n / 10, f"o{n // 2 * 2 + n % 2}") for n in range(8)]
    joined = [photo(i.image_id, i.label, i.score, f"o{int(i.image_id) % 4}") for i in images]
    entries = []
    for number, chosen in enumerate((images, joined, images)):
        results = (measured(chosen), measured(chosen, "cable"))
        entries.append(series_of(tmp_path, *results, method=f"m{number}", digest=str(number) * 12))
    assert same_units(entries[0], entries[2])
    assert not same_units(entries[0], entries[1])
    assert not_compared([entries[0], entries[2]]) == ""
    text = not_compared(entries)
    assert "they are not the same for m0, batch 8; m2, batch 8 | m1, batch 8." in text


def test_photos_of_objects_from_the_command_line_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real-IAD's protocol ``samples``: two objects of five photos, the defect on two photos of one of them."""
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    real_iad(tmp_path / "data")
    options = ["dataset=real_iad", f"dataset.root={tmp_path / 'data'}", "name=run", "batch_size=4", *TINY_ENCODER]
    options += ["features=off", "maps=sheet"]
    for method in ("winclip", "musc"):
        assert main([f"method={method}", "dataset.protocol=samples", *options]) == 0
    run = tmp_path / "results" / "run"
    images = pd.read_csv(run / "images.csv")
    assert images.groupby(["method", "group"]).size().tolist() == [5, 5, 5, 5]
    first = {path.name: path.read_bytes() for path in run.glob("*.csv") if "speed" not in path.name}
    for row in pd.read_csv(run / "leaderboard.csv").to_dict("records"):
        objects = images[images["method"] == row["method"]].groupby("group")[["label", "score"]].max()
        assert row["image_auroc"] == image_metrics(objects["label"], objects["score"])["image_auroc"]
        assert row["image_auroc_low"] <= row["image_auroc"] <= row["image_auroc_high"]
        assert row["pixel_auroc_low"] <= row["pixel_auroc"] <= row["pixel_auroc_high"]
    write_tables(run)
    assert {path.name: path.read_bytes() for path in run.glob("*.csv") if "speed" not in path.name} == first
    content = build_content(read_runs([run]), BoardOptions())
    told = next(question for question in content.questions if "told apart" in question.title)
    assert "paired bootstrap over objects" in told.text
    worst = next(question for question in content.questions if "fail" in question.title).table
    assert worst.groupby("method")["object"].nunique().tolist() == [2, 2]  # one false alarm and one miss each
    assert all(path.exists() for path in (sheet.path for sheet in content.sheets))
    assert len(content.sheets) == 2


def test_resamples_and_halves_do_not_depend_on_what_the_dataset_is_called(tmp_path: Path) -> None:
    """The label of a dataset may change with the folders that a report puts together."""
    random = np.random.default_rng(0)
    images = [photo(f"{n:02}", n % 2, float(random.normal(n % 2)), f"o{n // 4 * 2 + n % 2}") for n in range(40)]
    found = []
    for name in ("photos", "photos-copy"):
        job = replace(info(), dataset=name)
        folder = saved(tmp_path / name, job, measured(images), measured(images, "cable"))
        (entry,) = group_series(read_runs([tmp_path / name]).jobs)
        drawn = [Replicates.from_arrays(folder.arrays(part, REPLICATES)) for part in job.categories]
        assert drawn[0] is not None
        assert drawn[1] is not None
        assert (drawn[0].values[:, 0] != drawn[1].values[:, 0]).any()  # other categories, other draws
        found.append((drawn[0].images, drawn[0].values, operating_points([entry]).drop(columns="dataset")))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    pd.testing.assert_frame_equal(found[0][2], found[1][2])

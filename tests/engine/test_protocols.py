"""Variants of a dataset are named in every result row and never meet on a leaderboard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import get_class

from tests.helpers.layouts import dagm, mvtec_ad
from tests.helpers.miniatures import Miniature, random_region, write_image, write_mask
from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main
from zsad_bench.contract import Sample
from zsad_bench.engine.dataset_card import cards, dataset_at
from zsad_bench.engine.dataset_names import dataset_label, lacks_categories
from zsad_bench.engine.identity import fingerprint
from zsad_bench.engine.measure import evaluate_images
from zsad_bench.metrics import image_metrics

TINY = [*TINY_ENCODER, "maps=none", "features=off"]


def row(name, label, group=""):
    return Sample(name, Path(name), "c", label, "", None, group)


def test_departures_from_the_usual_reading_are_part_of_the_protocol(tmp_path):
    mvtec_ad(tmp_path)
    assert dataset_at("mvtec", tmp_path).protocol == "standard"
    assert dataset_at("mvtec", tmp_path, mask_threshold=127).protocol == "standard, mask > 127"
    assert dataset_at("mvtec", tmp_path, fast_jpeg=True).protocol == "standard, fast jpeg"
    assert dataset_at("mvtec", tmp_path, protocol="my split").protocol == "my split"


def test_sets_without_normal_test_images_say_so(tmp_path):
    mini = Miniature(tmp_path)
    mini.anomalous("road/test/crack/1.png", "road", "crack")
    mini.anomalous("wall/test/crack/1.png", "wall", "crack")
    mini.normal("wall/test/good/1.png", "wall")
    assert dataset_at("mvtec", tmp_path).protocol == "standard, all anomalous: road"
    assert dataset_at("mvtec", tmp_path, categories=["road"]).protocol == "standard, all anomalous"
    assert dataset_at("mvtec", tmp_path, categories=["wall"]).protocol == "standard"


@pytest.mark.parametrize("folder", ["mvtec", "visa", "screws"])
def test_other_categories_never_get_the_name_of_a_benchmark(tmp_path, folder):
    mvtec_ad(tmp_path / folder)
    (tmp_path / folder / "grid").rename(tmp_path / folder / "gate")
    own = folder if folder == "screws" else f"{folder}-copy"
    assert dataset_label(dataset_at("mvtec", tmp_path / folder)) == own
    named = {"gate": "garden gate", "metal_nut": "metal nut"}
    assert dataset_label(dataset_at("mvtec", tmp_path / folder, class_names=named)) == own
    assert dataset_label(dataset_at("mvtec", tmp_path / folder, name="gates")) == "gates"
    assert dataset_label(dataset_at("folder", tmp_path / folder, name="mvtec")) == own


def test_a_benchmark_of_which_categories_are_missing_says_so(tmp_path):
    for category in cards()["mvtec"].categories:
        write_image(tmp_path / category / "test/good/000.png")
    whole = dataset_at("mvtec", tmp_path)
    assert (dataset_label(whole), lacks_categories(whole)) == ("mvtec", False)
    (tmp_path / "grid").rename(tmp_path.parent / "grid")
    part = dataset_at("mvtec", tmp_path)
    assert (dataset_label(part), lacks_categories(part)) == ("mvtec", True)
    assert not lacks_categories(dataset_at("mvtec", tmp_path, name="mine"))


@pytest.mark.parametrize("key", sorted(cards()))
def test_the_protocols_that_are_described_are_those_of_the_loader(key):
    card = cards()[key]
    if key == "auto":
        return
    variants = get_class(card.target).PROTOCOLS
    assert tuple(card.about.protocols or ()) == variants
    assert card.protocol == (variants[0] if variants else "standard")


def test_rows_of_two_protocols_are_ranked_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dagm(tmp_path / "dagm")
    options = ["method=winclip", "dataset=dagm", f"dataset.root={tmp_path / 'dagm'}", "name=run", *TINY]
    assert main(["-m", *options, "dataset.protocol=original,balanced"]) == 0
    assert main([*options, "dataset.mask_threshold=9"]) == 0
    rows = pd.read_csv("results/run/metrics.csv")
    two = "categories Class1+Class10"  # of ten
    protocols = [f"balanced, {two}, 48 px", f"original, {two}, 48 px", f"original, mask > 9, {two}, 48 px"]
    assert sorted(rows["protocol"].unique()) == protocols
    assert (rows[rows["protocol"] == protocols[0]].set_index("category")["n_images"] == [6, 6, 12]).all()
    board = pd.read_csv("results/run/leaderboard.csv")
    assert (sorted(board["protocol"]), board["rank"].tolist()) == (protocols, [1, 1, 1])
    assert "balanced" in capsys.readouterr().out


def test_photos_of_one_object_share_the_largest_score():
    samples = [row(f"{g}{v}", int(g == "b" and v == 1), g) for v in range(2) for g in "abc"] + [row("d", 0)]
    scores = np.array([0.1, 0.2, 0.9, 0.3, 0.8, 0.1, 0.5], dtype=np.float32)
    values, notes = evaluate_images(samples, scores)
    assert values == image_metrics(np.array([0, 1, 0, 0]), np.array([0.3, 0.8, 0.9, 0.5], dtype=np.float32))
    assert "over 4 objects" in notes[0]
    alone = [row(s.image_id, s.label) for s in samples]
    assert evaluate_images(alone, scores) == (image_metrics(np.array([s.label for s in samples]), scores), [])


def test_a_changed_file_in_a_folder_of_masks_changes_the_fingerprint(tmp_path):
    write_image(tmp_path / "a.png")
    write_mask(tmp_path / "a/0.png", random_region((12, 9), 0))
    samples = [Sample("a.png", tmp_path / "a.png", "c", 1, "x", tmp_path / "a")]
    before = fingerprint(samples)
    write_mask(tmp_path / "a/1.png", random_region((12, 9), 1))
    assert fingerprint(samples) != before

"""dataset=folder: every shape of a user's own images, and the shapes that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.loader_checks import assert_loaded, messages, refused
from tests.helpers.miniatures import Miniature, random_region, write_image, write_mask
from zsad_bench.datasets.folder import Folder


def root_of(tmp_path):
    return tmp_path / "my parts"


def test_images_only(tmp_path):
    mini = Miniature(root_of(tmp_path))
    mini.unlabelled("b.JPG", "my parts")
    mini.unlabelled("a 1.png", "my parts", mode="RGBA")
    (mini.root / "notes.txt").write_text("")
    (mini.root / ".hidden.png").write_text("")
    data = Folder(root=mini.root)
    assert_loaded(data, mini)
    assert set(messages(data)) == {"notes.txt"}
    assert data.class_name("my parts") == "my parts"


def test_names_of_a_single_category(tmp_path):
    mini = Miniature(root_of(tmp_path))
    mini.unlabelled("a.png", "nuts_2")
    data = Folder(root=mini.root, category="nuts_2", class_name="hex nut")
    assert_loaded(data, mini)
    assert data.class_name("nuts_2") == "hex nut"
    assert Folder(root=mini.root, category="nuts_2").class_name("nuts_2") == "nuts 2"


def test_the_category_is_named_after_the_real_folder(tmp_path, monkeypatch):
    write_image(root_of(tmp_path) / "a.png")
    monkeypatch.chdir(root_of(tmp_path))
    assert Folder(root=".").categories == ("my parts",)


@pytest.mark.parametrize("images", ["", "images/"])
@pytest.mark.parametrize("masks", ["masks", "ground_truth", "Masks"])
def test_images_and_masks_where_a_black_mask_means_normal(tmp_path, images, masks):
    mini = Miniature(root_of(tmp_path))
    category = "my parts"
    mini.anomalous(f"{images}1.jpg", category, "anomaly", f"{masks}/1.png")
    mini.anomalous(f"{images}2.jpg", category, "anomaly", f"{masks}/2_mask.png")
    mini.normal(f"{images}3.jpg", category)
    write_mask(mini.root / f"{masks}/3.png", np.zeros((9, 12), bool))
    data = Folder(root=mini.root)
    assert_loaded(data, mini)
    assert data.problems() == []


def test_images_with_masks_need_all_their_masks(tmp_path):
    root = root_of(tmp_path)
    for stem in ("1", "2", "3"):
        write_image(root / f"{stem}.jpg")
    write_mask(root / "masks/1.png", random_region((12, 9), 1))
    (root / "masks/2.png").write_text("damaged")
    data = Folder(root=root)
    assert set(messages(data, "error")) == {"masks/2.png", "3.jpg"}
    refused(lambda: data.samples("my parts"), root, "data check")


@pytest.mark.parametrize("normal", ["good", "OK", "Normal", "nominal", "no"])
@pytest.mark.parametrize("masks", [None, "masks", "ground_truth"])
def test_folders_of_labels(tmp_path, normal, masks):
    mini = Miniature(root_of(tmp_path))
    category = "my parts"
    mini.normal(f"{normal}/1.png", category)
    for defect in ("scratch", "dent 2"):
        mini.anomalous(f"{defect}/1.png", category, defect, masks and f"{masks}/{defect}/1.png")
    data = Folder(root=mini.root)
    assert_loaded(data, mini)
    assert messages(data, "error") == {}
    assert len(data.problems()) == (masks is None)


def test_nested_folders_of_labels_keep_their_numbers_apart(tmp_path):
    mini = Miniature(root_of(tmp_path))
    for number in ("01", "02"):
        mini.normal(f"ok/{number}/000.png", "my parts")
        mini.anomalous(f"crack/{number}/000.png", "my parts", "crack", f"masks/crack/{number}/000.png")
    data = Folder(root=mini.root)
    assert_loaded(data, mini)
    assert data.problems() == []


def test_anomalous_folders_only(tmp_path):
    mini = Miniature(root_of(tmp_path))
    mini.anomalous("defect/1.png", "my parts", "defect", "masks/1.png")
    assert_loaded(Folder(root=mini.root), mini)


def test_flat_masks_beside_folders_of_labels(tmp_path):
    mini = Miniature(root_of(tmp_path))
    mini.normal("good/1.png", "my parts")
    write_mask(mini.root / "masks/1.png", np.zeros((9, 12), bool))  # a black mask of a normal image is not needed
    mini.anomalous("dent/2.png", "my parts", "dent", "masks/2.png")
    data = Folder(root=mini.root)
    assert_loaded(data, mini)
    assert data.problems() == []
    write_image(mini.root / "good/2.png")
    refused(lambda: Folder(root=mini.root).samples("my parts"), "2.png", "fits several images", "defect type")


@pytest.mark.parametrize("masks", ["ground_truth", "masks"])
def test_one_mvtec_style_category_in_the_root(tmp_path, masks):
    mini = Miniature(root_of(tmp_path))
    mini.normal("train/good/1.png", "nut", "train")
    mini.normal("test/good/1.png", "nut")
    mini.anomalous("test/hole/1.png", "nut", "hole", f"{masks}/hole/1_mask.png")
    assert_loaded(Folder(root=mini.root, category="nut"), mini)


def test_several_mvtec_style_categories(tmp_path):
    mini = Miniature(root_of(tmp_path))
    for category in ("nut", "bolt"):
        mini.normal(f"{category}/test/good/1.png", category)
        mini.anomalous(f"{category}/test/hole/1.png", category, "hole", f"{category}/ground_truth/hole/1.png")
    (mini.root / "meta.json").write_text("{}")
    data = Folder(root=mini.root)
    assert_loaded(data, mini)
    assert data.problems() == []
    assert Folder(root=mini.root, category="nut", class_name="hex nut").class_name("nut") == "hex nut"
    assert Folder(root=mini.root, class_names={"nut": "hex nut"}).class_name("nut") == "hex nut"
    refused(lambda: Folder(root=mini.root, class_name="x").class_name("nut"), "dataset.class_name", "bolt, nut")
    refused(lambda: Folder(root=mini.root, category="nots").categories, "dataset.category=nots", "bolt/, nut/")


@pytest.mark.parametrize(
    ("files", "texts"),
    [
        (["good/1.png", "bad/1.png", "loose.png"], ["bad/, good/", "1 images beside", "loose.png"]),
        (["test/good/1.png", "loose.png"], ["a train or test folder", "loose.png"]),
        (["nut/test/good/1.png", "loose.png"], ["categories (nut/)", "loose.png"]),
        (["nut/test/good/1.png", "good/1.png"], ["mixes categories (nut/", "good/"]),
        (["monday/1.png", "tuesday/1.png"], ["monday/, tuesday/", "none is named good"]),
        (["monday/1.png"], ["monday/", "none is named good"]),
        (["monday/1.png", "loose.png"], ["monday/", "loose.png"]),
        (["images/1.png", "loose.png"], ["images/", "loose.png"]),
        (["1.png", "masks/1.png", "ground_truth/1.png"], ["ground_truth and masks", "keep one"]),
        (["notes.txt"], ["no image found", "notes.txt"]),
        ([], ["no image found"]),
    ],
)
def test_roots_that_could_mean_two_things_are_refused(tmp_path, files, texts):
    root = root_of(tmp_path)
    root.mkdir()
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name) if name.endswith("png") else (root / name).write_text("")
    refused(lambda: Folder(root=root).categories, root, *texts)


def test_masks_among_the_images_are_noticed(tmp_path):
    root = root_of(tmp_path)
    for name in ("1.jpg", "1_mask.png", "2_label.png"):
        write_image(root / name)
    assert set(messages(Folder(root=root), "warning")) == {"1_mask.png"}


def test_links_that_lead_back_end(tmp_path):
    root = root_of(tmp_path)
    write_image(root / "good/1.png")
    (root / "good/loop").symlink_to(root)
    assert [s.image_id for s in Folder(root=root).samples("my parts")] == ["good/1.png"]

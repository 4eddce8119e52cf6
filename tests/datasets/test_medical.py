"""Medical layouts: two folders of labels, or images and masks that are all anomalous."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.helpers.loader_checks import assert_loaded, messages, refused
from tests.helpers.miniatures import Miniature, write_image
from zsad_bench.engine.dataset_card import dataset_at as at


@pytest.mark.parametrize("key", ["brainmri", "br35h"])
def test_no_and_yes_without_the_folders_that_are_something_else(tmp_path, key):
    mini = Miniature(tmp_path)
    mini.normal("no/1 no.jpeg", key, mode="L")
    mini.normal("no/N2.JPG", key)
    mini.anomalous("yes/Y1.jpg", key, "tumor")
    mini.anomalous("yes/Y2.png", key, "tumor", mode="RGBA")
    for name in ("brain_tumor_dataset/no/1 no.jpeg", "brain_tumor_dataset/yes/Y1.jpg", "pred/pred0.jpg"):
        write_image(tmp_path / name)
    data = at(key, tmp_path)
    assert_loaded(data, mini)
    assert data.class_name(key) == "brain"
    assert set(messages(data, "warning")) == {"brain_tumor_dataset", "pred", key}  # the last: no masks
    assert data.protocol == "standard"


def test_a_root_with_only_the_inner_folder(tmp_path):
    mini = Miniature(tmp_path / "brain_tumor_dataset")
    mini.normal("no/1.jpg", "brainmri")
    mini.anomalous("yes/1.jpg", "brainmri", "tumor")
    assert_loaded(at("brainmri", tmp_path), mini)


ISIC = "ISBI2016_ISIC_Part1_Test"


@pytest.mark.parametrize(
    ("key", "image", "mask", "kind"),
    [
        ("isic", f"{ISIC}_Data/ISIC_0000003.jpg", f"{ISIC}_GroundTruth/ISIC_0000003_Segmentation.png", "lesion"),
        ("clinicdb", "Original/1.tif", "Ground Truth/1.tif", "polyp"),
        ("clinicdb", "images/1.png", "masks/1.png", "polyp"),
        ("clinicdb", "TIF/Original/1.tif", "TIF/Ground Truth/1.tif", "polyp"),
        ("colondb", "images/1.png", "masks/1.png", "polyp"),
        ("endo", "images/1.jpg", "masks/1.png", "polyp"),
        ("kvasir", "images/cju0.jpg", "masks/cju0.png", "polyp"),
        ("tn3k", "test-image/0000.jpg", "test-mask/0000.png", "nodule"),
    ],
)
def test_every_image_is_anomalous(tmp_path, key, image, mask, kind):
    mini = Miniature(tmp_path)
    mini.anomalous(image, key, kind, mask)
    data = at(key, tmp_path)
    assert_loaded(data, mini)
    rule = "mask > 127, " if key in ("kvasir", "tn3k") else ""
    assert data.protocol == f"standard, {rule}all anomalous"
    assert messages(data, "error") == {}


def test_two_formats_of_the_same_images_are_read_once(tmp_path):
    mini = Miniature(tmp_path)
    write_image(tmp_path / "PNG/Original/1.png")
    write_image(tmp_path / "PNG/Ground Truth/1.png")
    mini.anomalous("TIF/Original/1.tif", "clinicdb", "polyp", "TIF/Ground Truth/1.tif")
    data = at("clinicdb", tmp_path)
    assert_loaded(data, mini)
    assert [p.path for p in data.problems() if "not read" in p.message] == ["PNG/Original", "PNG/Ground Truth"]


def test_jpeg_masks_have_no_halo_under_the_threshold_of_their_dataset(tmp_path):
    """A JPEG mask has small values around its edges: above 0 they would count as polyp."""
    region = np.zeros((64, 64), bool)
    region[20:41, 24:45] = True
    write_image(tmp_path / "images/1.jpg", (64, 64))
    (tmp_path / "masks").mkdir()
    Image.fromarray(region.astype(np.uint8) * 255).save(tmp_path / "masks/1.jpg", quality=75)
    right = at("kvasir", tmp_path)
    fat = at("kvasir", tmp_path, mask_threshold=0)
    (sample,) = right.samples("kvasir")
    assert np.array_equal(right.read_mask(sample), region)
    assert fat.read_mask(sample).sum() > region.sum()
    assert (right.protocol, fat.protocol) == ("standard, mask > 127, all anomalous", "standard, all anomalous")


def test_converted_medical_copies_keep_the_name_and_noun(tmp_path):
    mini = Miniature(tmp_path)
    mini.anomalous("colon/test/polyp/1.png", "colon", "polyp", "colon/ground_truth/polyp/1.png")
    data = at("clinicdb", tmp_path)
    assert_loaded(data, mini)
    assert data.protocol == "standard, MVTec-style copy, all anomalous"
    assert data.has_class_name("colon")


def test_a_root_of_something_else_says_which_folders_were_expected(tmp_path):
    (tmp_path / "pictures").mkdir()
    refused(lambda: at("tn3k", tmp_path).categories, tmp_path, "'test-image' and 'test-mask'")
    refused(lambda: at("br35h", tmp_path).categories, tmp_path, "no and yes")

"""Layouts of industrial datasets against miniature roots written from their description, with the traps of each."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.io import savemat

from tests.helpers.layouts import ad2, dagm, ksdd, loco, mvtec_ad
from tests.helpers.loader_checks import assert_loaded, messages, refused
from tests.helpers.miniatures import (
    SIZE,
    Miniature,
    random_region,
    write_image,
    write_mask,
    write_mask_class_numbers,
    write_mask_palette,
)
from zsad_bench.engine.dataset_card import dataset_at as at

RAILS = "Type-I RSDDs dataset"


# --- MVTec LOCO AD


def test_loco_unites_the_masks_of_an_image(tmp_path):
    mini = loco(tmp_path)
    data = at("mvtec_loco", tmp_path)
    assert_loaded(data, mini)
    assert data.problems() == []
    (logical,) = [s for s in data.samples("pushpins") if s.defect_type == "logical_anomalies"]
    assert len(data.mask_files(logical)) == 3
    write_mask(tmp_path / "pushpins/ground_truth/logical_anomalies/000/009.png", random_region((5, 5), 0))
    refused(lambda: data.read_mask(logical), "logical_anomalies/000", "differ in size")


def test_loco_folder_of_masks_without_an_image(tmp_path):
    loco(tmp_path)
    write_mask(tmp_path / "pushpins/ground_truth/logical_anomalies/007/000.png", random_region(SIZE, 0))
    refused(lambda: at("mvtec_loco", tmp_path).samples("pushpins"), "logical_anomalies/007", "without an image")


# --- MVTec AD 2


def test_ad2_public(tmp_path):
    mini = ad2(tmp_path)
    write_image(tmp_path / "can/test_private/000_regular.png")
    data = at("mvtec_ad2", tmp_path)
    assert_loaded(data, mini)
    assert (data.problems(), data.protocol) == ([], "public")
    write_image(tmp_path / "can/test_public/loose.png")
    refused(lambda: at("mvtec_ad2", tmp_path).samples("can"), "loose.png", "label is unknown")


@pytest.mark.parametrize("protocol", ["private", "private_mixed"])
def test_ad2_private_images_have_no_label(tmp_path, protocol):
    mini = ad2(tmp_path)
    mini.images = {name: written for name, written in mini.images.items() if written.split == "train"}
    mini.unlabelled(f"can/test_{protocol}/000_regular.png", "can")
    data = at("mvtec_ad2", tmp_path, protocol=protocol)
    assert_loaded(data, mini)
    assert data.protocol == protocol


# --- DAGM


def dagm_miniature(root, masks, split_of) -> Miniature:
    mini = Miniature(root)
    for name, mask in masks.items():
        mini.anomalous(name, name.split("/")[0], "defect", split=split_of(name), mode="L")
        if mask is None:
            mini.images.pop(name)
            mini.normal(name, name.split("/")[0], split=split_of(name), mode="L")
        else:
            mini.images[name].mask = mask
    return mini


def test_dagm_original(tmp_path):
    masks = dagm(tmp_path)
    mini = dagm_miniature(tmp_path, masks, lambda name: "train" if "/Train/" in name else "test")
    data = at("dagm", tmp_path)
    assert_loaded(data, mini)
    assert (data.problems(), data.protocol) == ([], "original")
    assert {s.label for s in data.samples("Class1", "train")} == {0, 1}


def test_dagm_balanced_has_all_defects_and_as_many_normal_images(tmp_path):
    masks = dagm(tmp_path)
    data = at("dagm", tmp_path, protocol="balanced")
    test, train = data.samples("Class1"), data.samples("Class1", "train")
    own = {name for name in masks if name.startswith("Class1/")}
    assert {s.image_id for s in test if s.label == 1} == {name for name in own if masks[name] is not None}
    assert sum(s.label == 0 for s in test) == 3
    assert {s.label for s in train} == {0}
    assert {s.image_id for s in test} | {s.image_id for s in train} == own
    again = at("dagm", tmp_path, protocol="balanced").samples("Class1")
    assert (again, data.protocol) == (test, "balanced")


def test_dagm_label_without_an_image_and_unknown_protocol(tmp_path):
    dagm(tmp_path)
    (tmp_path / "Class1/Test/0002.PNG").unlink()
    refused(lambda: at("dagm", tmp_path).samples("Class1"), "0002_label.PNG", "without an image")
    refused(lambda: at("dagm", tmp_path, protocol="both"), "dataset.protocol=both", "original or balanced")


def test_converted_copies_are_read_and_named_in_the_protocol(tmp_path):
    mini = mvtec_ad(tmp_path / "copy")
    data = at("dagm", tmp_path / "copy")
    assert_loaded(data, mini)
    assert data.protocol == "original, MVTec-style copy"
    write_image(tmp_path / "listed/a.png")
    entry = {"img_path": "a.png", "mask_path": "", "anomaly": 0}
    (tmp_path / "listed/meta.json").write_text(json.dumps({"Train": {}, "Test": {"Class1": [entry]}}))
    data = at("dagm", tmp_path / "listed")
    assert data.protocol == "original, meta.json copy"
    (tmp_path / "other").mkdir()
    refused(lambda: at("dagm", tmp_path / "other").categories, tmp_path / "other", "Class1/", "meta.json")


# --- KolektorSDD


def test_ksdd_whole(tmp_path):
    masks = ksdd(tmp_path)
    data = at("ksdd", tmp_path)
    test, train = data.samples("ksdd"), data.samples("ksdd", "train")
    assert {s.image_id for s in test + train} == set(masks)
    for sample in test + train:
        mask = data.read_mask(sample)
        assert np.array_equal(mask, masks[sample.image_id])
        assert sample.label == mask.any()
    normal_items = {s.image_id[:5] for s in test if s.label == 0}
    assert normal_items == {"kos01", "kos06", "kos11"}
    assert all(s.label == 0 and s.image_id[:5] not in normal_items for s in train)
    assert (data.problems(), data.protocol) == ([], "whole")


def test_ksdd_strips(tmp_path):
    masks = ksdd(tmp_path)
    data = at("ksdd", tmp_path, protocol="strips")
    everything = data.samples("ksdd") + data.samples("ksdd", "train")
    assert len(everything) == 3 * len(masks)
    by_image: dict[str, list] = {}
    for sample in sorted(everything, key=lambda s: s.image_id):
        by_image.setdefault(f"{sample.image_id[:-6]}.jpg", []).append(sample)
    for name, strips in by_image.items():
        assert [s.image_id[-6:] for s in strips] == ["_0.jpg", "_1.jpg", "_2.jpg"]
        heights = [data.read_image(s).height for s in strips]
        assert heights == [10, 10, 11] if masks[name].shape[0] == 31 else [10, 11, 11]
        assert np.array_equal(np.concatenate([data.read_mask(s) for s in strips]), masks[name])
        pixels = np.concatenate([np.asarray(data.read_image(s)) for s in strips])
        assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / name).convert("RGB")))
        assert [s.label for s in strips] == [int(data.read_mask(s).any()) for s in strips]
    assert data.protocol == "strips"


def test_ksdd_missing_and_damaged_labels_are_errors(tmp_path):
    ksdd(tmp_path)
    (tmp_path / "kos03/Part0_label.bmp").unlink()
    (tmp_path / "kos04/Part1_label.bmp").write_bytes(b"BM")
    (tmp_path / "kos05/Part1.jpg").unlink()
    data = at("ksdd", tmp_path)
    assert set(messages(data, "error")) == {"kos03/Part0.jpg", "kos04/Part1_label.bmp", "kos05/Part1_label.bmp"}


def test_ksdd2(tmp_path):
    mini = Miniature(tmp_path)
    for split, first in (("train", 10000), ("test", 20000)):
        for number in range(3):
            name = f"{split}/{first + number}.png"
            mini.normal(name, "ksdd2", split)
            write_mask(tmp_path / f"{split}/{first + number}_GT.png", np.zeros(SIZE[::-1], bool))
        number = first + 9
        mini.anomalous(f"{split}/{number}.png", "ksdd2", "defect", f"{split}/{number}_GT.png", split)
    data = at("ksdd2", tmp_path)
    assert_loaded(data, mini)
    assert data.problems() == []
    write_image(tmp_path / "train/10001_copy.png")
    refused(lambda: at("ksdd2", tmp_path).samples("ksdd2"), "10001_copy.png", "unknown if it is normal")


# --- all anomalous: RSDDs, cracks, NEU-Seg


@pytest.mark.parametrize(
    ("key", "category", "images", "masks", "defect", "write"),
    [
        ("rsdd", "type_1", f"{RAILS}/Rail surface images", f"{RAILS}/GroundTruth", "defect", None),
        ("deepcrack", "road", "test_img", "test_lab", "crack", None),
        ("crack500", "road", "test/images", "test/masks", "crack", None),
        ("neu_seg", "neu_seg", "images/test", "annotations/test", "defect", write_mask_class_numbers),
    ],
)
def test_images_and_masks_in_two_folders(tmp_path, key, category, images, masks, defect, write):
    mini = Miniature(tmp_path)
    for number in (1, 2, 10):
        name = f"{images}/rail_{number}.jpg"
        mini.anomalous(name, category, defect, f"{masks}/rail_{number}.png", write=write)
    (tmp_path / images / "Thumbs.db").write_text("")
    data = at(key, tmp_path)
    assert_loaded(data, mini)
    assert data.protocol == "standard, all anomalous"
    assert [p.severity for p in data.problems()] == ["warning"]
    (tmp_path / masks / "rail_1.png").rename(tmp_path / masks / "rail_11.png")
    assert set(messages(at(key, tmp_path), "error")) == {f"{masks}/rail_11.png"}


def test_a_train_part_stays_train(tmp_path):
    mini = Miniature(tmp_path)
    mini.anomalous("train_img/1.jpg", "road", "crack", "train_lab/1.png", "train")
    mini.anomalous("test_img/1.jpg", "road", "crack", "test_lab/1.png")
    assert_loaded(at("deepcrack", tmp_path), mini)


# --- polygons, boxes, MAT files


def test_bsdata_polygons(tmp_path):
    mini = Miniature(tmp_path)
    mini.normal("data/b_crop_1.jpg", "bsd", size=(40, 30))
    mini.anomalous("data/a_crop_2.jpg", "bsd", "pitting", size=(40, 30))
    square = [[10.2, 5.1], [20.3, 5.2], [20.1, 15.4], [10.4, 15.3]]
    triangle = [[30, 20], [36, 20], [30, 26]]
    shapes = [{"label": "Pitting", "shape_type": "polygon", "points": points} for points in (square, triangle)]
    (tmp_path / "label").mkdir()
    (tmp_path / "label/a_crop_2.json").write_text(json.dumps({"shapes": shapes, "imageData": "abc"}))
    (tmp_path / "image_data.json").write_text("{}")
    region = np.zeros((30, 40), bool)
    region[5:16, 10:21] = True
    canvas = Image.new("1", (40, 30))
    ImageDraw.Draw(canvas).polygon([(30, 20), (36, 20), (30, 26)], fill=1)
    mini.images["data/a_crop_2.jpg"].mask = region | np.array(canvas)
    data = at("bsd", tmp_path)
    assert_loaded(data, mini)
    assert (data.problems(), data.protocol) == ([], "unlabelled_normal")
    labelled = at("bsd", tmp_path, protocol="labelled")
    assert [s.label for s in labelled.samples("bsd")] == [1]
    assert labelled.protocol == "labelled, all anomalous"
    for broken in ("{", "[]", '{"shapes": [{"shape_type": "circle", "points": [[1, 1], [2, 2]]}]}'):
        (tmp_path / "label/a_crop_2.json").write_text(broken)
        refused(lambda: labelled.read_mask(labelled.samples("bsd")[0]), "a_crop_2.json", "labelme")
    (tmp_path / "data/a_crop_2.jpg").unlink()
    refused(lambda: at("bsd", tmp_path).samples("bsd"), "a_crop_2.json", "without an image")


def voc(path, boxes):
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>3_yueyawan</name><truncated>0</truncated><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    path.write_text(f"<annotation><filename>x.jpg</filename>{objects}</annotation>")


def test_gc10_boxes_are_masks_and_say_so(tmp_path):
    mini = Miniature(tmp_path)
    mini.anomalous("3/img_01.jpg", "gc10", "crescent_gap", mode="L")
    mini.anomalous("10/img_02.jpg", "gc10", "waist_folding", mode="L")
    voc(tmp_path / "lable/img_01.xml", [(1, 1, 4, 2), (11, 9, 30, 30)])
    voc(tmp_path / "lable/img_02.xml", [(3, 3, 3, 3)])
    region = np.zeros(SIZE[::-1], bool)
    region[0:2, 0:4] = region[8:9, 10:12] = True
    mini.images["3/img_01.jpg"].mask = region
    mini.images["10/img_02.jpg"].mask = np.eye(1, 9 * 12, 2 * 12 + 2, dtype=bool).reshape(9, 12)
    (tmp_path / "1").mkdir()
    data = at("gc10", tmp_path)
    assert_loaded(data, mini)
    assert data.protocol == "boxes, all anomalous"
    write_image(tmp_path / "9/img_01.jpg")
    twice = at("gc10", tmp_path)
    assert "used once" in messages(twice, "warning")["9/img_01.jpg"]
    assert len(twice.samples("gc10")) == 2
    (tmp_path / "lable/img_02.xml").write_text("<annotation>")
    refused(lambda: data.read_mask(data.samples("gc10")[0]), "img_02.xml", "Pascal VOC")
    voc(tmp_path / "lable/lost.xml", [])
    refused(lambda: at("gc10", tmp_path).samples("gc10"), "lost.xml", "without an image")


def test_msd_split_file_and_palette_masks(tmp_path):
    mini = Miniature(tmp_path)
    for stem in ("Oil_0001", "Scr_0002"):
        mask = f"SegmentationClass/{stem}.png"
        mini.anomalous(f"JPEGImages/{stem}.jpg", "msd", "defect", mask, write=write_mask_palette)
    mini.normal("JPEGImages/good_1.jpg", "msd")
    write_mask_palette(tmp_path / "SegmentationClass/good_1.png", np.zeros(SIZE[::-1], bool))
    data = at("msd", tmp_path, protocol="all_images")
    assert_loaded(data, mini)
    refused(lambda: at("msd", tmp_path).categories, "test.txt", "protocol=all_images")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("Scr_0002\ngood_1\n")
    mini.images.pop("JPEGImages/Oil_0001.jpg")
    assert_loaded(at("msd", tmp_path), mini)
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("Scr_0003\n")
    refused(lambda: at("msd", tmp_path).samples("msd"), "Scr_0003", "no such image")


def test_crackforest_mat_files(tmp_path):
    mini = Miniature(tmp_path)
    for number in (1, 2):
        name = f"image/{number:03}.jpg"
        mini.anomalous(name, "road", "crack")
        region = random_region(SIZE, name)
        truth = np.zeros((1, 1), dtype=[("Segmentation", "O"), ("Boundaries", "O")])
        truth[0, 0] = (np.where(region, 1 + number, 1).astype(np.uint16), region)
        (tmp_path / "groundTruth").mkdir(exist_ok=True)
        savemat(tmp_path / f"groundTruth/{number:03}.mat", {"groundTruth": truth})
        mini.images[name].mask = region
    data = at("crackforest", tmp_path)
    assert_loaded(data, mini)
    assert data.protocol == "standard, all anomalous"
    (tmp_path / "groundTruth/001.mat").write_bytes(b"MATLAB")
    refused(lambda: data.read_mask(data.samples("road")[0]), "001.mat", "CrackForest")
    savemat(tmp_path / "groundTruth/001.mat", {"groundTruth": np.zeros((3, 3))})
    refused(lambda: data.read_mask(data.samples("road")[0]), "001.mat")
    (tmp_path / "groundTruth/002.mat").rename(tmp_path / "groundTruth/003.mat")
    refused(lambda: at("crackforest", tmp_path).samples("road"), "003.mat", "without an image")


def test_magnetic_tile_masks_lie_beside_their_images(tmp_path):
    mini = Miniature(tmp_path)
    for number in (1, 2):
        mini.normal(f"MT_Free/Imgs/exp1_num_{number}.jpg", "magnetic_tile", mode="L")
        write_mask(tmp_path / f"MT_Free/Imgs/exp1_num_{number}.png", np.zeros(SIZE[::-1], bool))
        stem = f"MT_Blowhole/Imgs/exp1_num_{number}"
        mini.anomalous(f"{stem}.jpg", "magnetic_tile", "blowhole", f"{stem}.png", mode="L")
    mini.anomalous("MT_Uneven/Imgs/exp3.jpg", "magnetic_tile", "uneven", mode="L")
    write_mask(tmp_path / "MT_Uneven/Imgs/exp3.png", np.zeros(SIZE[::-1], bool))
    mini.images["MT_Uneven/Imgs/exp3.jpg"].mask = np.zeros(SIZE[::-1], bool)
    (tmp_path / "README.md").write_text("")
    data = at("magnetic_tile", tmp_path)
    assert_loaded(data, mini)
    assert data.problems() == []
    (tmp_path / "MT_Blowhole/Imgs/exp1_num_1.jpg").unlink()
    refused(lambda: at("magnetic_tile", tmp_path).samples("magnetic_tile"), "exp1_num_1.png", "without an image")

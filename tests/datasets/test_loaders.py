"""MVTec-style, VisA and meta.json loaders against miniature roots written from the published layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import mvtec_ad, visa
from tests.helpers.loader_checks import assert_loaded, messages, refused
from tests.helpers.miniatures import (
    Miniature,
    random_region,
    write_image,
    write_mask,
    write_mask_class_numbers,
    write_mask_colour,
    write_mask_palette,
)
from zsad_bench.datasets.meta_json import MetaJson
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.datasets.visa import VisA

# --- MVTec style


def test_mvtec_ad(tmp_path):
    mini = mvtec_ad(tmp_path)
    data = MVTec(root=tmp_path, name="mvtec")
    assert_loaded(data, mini)
    assert data.problems() == []
    assert len(data.samples("metal_nut", "train")) == 3


def test_the_order_is_that_of_the_ids_and_a_stem_is_no_id(tmp_path):
    mvtec_ad(tmp_path)
    ids = [s.image_id for s in MVTec(root=tmp_path, name="mvtec").samples("metal_nut")]
    assert ids[:2] == ["metal_nut/test/bent/000.png", "metal_nut/test/bent/001.png"]
    assert len(set(ids)) == 6


def test_btad_ok_and_ko_mixed_extensions_and_masks_of_normals(tmp_path):
    mini = Miniature(tmp_path)
    mini.normal("01/train/ok/0000.bmp", "01", "train")
    mini.normal("01/test/ok/0000.bmp", "01")
    mini.anomalous("01/test/ko/0001.bmp", "01", "ko", "01/ground_truth/ko/0001.png")
    mini.normal("03/test/ok/0000.bmp", "03")
    mini.anomalous("03/test/ko/0001.bmp", "03", "ko", "03/ground_truth/ko/0001.bmp")
    write_mask(tmp_path / "03/ground_truth/ok/0000.png", np.zeros((9, 12), bool))
    data = MVTec(root=tmp_path, name="btad", categories=["01", "03"])
    assert_loaded(data, mini)
    assert data.problems() == []


def test_converted_visa_overlapping_numbers_upper_case_extension_and_colour_masks(tmp_path):
    mini = Miniature(tmp_path)
    for number in range(3):
        mini.normal(f"pcb1/test/good/{number:03}.JPG", "pcb1")
        mask = f"pcb1/ground_truth/bad/{number:03}.png"
        mini.anomalous(f"pcb1/test/bad/{number:03}.JPG", "pcb1", "bad", mask, write=write_mask_colour)
    assert_loaded(MVTec(root=tmp_path, name="visa"), mini)


def test_2cls_conversion_keeps_masks_of_train_and_test_apart(tmp_path):
    mini = Miniature(tmp_path)
    for split in ("train", "test"):
        mini.normal(f"fryum/{split}/good/000.JPG", "fryum", split)
        mini.anomalous(f"fryum/{split}/bad/001.JPG", "fryum", "bad", f"fryum/ground_truth/{split}/bad/001.png", split)
    data = MVTec(root=tmp_path, name="visa")
    assert_loaded(data, mini)
    assert data.problems() == []


@pytest.mark.parametrize(
    "mask",
    ["a b_mask.png", "a b.png", "A B_MASK.PNG", "a b_label.bmp", "a b_GT.png", "a b_Segmentation.png", "a b/000.png"],
)
@pytest.mark.parametrize("image", ["a b.png", "a b.JPG", "a b.tif"])
def test_every_mask_name_of_the_layouts(tmp_path, image, mask):
    mini = Miniature(tmp_path)
    mini.anomalous(f"x/test/Two Words/{image}", "x", "Two Words", f"x/ground_truth/Two Words/{mask}")
    data = MVTec(root=tmp_path, name="x")
    assert_loaded(data, mini)
    assert messages(data, "error") == {}


@pytest.mark.parametrize("write", [write_mask_class_numbers, write_mask_palette, write_mask_colour])
def test_mask_files_of_every_kind(tmp_path, write):
    mini = Miniature(tmp_path)
    mini.anomalous("x/test/hole/1.png", "x", "hole", "x/ground_truth/hole/1.png", write=write)
    assert_loaded(MVTec(root=tmp_path, name="x"), mini)


def test_accents_pair_in_both_unicode_forms(tmp_path):
    write_image(tmp_path / "x/test/hole/café.png")
    write_mask(tmp_path / "x/ground_truth/hole/cafe\u0301_mask.png", random_region((12, 9), 0))
    assert MVTec(root=tmp_path, name="x").samples("x")[0].mask_path is not None


def test_one_missing_and_one_extra_mask_never_shift_the_pairs(tmp_path):
    mini = Miniature(tmp_path)
    for number in range(6):
        mini.anomalous(f"x/test/hole/{number}.png", "x", "hole", f"x/ground_truth/hole/{number}_mask.png")
    (tmp_path / "x/ground_truth/hole/1_mask.png").rename(tmp_path / "x/ground_truth/hole/0extra_mask.png")
    data = MVTec(root=tmp_path, name="x")
    assert "without an image" in messages(data, "error")["x/ground_truth/hole/0extra_mask.png"]
    assert "without a mask" in messages(data, "warning")["x/test/hole/1.png"]
    for sample in data.listed("x"):
        written = mini.images[sample.image_id].mask
        assert sample.image_id == "x/test/hole/1.png" or np.array_equal(data.read_mask(sample), written)
    refused(lambda: data.samples("x"), "0extra_mask.png", "data check")


def test_ambiguous_masks_are_refused_not_chosen(tmp_path):
    mini = mvtec_ad(tmp_path)
    write_mask(tmp_path / "grid/ground_truth/glue/000.png", mini.images["grid/test/glue/000.png"].mask)
    data = MVTec(root=tmp_path, name="x")
    assert "several masks fit" in messages(data, "error")["grid/test/glue/000.png"]
    refused(lambda: data.samples("grid"), "000.png", "000_mask.png", "keep one")
    assert len(data.samples("metal_nut")) == 6  # other categories are not held up


def test_a_mask_of_two_images_is_refused(tmp_path):
    for name in ("1.png", "1.jpg"):
        write_image(tmp_path / "x/test/hole" / name)
    write_mask(tmp_path / "x/ground_truth/hole/1_mask.png", random_region((12, 9), 0))
    refused(lambda: MVTec(root=tmp_path, name="x").samples("x"), "1_mask.png", "1.jpg", "1.png")


def test_names_that_differ_in_case_only_keep_their_own_masks(tmp_path):
    mini = Miniature(tmp_path)
    for stem in ("a", "A"):
        mini.anomalous(f"x/test/hole/{stem}.png", "x", "hole", f"x/ground_truth/hole/{stem}_mask.png")
    assert_loaded(MVTec(root=tmp_path, name="x"), mini)


def test_several_mask_files_of_one_image_are_refused(tmp_path):
    write_image(tmp_path / "x/test/logical/000.png")
    for number in range(2):
        write_mask(tmp_path / f"x/ground_truth/logical/000/{number:03}.png", random_region((12, 9), number))
    refused(lambda: MVTec(root=tmp_path, name="x").samples("x"), "several masks fit")


def test_images_that_lie_at_the_wrong_level_are_errors(tmp_path):
    mini = mvtec_ad(tmp_path)
    write_image(tmp_path / "grid/test/loose.png")
    write_image(tmp_path / "metal_nut/test/bent/more/1.png")
    data = MVTec(root=tmp_path, name="x")
    assert set(messages(data, "error")) == {"grid/test/loose.png", "metal_nut/test/bent/more"}
    refused(lambda: data.samples("grid"), "loose.png")
    assert mini.images.keys() >= {s.image_id for s in data.listed("metal_nut")}


def test_other_files_and_folders_are_warned_about_and_ignored(tmp_path):
    mini = mvtec_ad(tmp_path)
    (tmp_path / "grid/test/glue/notes.txt").write_text("")
    (tmp_path / "grid/ground_truth/glue/000.npy").write_text("")
    (tmp_path / "extra").mkdir()
    data = MVTec(root=tmp_path, name="x")
    assert_loaded(data, mini)
    assert set(messages(data)) == {"grid/test/glue/notes.txt", "grid/ground_truth/glue/000.npy", "extra"}
    assert messages(data, "error") == {}


def test_empty_all_anomalous_and_all_normal_categories(tmp_path):
    (tmp_path / "empty/test/good").mkdir(parents=True)
    write_image(tmp_path / "road/test/crack/1.png")
    write_image(tmp_path / "fine/test/good/1.png")
    data = MVTec(root=tmp_path, name="x")
    assert "no test image" in messages(data, "error")["empty"]
    refused(lambda: data.samples("empty"), "empty", "no test image", tmp_path)
    road = [p.message for p in data.problems() if p.category == "road"]
    assert len(road) == 2
    assert any("image metrics will be undefined" in m for m in road)
    assert any("none of the 1 anomalous images has a mask" in m for m in road)
    assert "all test images are normal" in messages(data)["fine"]
    assert [s.label for s in data.samples("road")] == [1]


def test_folder_names_in_any_case_but_not_twice(tmp_path):
    mini = Miniature(tmp_path)
    mini.normal("x/Test/Good/1.PNG", "x")
    mini.anomalous("x/Test/Hole/1.PNG", "x", "Hole", "x/Ground_Truth/hole/1_Mask.PNG")
    assert_loaded(MVTec(root=tmp_path, name="x"), mini)
    write_image(tmp_path / "x/test/good/2.png")
    refused(lambda: MVTec(root=tmp_path, name="x").categories, "Test and test")


def test_a_root_of_another_level_or_layout_gets_advice(tmp_path):
    mvtec_ad(tmp_path / "a/mvtec")
    (tmp_path / "a/other").mkdir()
    refused(lambda: MVTec(root=tmp_path / "a", name="x").categories, f"dataset.root={tmp_path / 'a/mvtec'}")
    refused(lambda: MVTec(root=tmp_path / "a/mvtec/grid", name="x").categories, "dataset=folder", tmp_path / "a/mvtec")
    visa(tmp_path / "visa")
    refused(lambda: MVTec(root=tmp_path / "visa", name="x").categories, "dataset=visa")
    (tmp_path / "nothing").mkdir()
    refused(lambda: MVTec(root=tmp_path / "nothing", name="x").categories, tmp_path / "nothing", "<category>/test/")


def test_a_root_that_holds_the_dataset_in_a_single_folder(tmp_path):
    mini = mvtec_ad(tmp_path / "a/b/mvtec_anomaly_detection")
    for name in (".DS_Store", "__MACOSX", "readme.txt"):
        (tmp_path / "a" / name).write_text("")
    data = MVTec(root=tmp_path / "a", name="mvtec")
    assert_loaded(data, mini)
    assert data.root == mini.root


def test_validation_images_join_train(tmp_path):
    mini = Miniature(tmp_path)
    mini.normal("box/train/good/0.png", "box", "train")
    mini.normal("box/validation/good/1.png", "box", "train")
    mini.normal("box/test/good/0.png", "box")
    mini.anomalous("box/test/bent/0.png", "box", "bent", "box/ground_truth/bent/0_mask.png")
    data = MVTec(root=tmp_path, name="x")
    assert_loaded(data, mini)
    assert data.problems() == []


# --- VisA


@pytest.mark.parametrize("anno", [True, False])
def test_visa(tmp_path, anno):
    mini = visa(tmp_path, anno)
    data = VisA(root=tmp_path, name="visa")
    assert_loaded(data, mini)
    assert data.problems() == []
    for path in tmp_path.glob("*/Data/Masks/Anomaly/*.png"):
        assert np.asarray(Image.open(path)).max() <= 9


def test_visa_without_its_split_file_says_where_it_is(tmp_path):
    visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").unlink()
    data = VisA(root=tmp_path, name="visa", page="github.com/amazon-science/spot-diff")
    refused(lambda: data.categories, "1cls.csv", "split file is missing", "github.com/amazon-science/spot-diff")


@pytest.mark.parametrize("level", ["", "1cls"])
def test_converted_visa_is_recognised(tmp_path, level):
    write_image(tmp_path / level / "candle/test/good/0000.JPG")
    data = VisA(root=tmp_path, name="visa")
    refused(lambda: data.categories, f"dataset=visa_converted dataset.root={tmp_path / level}")


def test_visa_one_folder_deeper_and_no_visa_at_all(tmp_path):
    mini = visa(tmp_path / "up/VisA")
    assert_loaded(VisA(root=tmp_path / "up", name="visa"), mini)
    (tmp_path / "up/other").mkdir()
    refused(lambda: VisA(root=tmp_path / "up", name="visa").categories, f"dataset.root={tmp_path / 'up/VisA'}")
    (tmp_path / "none").mkdir()
    refused(lambda: VisA(root=tmp_path / "none", name="visa").categories, "no VisA data found")


def test_visa_missing_and_extra_files(tmp_path):
    visa(tmp_path)
    (tmp_path / "candle/Data/Images/Normal/0002.JPG").unlink()
    (tmp_path / "candle/Data/Masks/Anomaly/001.png").unlink()
    write_image(tmp_path / "capsules/Data/Images/Normal/999.JPG")
    (tmp_path / "capsules/Data/Images/Anomaly/note.txt").write_text("")
    data = VisA(root=tmp_path, name="visa")
    assert set(messages(data, "error")) == {
        "candle/Data/Images/Normal/0002.JPG",
        "candle/Data/Masks/Anomaly/001.png",
    }
    assert "not listed" in messages(data, "warning")["capsules/Data/Images/Normal/999.JPG"]
    assert "note.txt" in " ".join(messages(data, "warning"))
    refused(lambda: data.samples("candle"), "0002.JPG", "does not exist")
    assert len(data.samples("capsules")) == 5


def test_visa_with_some_categories_only(tmp_path):
    visa(tmp_path)
    (tmp_path / "capsules").rename(tmp_path / ".capsules")
    refused(lambda: VisA(root=tmp_path, name="visa").samples("capsules"), "capsules", "folder is missing")
    only = VisA(root=tmp_path, name="visa", categories=["candle"])
    assert only.problems() == []
    assert len(only.samples("candle")) == 5


def test_visa_extension_in_another_case_on_disk(tmp_path):
    visa(tmp_path)
    for path in tmp_path.glob("*/Data/Images/*/*.JPG"):
        path.rename(path.with_suffix(".jpg"))
    data = VisA(root=tmp_path, name="visa")
    assert data.problems() == []
    assert data.samples("candle")[0].image_id == "candle/Data/Images/Anomaly/000.jpg"
    assert data.samples("candle")[0].defect_type == "bubble"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column object"),
        ("object,split,label,image\n", "no column mask"),
        ("object,split,label,image,mask\ncandle,test\n", "line 2"),
        ("object,split,label,image,mask\ncandle,test,weird,a.JPG,\n", "line 2"),
        ("object,split,label,image,mask\n,test,normal,a.JPG,\n", "line 2"),
    ],
)
def test_visa_damaged_split_file(tmp_path, text, reason):
    visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").write_text(text)
    refused(lambda: VisA(root=tmp_path, name="visa").categories, "1cls.csv", reason)


def test_visa_binary_split_file_and_odd_annotations(tmp_path):
    visa(tmp_path)
    (tmp_path / "candle/image_anno.csv").write_text("a,b\n1,2\n")
    data = VisA(root=tmp_path, name="visa")
    assert "no defect types" in messages(data, "warning")["candle/image_anno.csv"]
    (tmp_path / "split_csv/1cls.csv").write_bytes(b"\xff\xfe\x00\x81")
    refused(lambda: VisA(root=tmp_path, name="visa").categories, "1cls.csv", "cannot be read")


# --- meta.json


def entry(mini, name, mask="", root=""):
    written = mini.images[name]
    return {
        "img_path": root + name,
        "mask_path": root + mask if mask else "",
        "cls_name": written.category,
        "specie_name": written.defect_type,
        "anomaly": written.label,
    }


def write_meta(root, content):
    (root / "meta.json").write_text(json.dumps(content))


def test_meta_json_with_capital_keys_validation_spaces_and_missing_categories(tmp_path):
    mini = Miniature(tmp_path)
    category = "electrical commutators"
    mini.normal("kos/1 a.jpg", category, "train")
    mini.normal("kos/2.jpg", category, "train")
    mini.normal("kos/3.jpg", category)
    mini.anomalous("kos/4.jpg", category, "crack", "kos/4_label.bmp")
    mini.anomalous("other/5.jpg", "other", "anomaly")
    write_meta(
        tmp_path,
        {
            "Train": {category: [entry(mini, "kos/1 a.jpg")]},
            "validation": {category: [entry(mini, "kos/2.jpg")]},
            "Test": {
                category: [entry(mini, "kos/4.jpg", "kos/4_label.bmp"), entry(mini, "kos/3.jpg", "kos/none.bmp")],
                "other": [{"img_path": "other/5.jpg", "anomaly": 1, "specie_name": ""}],
            },
        },
    )
    data = MetaJson(root=tmp_path, name="x")
    assert_loaded(data, mini)
    assert [p.category for p in data.problems()] == ["other", "other"]  # no mask, all anomalous


@pytest.mark.parametrize("prefix", ["{root}/", "/home/author/data/Brain/", "./data/brain/", "D:\\data\\Brain\\"])
def test_meta_json_with_paths_of_another_machine(tmp_path, prefix):
    root = tmp_path / "Brain"
    mini = Miniature(root)
    mini.normal("no/Brain/1.png", "brain")
    mini.anomalous("yes/1.png", "brain", "yes", "masks/1.png")
    prefix = prefix.format(root=root)
    test = [entry(mini, "no/Brain/1.png", root=prefix), entry(mini, "yes/1.png", "masks/1.png", prefix)]
    if "\\" in prefix:
        test = [{k: v.replace("/", "\\") if isinstance(v, str) else v for k, v in e.items()} for e in test]
    write_meta(root, {"train": {}, "test": {"brain": test}})
    assert_loaded(MetaJson(root=root, name="x"), mini)


def test_meta_json_with_images_outside_the_root(tmp_path):
    write_image(tmp_path / "elsewhere/1.png")
    (tmp_path / "root").mkdir()
    write_meta(tmp_path / "root", {"test": {"x": [{"img_path": str(tmp_path / "elsewhere/1.png"), "anomaly": 0}]}})
    assert MetaJson(root=tmp_path / "root", name="x").samples("x")[0].image_id == "../elsewhere/1.png"


def test_meta_json_missing_files_repeats_and_leaks(tmp_path):
    mini = Miniature(tmp_path)
    mini.normal("1.png", "x")
    mini.anomalous("2.png", "x", "hole")
    one, two = entry(mini, "1.png"), entry(mini, "2.png", "gone_mask.png")
    write_meta(tmp_path, {"train": {"x": [one]}, "test": {"x": [one, two, {**one, "img_path": "gone.png"}]}, "odd": {}})
    data = MetaJson(root=tmp_path, name="x")
    assert {"gone.png", "gone_mask.png"} <= set(messages(data, "error"))
    assert "under train and under test" in messages(data, "warning")["1.png"]
    assert "'odd'" in messages(data, "warning")["meta.json"]
    refused(lambda: data.samples("x"), "gone_mask.png", "does not exist")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "no category"),
        ('{"test": []}', "key 'test'"),
        ('{"test": {"x": {}}}', "list of images"),
        ('{"test": {"x": [1]}}', "entry 0"),
        ('{"test": {"x": [{"img_path": "1.png"}]}}', "anomaly is None"),
        ('{"test": {"x": [{"img_path": "1.png", "anomaly": [0]}]}}', "anomaly is [0]"),
        ('{"test": {"x": [{"img_path": "1.png", "anomaly": 0.5}]}}', "anomaly is 0.5"),
        ('{"test": {"x": [{"img_path": 5, "anomaly": 0}]}}', "img_path"),
        ('{"test": {"x": [{"anomaly": 0}]}}', "img_path is missing"),
        ('{"test": {"x": [{"img_path": "1.png", "anomaly": 1, "mask_path": [1]}]}}', "mask_path"),
        ("[" * 100000, "JSON"),
    ],
)
def test_meta_json_damaged(tmp_path, content, reason):
    write_image(tmp_path / "1.png")
    (tmp_path / "meta.json").write_text(content)
    refused(lambda: MetaJson(root=tmp_path, name="x").categories, "meta.json", reason)


def test_meta_json_missing_binary_and_null_bytes(tmp_path):
    refused(lambda: MetaJson(root=tmp_path, name="x").categories, "meta.json", "missing")
    (tmp_path / "meta.json").write_bytes(b"\xff\x00\x81")
    refused(lambda: MetaJson(root=tmp_path, name="x").categories, "meta.json", "cannot be read")
    write_meta(tmp_path, {"test": {"x": [{"img_path": "a\0b/c.png", "anomaly": 0}]}})
    refused(lambda: MetaJson(root=tmp_path, name="x").samples("x"), "does not exist")

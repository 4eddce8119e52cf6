"""dataset=auto: every layout is recognised, says so, and loads the same as when it is chosen by name."""

from __future__ import annotations

import pytest

from tests.helpers.layouts import ad2, dagm, elpv, ksdd, loco, mvtec_ad, real_iad, visa
from tests.helpers.loader_checks import assert_loaded, refused
from tests.helpers.miniatures import Miniature, write_image
from zsad_bench.engine.dataset_card import cards, dataset_at


def write_pair(image, mask):
    def write(root):
        write_image(root / image)
        write_image(root / mask, mode="1")

    return write


def write_files(*names):
    def write(root):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write_image(root / name) if name.endswith(("g", "G", "p")) else (root / name).write_text("id, hemorrhage\n")

    return write


def mvtec_style(key, *kinds):
    def write(root):
        for category in cards()[key].categories:
            for kind in kinds:
                write_image(root / category / "test" / kind / "000.png")

    return write


RAILS = "Type-I RSDDs dataset"
LAYOUTS = {
    "visa": visa,
    "real_iad": real_iad,
    "mvtec_ad2": ad2,
    "dagm": dagm,
    "ksdd": ksdd,
    "ksdd2": write_pair("test/20000.png", "test/20000_GT.png"),
    "rsdd": write_pair(f"{RAILS}/Rail surface images/1.jpg", f"{RAILS}/GroundTruth/1.png"),
    "gc10": write_files("1/a.jpg", "lable/a.xml"),
    "bsd": write_files("data/a.jpg", "label/a.json"),
    "msd": write_files("JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/Segmentation/test.txt"),
    "crackforest": write_files("image/001.jpg", "groundTruth/001.mat"),
    "magnetic_tile": write_files("MT_Free/Imgs/a.jpg", "MT_Break/Imgs/b.jpg"),
    "neu_seg": write_pair("images/test/1.jpg", "annotations/test/1.png"),
    "elpv": elpv,
    "headct": write_files("head_ct/000.png", "labels.csv"),
    "isic": write_pair("ISBI2016_ISIC_Part1_Test_Data/1.jpg", "ISBI2016_ISIC_Part1_Test_GroundTruth/1.png"),
    "tn3k": write_pair("test-image/1.jpg", "test-mask/1.png"),
    "deepcrack": write_pair("test_img/1.jpg", "test_lab/1.png"),
    "mvtec": mvtec_style("mvtec", "good", "hole"),
    "btad": mvtec_style("btad", "ok", "ko"),
    "mpdd": mvtec_style("mpdd", "good", "hole"),
    "dtd_synthetic": mvtec_style("dtd_synthetic", "good", "bad"),
    "visa_converted": mvtec_style("visa_converted", "good", "bad"),
}


@pytest.mark.parametrize("key", LAYOUTS)
@pytest.mark.parametrize("deeper", ["", "unpacked/once/more"])
def test_published_layouts(tmp_path, capsys, key, deeper):
    LAYOUTS[key](tmp_path / deeper)
    found, named = dataset_at("auto", tmp_path), dataset_at(key, tmp_path)
    assert f"as with dataset={key}\n" in capsys.readouterr().err
    assert (type(found), found.name, found.title) == (type(named), named.name, named.title)
    assert found.index == named.index
    assert found.protocol == named.protocol
    assert all(found.class_name(c) == named.class_name(c) for c in named.categories)
    assert found.expected == named.expected


def test_other_categories_in_mvtec_style_get_the_name_of_the_folder(tmp_path, capsys):
    mini = mvtec_ad(tmp_path / "my parts")
    data = dataset_at("auto", tmp_path / "my parts")
    assert_loaded(data, mini)
    assert (data.name, data.expected, data.page) == ("my parts", {}, "")
    assert "taken for a folder of this layout" in capsys.readouterr().err


def test_a_single_category_of_a_benchmark_does_not_pass_for_it(tmp_path):
    write_image(tmp_path / "mine/screw/test/good/1.png")
    assert dataset_at("auto", tmp_path / "mine").name == "mine"


def test_loco_style_with_other_categories(tmp_path):
    mini = loco(tmp_path / "boxes")
    (tmp_path / "boxes/pushpins").rename(tmp_path / "boxes/pins")
    data = dataset_at("auto", tmp_path / "boxes")
    sample = next(s for s in data.samples("pins") if s.defect_type == "logical_anomalies")
    mask = mini.images["pushpins/test/logical_anomalies/000.png"].mask
    assert (data.read_mask(sample) == mask).all()
    assert data.name == "boxes"


def test_meta_json_comes_first(tmp_path):
    mvtec_ad(tmp_path / "mvtec")
    (tmp_path / "mvtec/meta.json").write_text(
        '{"test": {"nut": [{"img_path": "grid/test/good/000.png", "mask_path": "", "anomaly": 0}]}}'
    )
    data = dataset_at("auto", tmp_path / "mvtec")
    assert (data.categories, data.name) == (("nut",), "mvtec-copy")  # not the name of the benchmark


def test_no_and_yes_get_the_name_of_the_folder(tmp_path):
    mini = Miniature(tmp_path / "scans")
    mini.normal("no/1.jpg", "scans")
    mini.anomalous("yes/1.jpg", "scans", "tumor")
    write_image(tmp_path / "scans/brain_tumor_dataset/yes/1.jpg")
    assert_loaded(dataset_at("auto", tmp_path / "scans"), mini)


def test_images_and_masks_and_plain_folders_are_the_users_own(tmp_path):
    mini = Miniature(tmp_path / "polyps")
    mini.anomalous("images/1.jpg", "polyps", "anomaly", "masks/1.png")
    assert_loaded(dataset_at("auto", tmp_path / "polyps"), mini)
    mini = Miniature(tmp_path / "mtoc")
    mini.normal("train/good/1.jpg", "mtoc", "train")
    mini.normal("test/good/1.jpg", "mtoc")
    mini.anomalous("test/bad/1.jpg", "mtoc", "bad", "ground_truth/bad/1.png")
    assert_loaded(dataset_at("mtoc", tmp_path / "mtoc"), mini)
    data = dataset_at("auto", tmp_path / "mtoc")
    assert_loaded(data, mini)
    assert data.name == "mtoc-copy"


def test_options_replace_those_of_the_dataset(tmp_path):
    dagm(tmp_path)
    names = {"Class1": "cloth"}
    data = dataset_at("auto", tmp_path, protocol="balanced", name="mine", categories=["Class1"], class_names=names)
    assert (data.protocol, data.name, data.categories) == ("balanced", "mine", ("Class1",))
    assert (data.class_name("Class1"), data.class_name("Class10")) == ("cloth", "textured surface")
    refused(lambda: dataset_at("auto", tmp_path, protocol="strips"), "dataset.protocol=strips")


def test_missing_and_empty_folders(tmp_path):
    refused(lambda: dataset_at("auto", tmp_path / "gone"), tmp_path / "gone", "does not exist")
    refused(lambda: dataset_at("auto", tmp_path).categories, tmp_path, "no image found")

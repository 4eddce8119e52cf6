"""``zsad-bench data check``: counts, and that every planted problem is reported once, with the right severity."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console

from tests.helpers.layouts import ksdd, loco, mvtec_ad, visa
from tests.helpers.miniatures import Miniature, random_region, write_image, write_mask, write_mask_palette
from zsad_bench.cli.data.check import check, inspect
from zsad_bench.core.errors import UserError
from zsad_bench.datasets.folder import Folder
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.datasets.visa import VisA
from zsad_bench.engine.dataset_card import cards, dataset_at

CONF = Path(__file__).resolve().parents[3] / "conf" / "dataset"
PUBLISHED = sorted(set(cards()) - {"demo", "auto", "elpv"})


def run(dataset):
    """(exit code, printed text, problems as path -> severity)"""
    console = Console(file=io.StringIO(), width=200)
    code = check(dataset, console)
    _, problems = inspect(dataset, Console(file=io.StringIO()))
    return code, console.file.getvalue(), {p.path: p.severity for p in problems}


def test_a_clean_dataset(tmp_path):
    mvtec_ad(tmp_path)
    code, text, problems = run(MVTec(root=tmp_path, name="mvtec", class_names={"metal_nut": "metal nut"}))
    assert (code, problems) == (0, {})
    assert "0 errors, 0 warnings" in text
    row = next(line for line in text.splitlines() if "metal_nut" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "metal_nut",
        "metal nut",
        "3",
        "3",
        "3",
        "0",
        "3",
        "12 x 9",
    ]
    assert "7-20 x 3-7" in text


def test_every_problem_is_reported(tmp_path):
    mini = mvtec_ad(tmp_path)
    bent = tmp_path / "metal_nut/test/bent"
    masks = tmp_path / "metal_nut/ground_truth/bent"
    (bent / "000.png").write_bytes((bent / "000.png").read_bytes()[:80])
    write_mask(masks / "001_mask.png", random_region((5, 5), 0))
    write_mask(masks / "002_mask.png", np.zeros((9, 12), bool))
    write_mask(masks / "odd_mask.png", random_region((12, 9), 0))
    write_image(bent / "003.png")
    (masks / "003.png").write_bytes(b"")
    write_image(bent / "004.png")
    mini.anomalous("metal_nut/test/bent/005.png", "metal_nut", "bent", "metal_nut/ground_truth/bent/005.png")
    write_mask_palette(masks / "005.png", random_region((12, 9), 0))
    (bent / "note.txt").write_text("")
    (tmp_path / "metal_nut/train/good/000.png").write_text("no image")
    code, text, problems = run(MVTec(root=tmp_path, name="mvtec"))
    assert code == 1
    assert problems == {
        "metal_nut/test/bent/000.png": "error",  # truncated
        "metal_nut/ground_truth/bent/001_mask.png": "error",  # another size
        "metal_nut/ground_truth/bent/002_mask.png": "warning",  # empty
        "metal_nut/ground_truth/bent/odd_mask.png": "error",  # no image
        "metal_nut/ground_truth/bent/003.png": "error",  # unreadable mask
        "metal_nut/test/bent/004.png": "warning",  # no mask
        "metal_nut/test/bent/note.txt": "warning",
        "metal_nut/train/good/000.png": "error",
    }
    assert "5 errors, 3 warnings" in text
    assert all(path in text for path in problems)


def test_copies_of_an_image_are_found_by_their_content(tmp_path):
    mvtec_ad(tmp_path)
    good = (tmp_path / "metal_nut/test/good/000.png").read_bytes()
    for name in ("test/good/009.png", "train/good/009.png", "test/bent/000.png"):
        (tmp_path / "metal_nut" / name).write_bytes(good)
    (tmp_path / "metal_nut/test/good/001.png").write_bytes((tmp_path / "grid/test/good/000.png").read_bytes())
    code, text, problems = run(MVTec(root=tmp_path, name="mvtec"))
    assert code == 1
    assert problems == {
        "metal_nut/test/bent/000.png": "error",  # another label than in train
        "metal_nut/test/good/000.png": "warning",  # train and test
        "metal_nut/test/good/009.png": "warning",
        "metal_nut/test/good/001.png": "warning",  # also in another category
    }
    assert "same content as metal_nut/train/good/009.png, which has another label" in text
    assert "test images must not be train images" in text
    assert "same content as grid/test/good/000.png; it counts twice" in text


def test_strips_of_one_file_are_no_copies_and_united_masks_are_read(tmp_path):
    ksdd(tmp_path / "ksdd")
    assert run(dataset_at("ksdd", tmp_path / "ksdd", protocol="strips"))[2] == {}
    loco(tmp_path / "loco")
    data = dataset_at("mvtec_loco", tmp_path / "loco", expected={})
    assert run(data)[2] == {}
    (tmp_path / "loco/pushpins/ground_truth/logical_anomalies/000/001.png").write_bytes(b"")
    assert run(data)[2] == {"pushpins/ground_truth/logical_anomalies/000": "error"}


def test_palette_masks_whose_background_is_not_black(tmp_path):
    mini = Miniature(tmp_path)
    mini.normal("good/1.png", "x")
    mini.anomalous("bad/1.png", "x", "bad", "masks/bad/1.png", write=write_mask_palette)
    assert run(Folder(root=tmp_path, category="x"))[2] == {}
    path = tmp_path / "masks/bad/1.png"
    image = Image.open(path)
    image.putpalette([255, 255, 255] + [0] * 765)
    image.save(path)
    assert run(Folder(root=tmp_path, category="x"))[2] == {"masks/bad/1.png": "warning"}


def test_unlabelled_images_and_names_with_brackets(tmp_path):
    write_image(tmp_path / "[red]a.png")
    (tmp_path / "[bold].txt").write_text("")
    code, text, problems = run(Folder(root=tmp_path, category="[blue]x"))
    assert (code, problems) == (0, {"[bold].txt": "warning"})
    assert "[blue]x" in text
    assert "[bold].txt" in text


def test_only_selected_categories_are_read(tmp_path):
    mvtec_ad(tmp_path)
    (tmp_path / "grid/test/glue/000.png").write_text("")
    assert run(MVTec(root=tmp_path, name="mvtec"))[0] == 1
    assert run(MVTec(root=tmp_path, name="mvtec", categories=["metal_nut"]))[0] == 0


def test_expected_counts(tmp_path):
    visa(tmp_path)
    whole = {"train_normal": 4, "test_normal": 4, "test_anomalous": 6}
    candle = {"train_normal": 2, "test_normal": 2, "test_anomalous": 3}

    def problems(expected, categories=None, class_names=None):
        names = {"candle": "candle"} if class_names is None else class_names
        options = {"expected": expected, "categories": categories, "class_names": names}
        return run(VisA(root=tmp_path, name="visa", **options))[2]

    assert problems({"total": {"categories": 2, **whole}, "candle": candle}) == {}
    assert problems({"candle": {**candle, "test_normal": 3}}) == {"candle": "error"}
    assert problems({"total": {"categories": 2, **whole, "test_normal": 5}}) == {".": "error"}
    assert problems({"total": {"categories": 3, **whole}}) == {".": "warning"}
    assert problems({"total": {"categories": 3}}, categories=["candle"]) == {}  # a selection has no totals
    assert problems({"total": {"categories": 3}}, class_names={}) == {}  # another dataset of this layout


def test_a_missing_root_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        check(MVTec(root=tmp_path / "gone", name="x"), Console(file=io.StringIO()))


# --- configurations


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_key_of_a_configuration_is_a_parameter(tmp_path, name, monkeypatch):
    from hydra.utils import instantiate

    monkeypatch.setenv("ZSAD_DATA", str(tmp_path))
    config = OmegaConf.load(CONF / f"{name}.yaml")
    if name == "folder":
        assert OmegaConf.is_missing(config, "root")
        config.root = str(tmp_path / "folder")
    data = instantiate(config)
    assert data.root.is_relative_to(tmp_path)
    with pytest.raises(UserError, match="ZSAD_DATA"):
        _ = data.categories
    assert data.title
    counts = {"categories", "train_normal", "train_anomalous", "test_normal", "test_anomalous", "unlabelled"}
    assert {key for expected in data.expected.values() for key in expected} <= counts
    assert all(category == "total" or data.has_class_name(category) for category in data.expected)


def test_visa_counts_in_the_configuration_add_up():
    expected = yaml.safe_load((CONF / "visa.yaml").read_text())["expected"]
    total = expected.pop("total")
    assert total["categories"] == len(expected) == 12
    for key in ("train_normal", "test_normal", "test_anomalous"):
        assert total[key] == sum(counts[key] for counts in expected.values())
    assert (total["train_normal"], total["test_normal"], total["test_anomalous"]) == (8659, 962, 1200)
    assert expected == {
        key: value
        for key, value in yaml.safe_load((CONF / "visa_converted.yaml").read_text())["expected"].items()
        if key != "total"
    }


def test_readable_names_and_selection_through_hydra(tmp_path):
    from hydra.utils import instantiate

    mvtec_ad(tmp_path)
    config = OmegaConf.merge(OmegaConf.load(CONF / "mvtec.yaml"), {"root": str(tmp_path), "categories": ["metal_nut"]})
    data = instantiate(config)
    assert data.categories == ("metal_nut",)
    assert data.class_name("metal_nut") == "metal nut"
    assert not data.is_texture("metal_nut")
    assert data.is_texture("grid")

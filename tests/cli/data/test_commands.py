"""``zsad-bench data list | check | show | export`` on small roots."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import dagm, ksdd, loco, mvtec_ad, visa
from tests.helpers.miniatures import Miniature, write_image, write_mask_palette
from zsad_bench.cli.data.commands import describe_folder
from zsad_bench.cli.data.picture import OUTLINE, TILE, chosen, write_sheet
from zsad_bench.cli.main import main
from zsad_bench.contract import SPLITS, Dataset
from zsad_bench.datasets.folder import Folder
from zsad_bench.datasets.meta_json import MetaJson
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.engine.dataset_card import dataset_at


def said(capsys, *words: object) -> tuple[int, str, str]:
    code = main(["data", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- list and check


def test_list_names_every_dataset_and_what_lies_in_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    visa(tmp_path / "old name")
    mvtec_ad(tmp_path / "my parts")
    write_image(tmp_path / "clinicdb/Original/1.tif")
    write_image(tmp_path / "clinicdb/Ground Truth/1.tif")
    (tmp_path / "empty").mkdir()
    code, out, err = said(capsys, "list", tmp_path)
    assert (code, err) == (0, "")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    rows = {row[0]: row[1:] for row in cells if row[0]}
    assert rows["dagm"] == ["DAGM 2007", "10", "original, balanced", "Data Licence DAGM", "from its page"]
    assert "folder" not in rows
    code, out, _ = said(capsys, "list")  # data/ does not exist here
    assert (code, "found" in out) == (0, False)
    assert describe_folder(tmp_path / "old name")[1:] == ("auto", "VisA", "2", "4", "10")
    assert describe_folder(tmp_path / "my parts")[1:] == ("auto", "my parts", "2", "3", "8")
    assert describe_folder(tmp_path / "clinicdb")[1:] == ("clinicdb", "CVC-ClinicDB", "1", "0", "1")
    assert "no image found" in describe_folder(tmp_path / "empty")[2]


@pytest.mark.parametrize("words", [("mvtec", "{0}"), ("dataset=mvtec", "dataset.root={0}")])
def test_check_takes_short_and_long_forms(tmp_path, capsys, words):
    mvtec_ad(tmp_path / "a b's")
    root = tmp_path / "a b's"
    escaped = str(root).replace("'", "\\'")
    words = [w.format(f"'{escaped}'" if "=" in w else root) for w in words]
    code, out, _ = said(capsys, "check", *words, "dataset.categories=[grid]")
    assert (code, "0 errors" in out, "metal_nut" in out) == (0, True, False)
    (root / "grid/test/glue/000.png").write_text("")
    assert said(capsys, "check", *words)[0] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek"], "choose list, check, show, export, download"),
        (["check"], "give DATASET"),
        (["check", "mvtek"], "did you mean"),
        (["check", "mvtec", "a", "b"], "give DATASET"),
        (["check", "mvtec", "--loud"], "--loud"),
        (["show", "mvtec", "--count", "none"], "--count none"),
        (["export", "mvtec"], "--to FOLDER"),
        (["download"], "give one dataset"),
        (["download", "vissa"], "did you mean visa"),
        (["list", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line(capsys, words, message):
    code, _, err = said(capsys, *words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_help_lists_the_verbs(capsys):
    code, out, _ = said(capsys, "--help")
    assert code == 0
    assert all(f"zsad-bench data {verb}" in out for verb in ("list", "check", "show", "export", "download"))


# --- show


def test_show_outlines_masks_and_survives_broken_files(tmp_path, capsys):
    mini = Miniature(tmp_path / "d")
    mini.normal("nut/test/good/1.png", "nut", size=(288, 144))
    mini.anomalous("nut/test/hole/1.png", "nut", "hole", size=(288, 144))
    mask = np.zeros((144, 288), np.uint8)
    mask[40:100, 100:200] = 255
    (tmp_path / "d/nut/ground_truth/hole").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "d/nut/ground_truth/hole/1_mask.png")
    write_image(tmp_path / "d/nut/test/hole/2.png")
    (tmp_path / "d/nut/test/hole/2.png").write_bytes(b"broken")
    target = tmp_path / "out/sheet.png"
    code, out, _ = said(capsys, "show", "mvtec", tmp_path / "d", "--output", target)
    assert (code, "3 images of 1 categories" in out) == (0, True)
    sheet = np.asarray(Image.open(target).convert("RGB"))
    tiles = [sheet[:, 6 + column * (TILE + 6) :][:, :TILE] for column in range(3)]
    outlined = [(tile == OUTLINE).all(axis=2) for tile in tiles]
    assert [bool(found.any()) for found in outlined] == [False, True, False]
    rows, columns = np.nonzero(outlined[1])
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (50 + 4, 30 + 4)  # half size, and two pixels around
    assert (tiles[2] == (255, 0, 0)).all(axis=2).any()


def test_the_sheet_shows_every_defect_type_and_normal_images(tmp_path):
    mini = Miniature(tmp_path)
    for number in range(9):
        mini.normal(f"nut/test/good/{number}.png", "nut")
        for kind in ("bent", "scratch", "hole"):
            mini.anomalous(f"nut/test/{kind}/{number}.png", "nut", kind)
    samples = MVTec(root=tmp_path, name="x").samples("nut")
    kinds = [sample.defect_type for sample in chosen(samples, 8)]
    assert sorted(kinds) == ["bent", "bent", "good", "good", "hole", "hole", "scratch", "scratch"]
    assert len(chosen(samples, 1)) == 1
    assert [s.defect_type for s in chosen([s for s in samples if s.label == 0], 4)] == ["good"] * 4
    assert len({s.image_id for s in chosen(samples, 100)}) == 36


def test_unlabelled_images_can_be_shown(tmp_path):
    mini = Miniature(tmp_path / "photos")
    mini.unlabelled("a.png", "photos")
    assert write_sheet(Folder(root=tmp_path / "photos"), tmp_path / "s.png") == 1


# --- export


def facts(dataset: Dataset):
    """Category, split, label and content of image and mask of every image, in no order."""
    return sorted(
        (s.category, split, s.label, np.asarray(dataset.read_image(s)).tobytes(), (dataset.read_mask(s)).tobytes())
        for category in dataset.categories
        for split in SPLITS
        for s in dataset.listed(category, split)
    )


def exported(dataset, out):
    """The two readings of an export, after a check that it has no problems."""
    found = MVTec(root=out, name="x"), MetaJson(root=out, name="x")
    for reading in found:
        assert [p for p in reading.problems() if p.severity == "error"] == []
    return found


LAYOUTS = [("mvtec", mvtec_ad, {}), ("visa", visa, {}), ("mvtec_loco", loco, {}), ("dagm", dagm, {})]
LAYOUTS += [("ksdd", ksdd, {"protocol": "strips"}), ("dagm", dagm, {"protocol": "balanced"})]


@pytest.mark.parametrize(("key", "write", "changes"), LAYOUTS)
def test_exports_hold_the_same_images_labels_and_masks(tmp_path, capsys, key, write, changes):
    write(tmp_path / "root")
    overrides = [f"dataset.{name}={value}" for name, value in changes.items()]
    code, out, _ = said(
        capsys, "export", key, tmp_path / "root", "--to", tmp_path / "out", "--format", "meta_json", *overrides
    )
    assert code == 0
    dataset = dataset_at(key, tmp_path / "root", **changes)
    for reading in exported(dataset, tmp_path / "out"):
        assert facts(reading) == facts(dataset)
    links = sum(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    files = sum(path.is_file() and not path.is_symlink() for path in (tmp_path / "out").rglob("*")) - 1  # meta.json
    assert f"{links} links, {files} files written" in out
    assert (files == 0) == (key in ("mvtec", "visa", "dagm"))


def test_masks_that_others_would_read_differently_are_written(tmp_path):
    mini = Miniature(tmp_path / "d")
    mini.normal("nut/test/good/1.png", "nut")
    mini.anomalous("nut/test/hole/1.png", "nut", "hole", "nut/ground_truth/hole/1.png", write=write_mask_palette)
    assert main(["data", "export", "mvtec", str(tmp_path / "d"), "--to", str(tmp_path / "out")]) == 0
    mask = Image.open(tmp_path / "out/nut/ground_truth/hole/1_mask.png")
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask) > 127, mini.images["nut/test/hole/1.png"].mask)
    assert not (tmp_path / "out/meta.json").exists()


def test_names_that_meet_and_odd_defect_types(tmp_path):
    entries = [
        {"img_path": f"{folder}/000.png", "mask_path": "", "anomaly": 1, "specie_name": "a/b"} for folder in ("x", "y")
    ]
    entries += [{"img_path": "z/000.jpg", "mask_path": "", "anomaly": 1, "specie_name": "good"}]
    for entry in entries:
        write_image(tmp_path / "d" / entry["img_path"])
    (tmp_path / "d/meta.json").write_text(json.dumps({"test": {"nut": entries}}))
    assert main(["data", "export", "meta_json", str(tmp_path / "d"), "--to", str(tmp_path / "out")]) == 0
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*g"))
    assert names == ["nut/test/a_b/000.png", "nut/test/a_b/y_000.png", "nut/test/defect/000.jpg"]


def test_exports_that_cannot_be_made(tmp_path, capsys):
    mvtec_ad(tmp_path / "d")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos/a.png")
    for words, message in {
        ("mvtec", tmp_path / "d", "--to", tmp_path / "full"): "not empty",
        ("mvtec", tmp_path / "d", "--to", tmp_path / "full/x/y"): "cannot be written",
        ("mvtec", tmp_path / "d", "--to", tmp_path / "out", "--format", "coco"): "choose mvtec or meta_json",
        ("folder", tmp_path / "photos", "--to", tmp_path / "out"): "images without a label",
    }.items():
        code, _, err = said(capsys, "export", *words)
        assert (code, message in err) == (2, True), err
        assert not (Path(tmp_path) / "out").exists()


def test_an_export_keeps_categories_and_defect_types_apart(tmp_path):
    names = {"nut": "a", "Nut": "b", "a/b": "c", "a_b": "d", "con": "e", "PCB 1": "f"}
    meta = {
        name: [{"img_path": f"{folder}/000.png", "mask_path": "", "anomaly": 1, "specie_name": kind}]
        for (name, folder), kind in zip(names.items(), ("x/y", "x_y", "Good", "good", "Bent", "bent"), strict=True)
    }
    for folder in names.values():
        write_image(tmp_path / "d" / folder / "000.png")
    (tmp_path / "d/meta.json").write_text(json.dumps({"test": meta}))
    assert main(["data", "export", "meta_json", str(tmp_path / "d"), "--to", str(tmp_path / "out")]) == 0
    places = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")]
    assert len({place.parts[0].casefold() for place in places}) == len(names)
    assert {"a_b", "PCB 1"} <= {place.parts[0] for place in places}
    kinds = {place.parts[2].casefold() for place in places}
    assert len(kinds) == 5  # the two that are called good are both "defect"
    assert "good" not in kinds

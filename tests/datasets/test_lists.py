"""Datasets that a list describes: Real-IAD (JSON), ELPV and HeadCT (labels.csv), VisA with its real counts."""

from __future__ import annotations

import pytest

from tests.helpers.layouts import elpv, real_iad
from tests.helpers.loader_checks import assert_loaded, messages, refused
from tests.helpers.miniatures import Miniature, write_image
from zsad_bench.engine.dataset_card import dataset_at as at

# --- Real-IAD


@pytest.mark.parametrize("lists", ["realiad_jsons/realiad_jsons", "realiad_jsons", ""])
def test_real_iad_views(tmp_path, lists):
    mini = real_iad(tmp_path, lists)
    data = at("real_iad", tmp_path)
    assert_loaded(data, mini)
    assert (data.problems(), data.protocol) == ([], "views, realiad_1024")
    assert {s.group for s in data.samples("fuse")} == {""}


def test_real_iad_samples_and_single_views(tmp_path):
    mini = real_iad(tmp_path)
    data = at("real_iad", tmp_path, protocol="samples")
    assert_loaded(data, mini)
    groups: dict[str, list] = {}
    for sample in data.samples("fuse"):
        groups.setdefault(sample.group, []).append(sample.label)
    assert sorted(groups.values()) == [[0] * 5, [1, 1, 0, 0, 0]]
    refused(lambda: at("real_iad", tmp_path, protocol="single_view").categories, "Real-IAD")
    real_iad(tmp_path, "realiad_jsons/realiad_jsons_sv")
    assert at("real_iad", tmp_path, protocol="single_view").protocol == "single_view, realiad_1024"


@pytest.mark.parametrize("share", ["0.0", "0.4"])
def test_real_iad_noisy_lists_are_a_protocol_of_their_own(tmp_path, share):
    mini = real_iad(tmp_path, f"realiad_jsons/realiad_jsons_fuiad_{share}")
    data = at("real_iad", tmp_path, protocol=f"noisy_{share}")
    assert_loaded(data, mini)
    assert data.protocol == f"noisy_{share}, realiad_1024"


def test_real_iad_sizes_missing_files_and_damaged_lists(tmp_path):
    real_iad(tmp_path)
    (tmp_path / "realiad_256/fuse").mkdir(parents=True)
    refused(lambda: at("real_iad", tmp_path).categories, "dataset.size=None", "1024 and 256")
    assert len(at("real_iad", tmp_path, size=1024).samples("fuse")) == 10
    assert len(messages(at("real_iad", tmp_path, size=256), "error")) > 10
    (tmp_path / "realiad_256").rename(tmp_path / "other")
    path = tmp_path / "realiad_jsons/realiad_jsons/fuse.json"
    (tmp_path / "realiad_jsons/realiad_jsons/led.json").write_text("{}")
    assert at("real_iad", tmp_path, categories=["fuse"]).samples("fuse")
    refused(lambda: at("real_iad", tmp_path).samples("led"), "realiad_1024/led", "folder is missing")
    for content in ("", "[]", "{}", '{"test": {}}', '{"test": [1]}', '{"test": [{"image_path": 1}]}'):
        path.write_text(content)
        refused(lambda: at("real_iad", tmp_path, categories=["fuse"]).categories, "fuse.json")


# --- ELPV


@pytest.mark.parametrize(
    ("protocol", "labels"),
    [
        ("certain", {1: 1, 2: 0}),
        ("above_half", {1: 1, 2: 0, 3: 0, 5: 1}),
        ("any", {1: 1, 2: 0, 3: 1, 5: 1}),
    ],
)
def test_elpv_labels_from_probabilities(tmp_path, protocol, labels):
    elpv(tmp_path)
    data = at("elpv", tmp_path, protocol=protocol)
    found = {int(s.path.stem[4:]): s.label for s in data.samples("elpv")}
    assert (found, data.protocol) == (labels, protocol)
    assert data.samples("elpv")[0].defect_type == "mono"
    assert all("pixel metrics" in p.message for p in data.problems())


@pytest.mark.parametrize("line", ["images/a.png 2 mono", "images/a.png x mono", "images/a.png 1.0 multi", "a.png 1"])
def test_elpv_damaged_labels(tmp_path, line):
    elpv(tmp_path, [line])
    refused(lambda: at("elpv", tmp_path).categories, "labels.csv, line 1", line)


def test_elpv_missing_image(tmp_path):
    elpv(tmp_path, ["images/gone.png 0.0 mono"])
    refused(lambda: at("elpv", tmp_path).samples("elpv"), "gone.png", "line 1", "does not exist")


# --- VisA in full


def test_visa_with_the_counts_of_the_real_split_file(tmp_path):
    """The published split: names of 4 digits in some categories and of 3 in others, 8659 + 962 + 1200 rows."""
    digits = dict.fromkeys(("candle", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"), 4)
    digits |= dict.fromkeys(("capsules", "cashew", "chewinggum", "fryum", "pipe_fryum"), 3)
    normal = {"candle": (900, 100), "capsules": (542, 60), "cashew": (450, 50), "chewinggum": (453, 50)}
    normal |= {"fryum": (450, 50), "macaroni1": (900, 100), "macaroni2": (900, 100), "pcb1": (904, 100)}
    normal |= {"pcb2": (901, 100), "pcb3": (905, 101), "pcb4": (904, 101), "pipe_fryum": (450, 50)}
    # Links let all categories share their files, which are empty: making 12 000 of them would take long.
    shared = {"4": 1006, "3": 602, "Anomaly": 100, "Masks": 100}
    for folder, count in shared.items():
        (tmp_path / f".{folder}").mkdir()
        for number in range(count):
            name = f"{number:0{4 if folder == '4' else 3}}.{'png' if folder == 'Masks' else 'JPG'}"
            (tmp_path / f".{folder}/{name}").touch()
    rows = ["object,split,label,image,mask"]
    for category, (n_train, n_test) in normal.items():
        for below in ("Images", "Masks"):
            (tmp_path / category / "Data" / below).mkdir(parents=True)
        (tmp_path / category / "Data/Images/Normal").symlink_to(tmp_path / f".{digits[category]}")
        (tmp_path / category / "Data/Images/Anomaly").symlink_to(tmp_path / ".Anomaly")
        (tmp_path / category / "Data/Masks/Anomaly").symlink_to(tmp_path / ".Masks")
        for number in range(n_train + n_test):
            name = f"{category}/Data/Images/Normal/{number:0{digits[category]}}.JPG"
            rows.append(f"{category},{'train' if number < n_train else 'test'},normal,{name},")
        for number in range(100):
            name = f"{category}/Data/Images/Anomaly/{number:03}.JPG"
            rows.append(f"{category},test,anomaly,{name},{category}/Data/Masks/Anomaly/{number:03}.png")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    data = at("visa", tmp_path)
    assert messages(data, "error") == {}
    assert len(data.index.train) == 8659
    assert [sum(s.label == label for s in data.index.test) for label in (0, 1)] == [962, 1200]
    for category, counts in data.expected.items():
        if category != "total":
            found = data.listed(category)
            assert sum(s.label == 0 for s in found) == counts["test_normal"]
            assert len(data.listed(category, "train")) == counts["train_normal"]
            assert {len(s.path.stem) for s in found if s.label == 0} == {digits[category]}
            assert {len(s.path.stem) for s in found if s.label == 1} == {3}


# --- HeadCT


@pytest.mark.parametrize("folder", ["head_ct", "head_ct/head_ct"])
def test_headct(tmp_path, folder):
    mini = Miniature(tmp_path)
    mini.normal(f"{folder}/000.png", "headct")
    mini.anomalous(f"{folder}/001.png", "headct", "hemorrhage", mode="L")
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,0\n1,1\n")
    data = at("headct", tmp_path)
    assert_loaded(data, mini)
    assert data.class_name("headct") == "brain"
    write_image(tmp_path / folder / "002.png")
    write_image(tmp_path / folder / "x.png")
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,0\n1,1\n7,1\n")
    found = messages(at("headct", tmp_path), "error")
    assert set(found) == {f"{folder}/002.png", f"{folder}/x.png", "labels.csv"}
    assert "007" in found["labels.csv"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id, bleeding\n0,0\n", "no column hemorrhage"),
        ("id, hemorrhage\n0,2\n", "line 2"),
        ("id, hemorrhage\nx,1\n", "line 2"),
        ("id, hemorrhage\n1,1\n1,0\n", "line 3"),
    ],
)
def test_headct_damaged_labels(tmp_path, text, reason):
    write_image(tmp_path / "head_ct/000.png")
    (tmp_path / "labels.csv").write_text(text)
    refused(lambda: at("headct", tmp_path).categories, "labels.csv", reason)

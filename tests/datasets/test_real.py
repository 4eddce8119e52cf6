"""The real photos beside the project, through every loader that fits them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zsad_bench import UserError, load_dataset
from zsad_bench.data.geometry import Geometry, image_to_array
from zsad_bench.data.images import read_image_file, read_reduced_image
from zsad_bench.datasets.auto import auto
from zsad_bench.datasets.elpv import Elpv
from zsad_bench.datasets.folder import Folder
from zsad_bench.datasets.meta_json import MetaJson
from zsad_bench.datasets.mvtec import MVTec

SHARED = Path(os.environ.get("ZSAD_SHARED", Path(__file__).resolve().parents[3] / "shared"))
LOADERS = (MVTec, Folder, MetaJson)
COUNTS = {
    "hazelnut_toy": ("hazelnut_toy", 28, {"good": 6, "colour": 17}),
    "magnetic_tile": (
        "magnetic_tile",
        700,
        {"good": 252, "blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 99},
    ),
    "crackforest": ("road", 0, {"crack": 118}),
}

ELPV = [("certain", 1508, 715), ("above_half", 1803, 821), ("any", 1508, 1116)]


def load(loader, name):
    root = SHARED / "data" / name
    if not root.is_dir():
        pytest.skip(f"the photos are not there: {root}")
    return loader(root=root, name=name)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("loader", LOADERS)
def test_counts_and_pairs(name, loader):
    data = load(loader, name)
    category, n_train, defects = COUNTS[name]
    assert data.categories == (category,)
    assert len(data.listed(category, "train")) == n_train
    test = data.samples(category)
    assert Counter(s.defect_type for s in test) == defects
    for sample in test:
        assert (sample.label == 1) == (sample.defect_type != "good") == (sample.mask_path is not None)
        if sample.mask_path is not None:
            assert sample.mask_path.stem == f"{sample.path.stem}_mask"
            assert sample.mask_path.parent.name == sample.defect_type
    assert all(problem.severity == "warning" for problem in data.problems())


@pytest.mark.parametrize("name", COUNTS)
def test_all_loaders_agree(name):
    found = [load(loader, name).listed(COUNTS[name][0]) for loader in LOADERS]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["hazelnut_toy", "crackforest"])
def test_masks_fit_their_images_and_mark_something(name):
    data = load(MVTec, name)
    for sample in data.samples(COUNTS[name][0])[:30]:
        mask = data.read_mask(sample)
        image = data.read_image(sample)
        assert mask.shape == (image.height, image.width)
        assert mask.any() == (sample.label == 1)


def test_magnetic_tile_holds_no_empty_mask():
    """The raw release has 103 'uneven' images of which 4 have an empty mask; this copy has the other 99."""
    data = load(MVTec, "magnetic_tile")
    masks = {s.image_id: data.read_mask(s) for s in data.samples("magnetic_tile") if s.label == 1}
    assert len(masks) == 388
    assert all(np.any(mask) for mask in masks.values())


def test_a_single_category_of_a_root_is_a_folder_dataset():
    data = load(Folder, "hazelnut_toy/hazelnut_toy")
    assert data.categories == ("hazelnut_toy",)
    assert len(data.samples("hazelnut_toy")) == 23


@pytest.mark.parametrize("name", COUNTS)
def test_auto_finds_the_meta_json_of_the_real_photos(name, capsys):
    data = auto(root=load(MVTec, name).root)
    assert data.listed(COUNTS[name][0]) == load(MVTec, name).listed(COUNTS[name][0])
    assert data.name == (name if name == "hazelnut_toy" else f"{name}-copy")  # not the published release itself
    assert "as with dataset=meta_json" in capsys.readouterr().err


def test_crackforest_has_no_normal_image_and_says_so():
    assert load(MVTec, "crackforest").protocol == "standard, all anomalous"
    assert load(MVTec, "magnetic_tile").protocol == "standard"


@pytest.mark.parametrize(("protocol", "n_normal", "n_anomalous"), ELPV)
def test_elpv_from_its_package(protocol, n_normal, n_anomalous, monkeypatch, tmp_path):
    pytest.importorskip("elpv_dataset", reason="pip install zsad-bench[elpv]")
    monkeypatch.setenv("ZSAD_DATA", str(tmp_path))
    data = load_dataset("elpv", protocol=protocol)
    test = data.samples("elpv")
    assert Counter(s.label for s in test) == {0: n_normal, 1: n_anomalous}
    assert data.expected == {"total": {"test_normal": n_normal, "test_anomalous": n_anomalous}}
    assert data.read_image(test[0]).size == data.read_image(test[-1]).size == (300, 300)
    assert len({s.image_id for s in test}) == len(test)
    assert all(p.severity == "warning" for p in data.problems())
    assert data.protocol == protocol


def test_elpv_in_full_is_2624_images(monkeypatch, tmp_path):
    pytest.importorskip("elpv_dataset", reason="pip install zsad-bench[elpv]")
    monkeypatch.setenv("ZSAD_DATA", str(tmp_path))
    assert len(load_dataset("elpv", protocol="any").samples("elpv")) == 2624
    (tmp_path / "elpv").mkdir()
    with pytest.raises(UserError, match=r"labels\.csv"):  # a folder of that name goes before the package
        _ = load_dataset("elpv").categories


def test_elpv_without_package_and_folder_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSAD_DATA", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install zsad-bench\[elpv\]"):
        _ = Elpv().categories


@pytest.mark.parametrize("size", [240, 336])
def test_reduced_decoding_of_photos_stays_within_the_stated_tolerance(size, tmp_path):
    """Stated in docs/datasets.md: 4 grey levels at most and half a level on average, of 255, after resizing."""
    data = load(MVTec, "hazelnut_toy")
    for sample in data.samples("hazelnut_toy")[:3]:
        path = tmp_path / "large.jpg"
        data.read_image(sample).resize((1600, 1200)).save(path, quality=92)
        full = image_to_array(read_image_file(path), Geometry(size)).astype(int)
        reduced = read_reduced_image(path, 2 * size)
        assert reduced.size == (800, 600) if size == 240 else (1600, 1200)
        error = np.abs(image_to_array(reduced, Geometry(size)).astype(int) - full)
        assert error.max() <= 4
        assert error.mean() <= 0.5

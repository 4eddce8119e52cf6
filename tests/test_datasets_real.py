"""The real photos beside the project, through every loader that fits them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zsad_bench.datasets.folder import Folder
from zsad_bench.datasets.meta_json import MetaJson
from zsad_bench.datasets.mvtec import MVTec

SHARED = Path(os.environ.get("ZSAD_SHARED", Path(__file__).resolve().parents[2] / "shared"))
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

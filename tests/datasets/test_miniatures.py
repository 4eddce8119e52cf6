"""Writers of miniature dataset roots for the tests of the loaders. They follow the published layouts, not our code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from zsad_bench.contract import SPLITS, Dataset


@dataclass
class Written:
    """What a test wrote for one image."""

    category: str
    split: str
    label: int | None
    defect_type: str
    mask: np.ndarray | None  # bool (H, W)


@dataclass
class Miniature:
    """A root in the making, with a record of everything that is in it."""

    root: Path
    images: dict[str, Written] = field(default_factory=dict)

    def normal(self, name, category, split="test", size=(12, 9), **options):
        write_image(self.root / name, size, **options)
        self.images[name] = Written(category, split, 0, "good", None)

    def unlabelled(self, name, category, size=(12, 9), **options):
        write_image(self.root / name, size, **options)
        self.images[name] = Written(category, "test", None, "", None)

    def anomalous(self, name, category, defect_type, mask=None, split="test", size=(12, 9), write=None, **options):
        """``mask`` is the path of the mask file; ``write`` one of the write_mask_* functions."""
        write_image(self.root / name, size, **options)
        region = None
        if mask is not None:
            region = random_region(size, name)
            (write or write_mask)(self.root / mask, region)
        self.images[name] = Written(category, split, 1, defect_type, region)


def random_region(size, seed):
    """Bool (H, W) with some pixels set, different for every image."""
    rng = np.random.default_rng(list(str(seed).encode()))
    region = rng.random((size[1], size[0])) < 0.2
    region[rng.integers(size[1]), rng.integers(size[0])] = True
    return region


def write_image(path, size=(12, 9), mode="RGB", **options):
    """An image with random pixels; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list("/".join(path.parts[-6:]).encode())  # no two files of a root have the same content
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def write_mask(path, region):
    """The usual mask: 8-bit grey, 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(region.astype(np.uint8) * 255).save(path)


def write_mask_colour(path, region):
    """Three equal channels, as OpenCV writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(region[..., None].astype(np.uint8) * 255, 3, axis=2)).save(path)


def write_mask_class_numbers(path, region):
    """8-bit grey with class numbers 1 to 9, as in raw VisA."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0).integers(1, 10, region.shape)
    Image.fromarray((region * numbers).astype(np.uint8)).save(path)


def write_mask_palette(path, region):
    """Class number 1 or 2 in a palette whose colour for 1 is black: only the index tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = region * np.random.default_rng(0).integers(1, 3, region.shape)
    image = Image.fromarray(numbers.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 0, 0, 0, 128, 0, 0] + [0] * (253 * 3))
    image.save(path)


def assert_loaded(dataset: Dataset, written: Miniature) -> None:
    """Everything written is loaded, with its label, defect type and mask to the pixel, and nothing else is."""
    assert list(dataset.categories) == sorted({w.category for w in written.images.values()})
    loaded = {}
    for category in dataset.categories:
        for split in SPLITS:
            samples = dataset.listed(category, split)
            assert [s.image_id for s in samples] == sorted(s.image_id for s in samples)
            if samples:
                assert dataset.samples(category, split) == samples
            loaded.update({s.image_id: (s, split) for s in samples})
    assert sorted(loaded) == sorted(written.images)
    for name, expected in written.images.items():
        sample, split = loaded[name]
        found = (sample.category, split, sample.label, sample.defect_type)
        assert found == (expected.category, expected.split, expected.label, expected.defect_type), name
        assert sample.path == dataset.root / name
        image = dataset.read_image(sample)
        assert image.mode == "RGB"
        mask = dataset.read_mask(sample)
        if expected.label == 0:
            assert mask is not None
            assert mask.shape == (image.height, image.width)
            assert not mask.any()
            assert sample.mask_path is None
        elif expected.mask is None:
            assert mask is None
        else:
            assert mask.dtype == bool
            assert np.array_equal(mask, expected.mask), name

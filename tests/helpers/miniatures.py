"""Writers of images, masks and miniature dataset roots, with a record of what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 9)
"""Width and height of an image unless a test says otherwise."""


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

    def normal(
        self, name: str, category: str, split: str = "test", size: tuple[int, int] = SIZE, mode: str = "RGB"
    ) -> None:
        write_image(self.root / name, size, mode)
        self.images[name] = Written(category, split, 0, "good", None)

    def unlabelled(self, name: str, category: str, mode: str = "RGB") -> None:
        write_image(self.root / name, mode=mode)
        self.images[name] = Written(category, "test", None, "", None)

    def anomalous(
        self,
        name: str,
        category: str,
        defect_type: str,
        mask: str | None = None,
        split: str = "test",
        size: tuple[int, int] = SIZE,
        write: Callable[[Path, np.ndarray], None] | None = None,
        mode: str = "RGB",
    ) -> None:
        """``mask`` is the path of the mask file; ``write`` one of the write_mask_* functions."""
        write_image(self.root / name, size, mode)
        region = None
        if mask is not None:
            region = random_region(size, name)
            (write or write_mask)(self.root / mask, region)
        self.images[name] = Written(category, split, 1, defect_type, region)


def random_region(size: tuple[int, int], seed: str | int) -> np.ndarray:
    """Bool (H, W) with some pixels set, different for every image."""
    rng = np.random.default_rng(list(str(seed).encode()))
    region = rng.random((size[1], size[0])) < 0.2
    region[rng.integers(size[1]), rng.integers(size[0])] = True
    return region


def write_image(path: Path, size: tuple[int, int] = SIZE, mode: str = "RGB") -> None:
    """An image with random pixels; ``size`` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list("/".join(path.parts[-6:]).encode())  # no two files of a root have the same content
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_mask(path: Path, region: np.ndarray) -> None:
    """The usual mask: 8-bit grey, 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(region.astype(np.uint8) * 255).save(path)


def write_mask_colour(path: Path, region: np.ndarray) -> None:
    """Three equal channels, as OpenCV writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(region[..., None].astype(np.uint8) * 255, 3, axis=2)).save(path)


def write_mask_class_numbers(path: Path, region: np.ndarray) -> None:
    """8-bit grey with class numbers 1 to 9, as in raw VisA."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0).integers(1, 10, region.shape)
    Image.fromarray((region * numbers).astype(np.uint8)).save(path)


def write_mask_palette(path: Path, region: np.ndarray) -> None:
    """Class number 1 or 2 in a palette whose colour for 1 is black: only the index tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = region * np.random.default_rng(0).integers(1, 3, region.shape)
    image = Image.fromarray(numbers.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 0, 0, 0, 128, 0, 0] + [0] * (253 * 3))
    image.save(path)


def save_image(path: Path, pixels: np.ndarray) -> None:
    """An image of given pixels, uint8 (H, W) or (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)

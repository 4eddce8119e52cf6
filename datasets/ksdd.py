"""KolektorSDD: ``kosNN/PartM.jpg`` with ``kosNN/PartM_label.bmp``; an all-zero label means a normal image.

There is no official split into normal training images and test images. Papers measure on two kinds of images:

- ``whole``: the images as published (about 500 x 1260 pixels);
- ``strips``: every image cut into three strips along its height, each with a label of its own, as in the CLIP papers.

In both, every image or strip with a defect is a test image, and so are the normal ones of every fifth item (kos01,
kos06 ...). The other normal ones are train images. The CLIP papers drew theirs from an unsorted list, so their images
cannot be reproduced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import numpy as np
from PIL import Image

from zsad_bench.contract import DatasetOptions, Index, Sample
from zsad_bench.data.images import read_image_file, read_image_size

from .original_or_copy import Published
from .reading.layout import list_folder, relative
from .reading.mask_labels import marked_strips, strip_rows, without_label
from .reading.pairing import pair_beside, stray_problems

_CATEGORY = "ksdd"
_STRIPS = {"whole": 1, "strips": 3}
_TEST_ITEM = 5
_ITEM = re.compile(r"kos\d+", re.IGNORECASE)


class Ksdd(Published):
    """KolektorSDD in its published layout."""

    PROTOCOLS = tuple(_STRIPS)
    EXPECTED = "kos01/Part0.jpg and kos01/Part0_label.bmp"

    def __init__(self, **options: Unpack[DatasetOptions]) -> None:
        super().__init__(**options)
        self._strip: dict[str, int] = {}

    def is_original(self, root: Path) -> bool:
        """True when there are folders kos01, kos02 ..."""
        return bool(_items(root))

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        images: list[Path] = []
        masks: list[Path] = []
        items = _items(self.root)
        for folder in items:
            listing = list_folder(folder)
            index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
            for path in listing.images:
                (masks if path.stem.casefold().endswith("_label") else images).append(path)
        pairs: dict[Path, Path] = {}
        for folder in items:
            own = [[path for path in paths if path.parent == folder] for paths in (images, masks)]
            found, problems = pair_beside(*own, root=self.root, category=_CATEGORY)
            pairs |= found
            index.problems.extend(problems)
        index.problems.extend(without_label(images, pairs, root=self.root, category=_CATEGORY))
        marks, problems = marked_strips(pairs, self.mask_threshold, self._n_strips, root=self.root, category=_CATEGORY)
        index.problems.extend(problems)
        tested = set(items[::_TEST_ITEM])
        for image in images:
            for sample in self._samples(image, pairs.get(image), marks):
                is_test = sample.label == 1 or image.parent in tested
                (index.test if is_test else index.train).append(sample)
        return index

    @property
    def _n_strips(self) -> int:
        return _STRIPS[self.variant] if self.copy is None else 1

    def _samples(self, image: Path, mask: Path | None, marks: dict[Path, tuple[bool, ...]]) -> Iterator[Sample]:
        if mask is None or mask not in marks:
            return
        for strip, anomalous in enumerate(marks[mask]):
            name = image.name if self._n_strips == 1 else f"{image.stem}_{strip}{image.suffix}"
            image_id = relative(image.with_name(name), self.root)
            self._strip[image_id] = strip
            label, defect_type, kept = (1, "defect", mask) if anomalous else (0, "good", None)
            yield Sample(image_id, image, _CATEGORY, label, defect_type, kept)

    def read_image(self, sample: Sample, shrink_to: int | None = None) -> Image.Image:
        """The image, or its strip; strips are always decoded in full."""
        if self._n_strips == 1:
            return super().read_image(sample, shrink_to)
        image = read_image_file(sample.path)
        rows = strip_rows(image.height, self._n_strips, self._strip[sample.image_id])
        return image.crop((0, rows.start, image.width, rows.stop))

    def stored_image(self, sample: Sample) -> Path | None:
        """The file; None for a strip of it."""
        return sample.path if self._n_strips == 1 else None

    def content_key(self, sample: Sample) -> str:
        """Hash of the file, and which strip of it."""
        key = super().content_key(sample)
        return key if self._n_strips == 1 else f"{key}|strip {self._strip[sample.image_id]} of {self._n_strips}"

    def _image_size(self, sample: Sample) -> tuple[int, int]:
        if self._n_strips == 1:
            return super()._image_size(sample)
        height, width = read_image_size(sample.path)
        rows = strip_rows(height, self._n_strips, self._strip[sample.image_id])
        return rows.stop - rows.start, width

    def _mask(self, sample: Sample) -> np.ndarray:
        mask = super()._mask(sample)
        if self._n_strips == 1:
            return mask
        return mask[strip_rows(len(mask), self._n_strips, self._strip[sample.image_id])]


def _items(root: Path) -> list[Path]:
    return [folder for folder in list_folder(root).folders if _ITEM.fullmatch(folder.name)]

"""DAGM 2007: ``ClassK/{Train,Test}/NNNN.PNG`` with ``Label/NNNN_label.PNG`` for the defective images.

An image is anomalous when it has a label file; there is no other sign. Labels are coarse ellipses. Papers use two
test sets that cannot be compared:

- ``original``: the Test folders as published, few defects among many normal images;
- ``balanced``: all defects of Train and Test, and as many normal images. The public script that makes it depends on the
  order in which the system lists files; here the normal images are spread evenly over the sorted list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zsad_bench.contract import SPLITS, Index, Sample, Split

from .original_or_copy import Published, folders_of
from .reading.layout import find_folder, list_folder, relative
from .reading.pairing import pair_masks, stray_problems

_CLASS = re.compile(r"class_?\d+", re.IGNORECASE)


class Dagm(Published):
    """DAGM 2007 with one folder a class."""

    PROTOCOLS = ("original", "balanced")
    EXPECTED = "Class1/{Train,Test}/Label"

    def is_original(self, root: Path) -> bool:
        """True when a folder ``ClassK`` has ``Train`` or ``Test`` with ``Label`` inside."""
        return any(
            "label" in folders_of(split)
            for folder in _classes(root)
            for name, split in folders_of(folder).items()
            if name in SPLITS
        )

    def _original(self) -> Index:
        index = Index()
        for folder in _classes(self.root):
            index.categories.add(folder.name)
            inside = list_folder(folder)
            for split in SPLITS:
                if (images := find_folder(inside, {split})) is not None:
                    index.split(split).extend(self._samples(index, images, folder.name))
            if self.variant == "balanced":
                _balance(index, folder.name)
        return index

    def _samples(self, index: Index, folder: Path, category: str) -> Iterator[Sample]:
        listing = list_folder(folder)
        index.problems.extend(stray_problems(listing.strays, self.root, category))
        labels = find_folder(listing, {"label"})
        pairs: dict[Path, Path] = {}
        if labels is not None:
            pairs, problems = pair_masks({"": listing.images}, [], labels, root=self.root, category=category)
            index.problems.extend(problems)
        for image in listing.images:
            mask = pairs.get(image)
            label, defect_type = (0, "good") if mask is None else (1, "defect")
            yield Sample(relative(image, self.root), image, category, label, defect_type, mask)


def _classes(root: Path) -> list[Path]:
    return [folder for folder in list_folder(root).folders if _CLASS.fullmatch(folder.name)]


def _balance(index: Index, category: str) -> None:
    """Move all defects of a category to test, keep as many normal images there, and put the others into train."""
    own = [sample for split in SPLITS for sample in index.split(split) if sample.category == category]
    defects = [sample for sample in own if sample.label == 1]
    normal = sorted((sample for sample in own if sample.label == 0), key=lambda sample: sample.image_id)
    count = min(len(defects), len(normal))
    tested = set(np.linspace(0, len(normal) - 1, count).round().astype(int).tolist())
    chosen: dict[Split, list[Sample]] = {
        "train": [sample for number, sample in enumerate(normal) if number not in tested],
        "test": [*defects, *(sample for number, sample in enumerate(normal) if number in tested)],
    }
    for split in SPLITS:
        kept = [sample for sample in index.split(split) if sample.category != category]
        index.split(split)[:] = [*kept, *chosen[split]]

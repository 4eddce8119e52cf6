"""Samples of a dataset, what a layout found, and what names and places of files show to be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Sample:
    """One image, what is known about it, and where its mask lies."""

    image_id: str  # POSIX path relative to the dataset root, unique inside the dataset
    path: Path
    category: str
    label: int | None  # 0 normal, 1 anomalous, None unknown (a user's own unlabelled photos)
    defect_type: str  # "good" for normal, "" when the label is unknown
    mask_path: Path | None  # None for normal images and where there is no mask
    group: str = ""  # photos of one physical object that get one image-level score together; "" stands alone


@dataclass(frozen=True)
class Problem:
    """Something wrong with the files of a dataset. An error stops a run that needs the category, a warning does not."""

    path: str  # relative to the root where the file lies below it
    message: str  # one line: what is wrong and what to do
    severity: Literal["error", "warning"]
    category: str = ""  # "" concerns the whole dataset


@dataclass
class Index:
    """What a layout found under its root. ``categories`` also names those without a single image."""

    categories: set[str] = field(default_factory=set)
    train: list[Sample] = field(default_factory=list)
    test: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def split(self, split: Split) -> list[Sample]:
        """The samples of one split, all categories, in the order found."""
        return self.train if split == "train" else self.test


def repeated_images(index: Index) -> Iterable[Problem]:
    """Images that are listed twice: in a split an error, in both splits a leak."""
    splits = {split: Counter((s.image_id, s.category) for s in index.split(split)) for split in SPLITS}
    categories: dict[str, set[str]] = {}
    for split in SPLITS:
        for image_id, category in splits[split]:
            categories.setdefault(image_id, set()).add(category)
    for split, counts in splits.items():
        for (image_id, category), count in counts.items():
            if count > 1:
                message = f"listed {count} times under {split}; keep one entry"
                yield Problem(image_id, message, "error", category)
    for image_id, category in splits["train"].keys() & splits["test"].keys():
        yield Problem(image_id, "listed under train and under test; keep one of them", "warning", category)
    for image_id, owners in categories.items():
        if len(owners) > 1:
            message = f"listed in several categories ({', '.join(sorted(owners))}); keep one of them"
            for category in sorted(owners):
                yield Problem(image_id, message, "error", category)


def doubts(category: str, test: Sequence[Sample]) -> Iterable[Problem]:
    """What the labels and masks of a category's test images leave undefined."""
    if not test:
        yield Problem(category, "no test image; add images or deselect the category", "error", category)
        return
    anomalous = [s for s in test if s.label == 1]
    bare = [s for s in anomalous if s.mask_path is None]
    if bare and len(bare) == len(anomalous):
        message = f"none of the {len(bare)} anomalous images has a mask; pixel metrics will be undefined"
        yield Problem(category, message, "warning", category)
    elif bare:
        for sample in bare:
            message = "anomalous image without a mask; it will not count in pixel metrics"
            yield Problem(sample.image_id, message, "warning", category)
    if anomalous and len(anomalous) == len(test):
        yield Problem(category, "all test images are anomalous; image metrics will be undefined", "warning", category)
    if all(s.label == 0 for s in test):
        yield Problem(category, "all test images are normal; all metrics will be undefined", "warning", category)

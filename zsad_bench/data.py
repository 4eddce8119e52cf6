"""The data contract: samples, problems and the Dataset that every layout family implements.

A dataset is a folder (``root``) with categories; a category has test images and, for some layouts, train images. A
subclass says what lies where (``_index``). Everything else is here: selection, ordering, reading, checking.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from zsad_bench.errors import UserError
from zsad_bench.hashing import file_sha256
from zsad_bench.images import UnreadableImage, read_image_file, read_image_size, read_mask_file

__all__ = ["Dataset", "Index", "Problem", "Sample", "Split", "UnreadableImage", "read_mask_file"]

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_CHECK = "'zsad-bench data check' with the same dataset options lists everything"


@dataclass(frozen=True)
class Sample:
    """One image, what is known about it, and where its mask lies."""

    image_id: str  # POSIX path relative to the dataset root, unique inside the dataset
    path: Path
    category: str
    label: int | None  # 0 normal, 1 anomalous, None unknown (a user's own unlabelled photos)
    defect_type: str  # "good" for normal, "" when the label is unknown
    mask_path: Path | None  # None for normal images and where there is no mask


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


class Dataset(ABC):
    """A dataset on disk. Nothing is read before it is asked for, and the list of files is made only once.

    Args:
        root: folder of the dataset; ``~`` is expanded.
        name: what result rows call the dataset.
        categories: those to use; None means all.
        class_names: category -> readable noun for prompts ("metal nut").
        textures: categories that show a surface rather than an object.
        mask_threshold: a mask pixel is anomalous when greater than this, in the units of the mask file.
        protocol: which variant of splits and masks this is; it appears in every result row.
        title, page, licence, citation: for messages and documentation.
        expected: category (or ``total``) -> count name -> number; ``zsad-bench data check`` compares.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        name: str,
        categories: Sequence[str] | None = None,
        class_names: Mapping[str, str] | None = None,
        textures: Sequence[str] = (),
        mask_threshold: int = 0,
        protocol: str = "standard",
        title: str = "",
        page: str = "",
        licence: str = "",
        citation: str = "",
        expected: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        if isinstance(mask_threshold, bool) or not isinstance(mask_threshold, int) or not 0 <= mask_threshold <= 65534:
            raise UserError(f"dataset.mask_threshold={mask_threshold!r}: give a whole number from 0 to 65534")
        if isinstance(categories, str):
            raise UserError(
                f"dataset.categories={categories}: give a list, for example dataset.categories=[{categories}]"
            )
        self.root = Path(root).expanduser()
        self.name = name
        self.mask_threshold = mask_threshold
        self.protocol = protocol
        self.title = title or name
        self.page = page
        self.licence = licence
        self.citation = citation
        self.expected = {
            str(key): {str(count): int(value) for count, value in counts.items()}
            for key, counts in (expected or {}).items()
        }
        self._class_names = {str(key): str(value) for key, value in (class_names or {}).items()}
        self._textures = frozenset(str(category) for category in textures)
        self._selected = None if categories is None else tuple(str(category) for category in categories)
        self._sizes: dict[str, tuple[int, int]] = {}

    @abstractmethod
    def _index(self) -> Index:
        """List what lies under ``self.root`` (which exists). UserError when the root is not this layout at all."""

    @cached_property
    def index(self) -> Index:
        """Everything found under the root, selected or not. UserError when the root is missing or of another layout."""
        self._require_root()
        index = self._index()
        index.problems.extend(_repeated(index))
        return index

    @property
    def all_categories(self) -> tuple[str, ...]:
        """Every category under the root, sorted."""
        return tuple(sorted(self.index.categories))

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The selected categories, sorted. UserError naming the nearest valid one when a category is unknown."""
        found = self.all_categories
        if self._selected is None:
            return found
        if not self._selected:
            raise UserError(f"dataset.categories=[] selects nothing; {self.root} has {_listed(found)}")
        for category in self._selected:
            self._require_known(category)
        return tuple(sorted(set(self._selected)))

    def class_name(self, category: str) -> str:
        """The noun for prompts: from ``class_names``, else the category with _ and - as spaces."""
        return self._class_names.get(category) or " ".join(category.replace("_", " ").replace("-", " ").split())

    def has_class_name(self, category: str) -> bool:
        """True when the configuration names this category."""
        return category in self._class_names

    def is_texture(self, category: str) -> bool:
        """True when the category is a surface (carpet), false for an object (bottle)."""
        return category in self._textures

    def samples(self, category: str, split: Split = "test") -> list[Sample]:
        """The images of a category, sorted by image_id.

        UserError when the category is unknown or has no image in this split, and when a problem of severity "error"
        makes its labels or masks doubtful.
        """
        self._require_known(category)
        errors = [p for p in self.index.problems if p.severity == "error" and p.category in ("", category)]
        if errors:
            more = f" (and {len(errors) - 1} more problems)" if len(errors) > 1 else ""
            raise UserError(f"{self.root / errors[0].path}: {errors[0].message}{more}; {_CHECK}")
        samples = self.listed(category, split)
        if not samples:
            raise UserError(
                f"{self.root}: category '{category}' has no {split} image that can be used; "
                f"add images or leave it out with dataset.categories=[...]"
            )
        return samples

    def listed(self, category: str, split: Split = "test") -> list[Sample]:
        """As :meth:`samples`, but empty or doubtful categories are returned as they are."""
        return sorted((s for s in self.index.split(split) if s.category == category), key=lambda s: s.image_id)

    def problems(self) -> list[Problem]:
        """What the names and places of the files show to be wrong; contents are not read."""
        found = [p for p in self.index.problems if p.category in ("", *self.categories)]
        for category in self.categories:
            found.extend(_doubts(category, self.listed(category)))
        return found

    def read_image(self, sample: Sample) -> Image.Image:
        """The upright 8-bit RGB image. UnreadableImage (a UserError) naming the file when it cannot be decoded."""
        image = read_image_file(sample.path)
        self._sizes[sample.image_id] = (image.height, image.width)
        return image

    def content_key(self, sample: Sample) -> str:
        """Hash of what :meth:`read_image` reads: the same for the same pixels wherever the file lies.

        A dataset whose ``read_image`` does more than decode the file must make that part of its key. Raises
        UnreadableImage if there is no such file.
        """
        try:
            return file_sha256(sample.path)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            raise UnreadableImage(f"{sample.path}: {reason}; restore it or remove it") from None

    def read_mask(self, sample: Sample) -> np.ndarray | None:
        """Bool (H, W) at the image's size, true where anomalous; zeros for a normal image.

        None when the label is unknown and when an anomalous image has no mask: it must then not be used for pixel
        metrics. UserError naming both files when the sizes differ, UnreadableImage when a file cannot be decoded.
        """
        if sample.label is None or (sample.label == 1 and sample.mask_path is None):
            return None
        size = self._image_size(sample)
        if sample.label == 0:
            return np.zeros(size, dtype=bool)
        mask = self._mask(sample)
        if mask.shape != size:
            raise UserError(
                f"{sample.mask_path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels (width x height) but its "
                f"image {sample.path} is {size[1]} x {size[0]}; export the mask again at the image's size"
            )
        return mask

    def _mask(self, sample: Sample) -> np.ndarray:
        """Bool (H, W) from the sample's mask; layouts with polygons, boxes or several files override this."""
        assert sample.mask_path is not None
        return read_mask_file(sample.mask_path, self.mask_threshold)

    def _image_size(self, sample: Sample) -> tuple[int, int]:
        """(height, width); remembered, because asking a PNG for its orientation means decoding it again."""
        if sample.image_id not in self._sizes:
            self._sizes[sample.image_id] = read_image_size(sample.path)
        return self._sizes[sample.image_id]

    def _require_root(self) -> None:
        if self.root.is_dir():
            return
        where = self.root.absolute()
        state = "is not a folder" if where.exists() else "does not exist"
        source = f"; {self.title} is available from {self.page}" if self.page else ""
        raise UserError(
            f"dataset.root: the folder {where} {state}; set dataset.root=<folder of {self.title}> or the environment "
            f"variable ZSAD_DATA to the folder that holds '{where.name}'{source}"
        )

    def _require_known(self, category: str) -> None:
        found = self.all_categories
        if category in found:
            return
        by_folded = {name.casefold(): name for name in found}
        near = difflib.get_close_matches(category.casefold(), by_folded, n=1, cutoff=0.5)
        hint = f"did you mean '{by_folded[near[0]]}'? " if near else ""
        raise UserError(f"dataset.categories: '{category}' is not in {self.root}; {hint}It has {_listed(found)}")


def _listed(names: Sequence[str], limit: int = 20) -> str:
    """Names for a message, cut when there are very many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "no category") + more


def _repeated(index: Index) -> Iterable[Problem]:
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


def _doubts(category: str, test: Sequence[Sample]) -> Iterable[Problem]:
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

"""The user's own images, in whatever simple arrangement they lie.

Accepted shapes of the root (``docs/datasets.md`` draws them):

- ``<images>``, nothing known: labels are None and a run gives scores and maps only;
- ``<images>`` or ``images/<images>`` with ``masks/``: every image has a mask, an all-zero mask means normal;
- ``good/`` and other folders: one category with labels; masks may lie in ``masks/`` or ``ground_truth/`` beside them;
- ``test/good/`` and so on: one MVTec-style category;
- ``<category>/test/good/`` and so on: MVTec style.

Anything else is refused with a message that says what was found: a guess here would be a wrong label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from zsad_bench.contract import Dataset, DatasetOptions, Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .mvtec import is_category, scan_category
from .reading.layout import (
    ANOMALOUS_FOLDERS,
    MASK_FOLDERS,
    Listing,
    find_folder,
    is_normal_folder,
    list_below,
    list_folder,
    relative,
)
from .reading.mask_labels import anomalous_masks
from .reading.pairing import looks_like_mask, pair_masks, stray_problems

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")


class Folder(Dataset):
    """A user's folder of images.

    Args beyond those of :class:`~zsad_bench.contract.Dataset`:
        category: name of the category when the root is a single one; default: the root folder's name.
        class_name: the noun for prompts when there is a single category ("hazelnut").
    """

    def __init__(
        self, *, category: str | None = None, class_name: str | None = None, **options: Unpack[DatasetOptions]
    ) -> None:
        options.setdefault("name", "folder")
        super().__init__(**options)
        self._category = None if category is None else str(category)
        self._single_class_name = class_name

    def class_name(self, category: str) -> str:
        """The noun for prompts: ``class_name`` when it is set, else as for every dataset."""
        if not self._single_class_name:
            return super().class_name(category)
        if len(self.categories) > 1:
            raise UserError(
                f"dataset.class_name={self._single_class_name}: {self.root} has several categories "
                f"({', '.join(self.categories)}); use '+dataset.class_names.<category>=<noun>' instead"
            )
        return self._single_class_name

    def _index(self) -> Index:
        root = list_folder(self.root)
        masks = find_folder(root, MASK_FOLDERS)
        contents = {folder: list_folder(folder) for folder in root.folders if folder != masks}
        nested = [folder for folder, listing in contents.items() if is_category(listing)]
        labelled = [folder for folder in contents if folder not in nested and list_below(folder).images]
        if is_category(root):
            return self._one_category(root)
        if nested:
            return self._several_categories(root, nested, labelled)
        if any(_tells_label(folder) for folder in labelled):
            return self._labelled_folders(root, labelled, masks)
        return self._unlabelled(root, labelled, masks)

    def _name_of_category(self) -> str:
        return self._category or self.root.resolve().name or "images"

    def _one_category(self, root: Listing) -> Index:
        self._refuse_loose(root, "a train or test folder")
        index = Index()
        scan_category(index, self.root, self.root, self._name_of_category(), MASK_FOLDERS)
        return index

    def _several_categories(self, root: Listing, categories: Sequence[Path], others: Sequence[Path]) -> Index:
        self._refuse_loose(root, f"categories ({_names(categories)})")
        if others:
            raise UserError(
                f"{self.root}: mixes categories ({_names(categories)}: they have a train or test folder) with "
                f"folders of images ({_names(others)}); move one kind elsewhere"
            )
        if self._category is not None and self._category not in {folder.name for folder in categories}:
            raise UserError(
                f"dataset.category={self._category}: {self.root} has several categories with names of their own "
                f"({_names(categories)}); use dataset.categories=[...] to select"
            )
        index = Index()
        for folder in categories:
            if self._category in (None, folder.name):
                scan_category(index, self.root, folder, folder.name, MASK_FOLDERS)
        return index

    def _labelled_folders(self, root: Listing, folders: Sequence[Path], masks: Path | None) -> Index:
        self._refuse_loose(root, f"folders of labels ({_names(folders)})")
        category = self._name_of_category()
        index = Index(categories={category})
        normal: list[Path] = []
        groups: dict[str, list[Path]] = {}
        for folder in folders:
            found = list_below(folder)
            index.problems.extend(stray_problems(found.strays, self.root, category))
            if is_normal_folder(folder.name):
                normal.extend(found.images)
                continue
            for image in found.images:
                groups.setdefault(relative(image.parent, self.root), []).append(image)
        pairs: dict[Path, Path] = {}
        if masks is not None:
            pairs, problems = pair_masks(groups, normal, masks, root=self.root, category=category)
            index.problems.extend(problems)
        index.test.extend(self._sample(image, category, 0, "good", None) for image in normal)
        for group, images in groups.items():
            defect_type = group.split("/")[0]
            index.test.extend(self._sample(image, category, 1, defect_type, pairs.get(image)) for image in images)
        return index

    def _unlabelled(self, root: Listing, folders: Sequence[Path], masks: Path | None) -> Index:
        """Images directly in the root or in ``images/``, with or without masks."""
        source, images = self.root, root
        if folders:
            if root.images:
                self._refuse_loose(root, f"folders of images ({_names(folders)})")
            if len(folders) > 1 or folders[0].name.casefold() not in _IMAGE_FOLDERS:
                raise UserError(
                    f"{self.root}: the folders {_names(folders)} hold images but none is named good, ok or normal; "
                    f"rename the one with the normal images to 'good', or set dataset.root to a folder of images"
                )
            source, images = folders[0], list_below(folders[0])
        if not images.images:
            raise UserError(f"{self.root.absolute()}: no image found{_strays(images)}; set dataset.root to your images")
        category = self._name_of_category()
        index = Index(categories={category})
        index.problems.extend(stray_problems(images.strays, self.root, category))
        if masks is None:
            index.problems.extend(self._suspected_masks(images.images, category))
            index.test.extend(self._sample(image, category, None, "", None) for image in images.images)
        else:
            self._labels_from_masks(index, source, images.images, masks, category)
        return index

    def _labels_from_masks(
        self, index: Index, source: Path, images: Sequence[Path], masks: Path, category: str
    ) -> None:
        groups: dict[str, list[Path]] = {}
        for image in images:
            folder = relative(image.parent, source)
            groups.setdefault("" if folder == "." else folder, []).append(image)
        pairs, problems = pair_masks(groups, [], masks, root=self.root, category=category)
        index.problems.extend(problems)
        marks, unreadable = anomalous_masks(pairs, self.mask_threshold, root=self.root, category=category)
        index.problems.extend(unreadable)
        for image in images:
            mask = pairs.get(image)
            if mask is None:
                message = (
                    "has no mask while others have, so it is unknown if it is normal; add a mask (all black if normal)"
                )
                index.problems.append(Problem(relative(image, self.root), message, "error", category))
            elif mask in marks:
                label, defect_type, kept = (1, "anomaly", mask) if marks[mask] else (0, "good", None)
                index.test.append(self._sample(image, category, label, defect_type, kept))

    def _suspected_masks(self, images: Sequence[Path], category: str) -> list[Problem]:
        stems = {image.stem.casefold() for image in images}
        message = "looks like the mask of another image and is scored as an image; move masks to a folder masks/"
        return [
            Problem(relative(image, self.root), message, "warning", category)
            for image in images
            if looks_like_mask(image.stem, stems)
        ]

    def _sample(self, image: Path, category: str, label: int | None, defect_type: str, mask: Path | None) -> Sample:
        return Sample(relative(image, self.root), image, category, label, defect_type, mask)

    def _refuse_loose(self, root: Listing, found: str) -> None:
        if root.images:
            raise UserError(
                f"{self.root}: holds {found} and also {len(root.images)} images beside them "
                f"({root.images[0].name}, ...), whose label is unknown; move them into a folder such as good/"
            )


def _tells_label(folder: Path) -> bool:
    return is_normal_folder(folder.name) or folder.name.casefold() in ANOMALOUS_FOLDERS


def _names(folders: Sequence[Path], limit: int = 10) -> str:
    more = f" and {len(folders) - limit} more" if len(folders) > limit else ""
    return ", ".join(f"{folder.name}/" for folder in folders[:limit]) + more


def _strays(listing: Listing) -> str:
    return f", only other files ({listing.strays[0].name}, ...)" if listing.strays else ""

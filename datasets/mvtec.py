"""MVTec-style layouts: MVTec AD, MPDD, BTAD, DTD-Synthetic, converted VisA, and many others.

Images are ``<root>/<category>/{train,test}/<good or defect type>/<image>``, masks
``<root>/<category>/ground_truth/<defect type>/<mask>``. Normal images lie in a folder called good, ok, normal...; every
other folder is a defect type. Folder names are read in any case. ``ground_truth/good`` is ignored: a normal image has
no mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zsad_bench.contract import SPLITS, Dataset, Index, Problem, Sample, Split
from zsad_bench.core.errors import UserError

from .reading.layout import Listing, find_folder, is_normal_folder, list_below, list_folder, relative
from .reading.pairing import pair_masks, stray_problems

# Images kept for validation are normal; they join train, as in the meta.json of other repositories.
_SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "validation": "train", "test": "test"}


class MVTec(Dataset):
    """A folder of MVTec-style categories."""

    united_masks = False
    """True where several mask files in a folder ``<image stem>/`` belong to one image and are united."""

    def recognises(self, root: Path) -> bool:
        """True when a folder in ``root`` has a train or test folder inside."""
        return any(is_category(list_folder(folder)) for folder in list_folder(root).folders)

    def _index(self) -> Index:
        index = Index()
        ignored = []
        for folder in list_folder(self.root).folders:
            listing = list_folder(folder)
            if is_category(listing):
                scan_category(index, self.root, folder, folder.name, united_masks=self.united_masks)
            else:
                ignored.append(folder)
        if not index.categories:
            raise UserError(f"{self.root.absolute()}: {_what_is_it(self.root, ignored)}")
        for folder in ignored:
            message = "no train or test folder inside; it is not taken for a category"
            index.problems.append(Problem(relative(folder, self.root), message, "warning"))
        return index


def is_category(listing: Listing) -> bool:
    """True when a folder has a ``train`` or ``test`` folder inside."""
    return any(folder.name.casefold() in SPLITS for folder in listing.folders)


def scan_category(
    index: Index,
    root: Path,
    folder: Path,
    category: str,
    mask_folders: tuple[str, ...] = ("ground_truth",),
    *,
    united_masks: bool = False,
) -> None:
    """Add one MVTec-style category to an index.

    Args:
        index: receives the samples and problems.
        root: image ids are relative to it.
        folder: holds ``train``, ``test`` and one of ``mask_folders``; each may be missing.
        category: name of the category.
        mask_folders: lower-case names under which masks may lie.
        united_masks: a folder ``<image stem>/`` with several masks counts as one mask.
    """
    index.categories.add(category)
    listing = list_folder(folder)
    truth = find_folder(listing, mask_folders)
    truth_listing = list_folder(truth) if truth else None
    for name, split in _SPLIT_FOLDERS.items():
        split_folder = find_folder(listing, {name})
        if split_folder is None:
            continue
        images = list_folder(split_folder)
        index.problems.extend(_misplaced(images, root, category))
        masks = truth if split == "test" else None
        # VisA's 2cls conversions have ground_truth/{train,test}/bad
        if truth_listing is not None and not any(sub.name == name for sub in images.folders):
            masks = find_folder(truth_listing, {name}) or masks
        index.split(split).extend(samples_of_split(index, root, images, masks, category, united_masks=united_masks))


def samples_of_split(
    index: Index, root: Path, split: Listing, masks: Path | None, category: str, *, united_masks: bool = False
) -> Iterator[Sample]:
    """The images in the folders of labels of one split, paired with the masks below ``masks``."""
    normal: list[Path] = []
    groups: dict[str, list[Path]] = {}
    for folder in split.folders:
        listing = list_folder(folder)
        index.problems.extend(stray_problems(listing.strays, root, category))
        index.problems.extend(_nested(listing, root, category))
        if is_normal_folder(folder.name):
            normal.extend(listing.images)
        else:
            groups[folder.name] = list(listing.images)
    pairs: dict[Path, Path] = {}
    if masks is not None:
        pairs, problems = pair_masks(groups, normal, masks, root=root, category=category, united=united_masks)
        index.problems.extend(problems)
    for image in normal:
        yield Sample(relative(image, root), image, category, 0, "good", None)
    for defect_type, images in groups.items():
        for image in images:
            yield Sample(relative(image, root), image, category, 1, defect_type, pairs.get(image))


def _misplaced(split: Listing, root: Path, category: str) -> Iterator[Problem]:
    for image in split.images:
        message = (
            "lies beside the folders of labels, so it is unknown if it is normal; move it to good/ or a defect folder"
        )
        yield Problem(relative(image, root), message, "error", category)
    yield from stray_problems(split.strays, root, category)


def _nested(listing: Listing, root: Path, category: str) -> Iterator[Problem]:
    for folder in listing.folders:
        if list_below(folder).images:
            message = "images one folder too deep; move them one folder up"
            yield Problem(relative(folder, root), message, "error", category)


def _what_is_it(root: Path, folders: list[Path]) -> str:
    """Why a root without a single category is not this layout, with the setting that may be meant."""
    if is_category(list_folder(root)):
        return f"this is one category; use dataset=folder, or set dataset.root={root.absolute().parent}"
    for folder in folders:
        if any(is_category(list_folder(below)) for below in list_folder(folder).folders):
            return f"the categories lie one folder deeper; set dataset.root={folder.absolute()}"
        if any(below.name == "Data" for below in list_folder(folder).folders):
            return "this looks like the raw VisA layout; use dataset=visa"
    return "no folder in it has a test folder inside; expected <category>/test/<good or defect type>/<image>"

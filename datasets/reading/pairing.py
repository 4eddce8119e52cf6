"""Which mask belongs to which image, by name and never by position in a sorted list.

For an image ``<stem>.<ext>`` a mask may be called ``<stem>``, ``<stem>_mask``, ``<stem>_label``, ``<stem>_GT`` or
``<stem>_Segmentation`` with any image extension in any case, or be the only file in a folder ``<stem>/``. Masks lie in
``<masks>/<defect type>/`` or directly in ``<masks>/``. Whatever is not one to one is reported, not guessed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from zsad_bench.contract import Problem

from .layout import is_normal_folder, list_below, list_folder, relative

_SUFFIXES = ("_mask", "_label", "_gt", "_segmentation")


class _Stems:
    """Images by stem: exact spelling first, then without regard to case and Unicode form."""

    def __init__(self, images: Iterable[Path]) -> None:
        self._exact: dict[str, list[Path]] = {}
        self._folded: dict[str, list[Path]] = {}
        for image in images:
            self._exact.setdefault(image.stem, []).append(image)
            self._folded.setdefault(_fold(image.stem), []).append(image)

    def find(self, stems: Sequence[str]) -> list[Path]:
        exact = [image for stem in stems for image in self._exact.get(stem, ())]
        return exact or [image for stem in stems for image in self._folded.get(_fold(stem), ())]


def pair_masks(
    groups: Mapping[str, Sequence[Path]],
    normal: Sequence[Path],
    masks: Path,
    *,
    root: Path,
    category: str,
    united: bool = False,
) -> tuple[dict[Path, Path], list[Problem]]:
    """Pair anomalous images with the masks below one folder.

    Args:
        groups: folder of masks relative to ``masks`` ("scratch", "" for ``masks`` itself) -> its anomalous images.
        normal: normal images; a mask directly in ``masks`` that carries the name of one of them is ignored.
        masks: the folder with the masks. Masks in folders called good, ok... are ignored.
        root, category: for the paths in the problems.
        united: all masks in a folder ``<stem>/`` are parts of one mask; the pair then names the folder.

    Returns:
        image -> mask for the pairs that are certain, and a problem for everything else. Masks that are left over,
        images with two masks and masks of two images are errors. An image without a mask is not a problem here.
    """
    merged: dict[str, list[Path]] = {}
    for key, images in groups.items():
        merged.setdefault(_fold(key), []).extend(images)
    stems = {key: _Stems(images) for key, images in merged.items()}
    everywhere = _Stems([*(image for images in groups.values() for image in images), *normal])
    normal_images = set(normal)

    files, strays = _mask_files(masks)
    claims = []
    for mask in files:
        owners = _owners(mask, PurePosixPath(relative(mask.parent, masks)), stems, everywhere)
        if owners and normal_images.issuperset(owners):
            continue
        part_of_folder = united and owners and mask.parent != masks and _fold(mask.parent.name) == _fold(owners[0].stem)
        claims.append((mask.parent if part_of_folder else mask, owners))
    pairs, problems = _one_to_one(claims, root, category)
    return pairs, [*stray_problems(strays, root, category), *problems]


def pair_beside(
    images: Sequence[Path], masks: Sequence[Path], *, root: Path, category: str
) -> tuple[dict[Path, Path], list[Problem]]:
    """Pair images with masks that lie in the same folder; the caller knows which files are masks.

    Returns as :func:`pair_masks`. An image without a mask is not a problem here.
    """
    stems = _Stems(images)
    return _one_to_one([(mask, stems.find(_image_stems(mask.stem))) for mask in masks], root, category)


def _one_to_one(
    claims: Iterable[tuple[Path, list[Path]]], root: Path, category: str
) -> tuple[dict[Path, Path], list[Problem]]:
    """Pairs from (mask, images that it may belong to); whatever is not one to one is an error."""
    problems = []
    of_image: dict[Path, set[Path]] = {}
    for mask, owners in claims:
        where = relative(mask, root)
        if not owners:
            message = "mask without an image of that name; rename it after its image or remove it"
            problems.append(Problem(where, message, "error", category))
        elif len(owners) > 1:
            names = ", ".join(relative(image, root) for image in owners)
            message = f"this mask fits several images ({names}); put it in a folder named after the defect type"
            problems.append(Problem(where, message, "error", category))
        else:
            of_image.setdefault(owners[0], set()).add(mask)
    pairs = {}
    for image, candidates in of_image.items():
        if len(candidates) > 1:
            names = ", ".join(relative(mask, root) for mask in sorted(candidates))
            message = f"several masks fit this image ({names}); keep one of them"
            problems.append(Problem(relative(image, root), message, "error", category))
        else:
            (pairs[image],) = candidates
    return pairs, problems


def looks_like_mask(stem: str, stems: Collection[str]) -> bool:
    """True for ``a_mask`` where ``a`` is among the (case-folded) stems."""
    return any(other.casefold() in stems for other in _image_stems(stem)[1:])


def stray_problems(strays: Iterable[Path], root: Path, category: str) -> Iterator[Problem]:
    """Warnings for files among images that are not images."""
    for stray in strays:
        yield Problem(relative(stray, root), "not an image file; it is ignored, remove it", "warning", category)


def _mask_files(masks: Path) -> tuple[list[Path], list[Path]]:
    """Image files and other files below the folder of masks, without those of normal images."""
    listing = list_folder(masks)
    below = [list_below(folder) for folder in listing.folders if not is_normal_folder(folder.name)]
    files = [*listing.images, *(mask for found in below for mask in found.images)]
    strays = [*listing.strays, *(stray for found in below for stray in found.strays)]
    return files, strays


def _owners(mask: Path, folder: PurePosixPath, stems: Mapping[str, _Stems], everywhere: _Stems) -> list[Path]:
    """The images that a mask may belong to; ``folder`` is the mask's folder relative to the folder of all masks."""
    names = _image_stems(mask.stem)
    group = stems.get(_fold(_key(folder)))
    if group is not None and (found := group.find(names)):
        return found
    if _key(folder) == "":
        return everywhere.find(names)
    parent = stems.get(_fold(_key(folder.parent)))
    return parent.find([folder.name]) if parent is not None else []


def _image_stems(mask_stem: str) -> list[str]:
    """Stems of the images that a mask of this stem may belong to."""
    lowered = mask_stem.lower()
    cut = [mask_stem[: -len(suffix)] for suffix in _SUFFIXES if lowered.endswith(suffix)]
    return [mask_stem, *(stem for stem in cut if stem)]


def _key(folder: PurePosixPath) -> str:
    return "" if folder == PurePosixPath() else folder.as_posix()


def _fold(name: str) -> str:
    """Equal for names that differ in case or in Unicode form only (macOS decomposes accents)."""
    return unicodedata.normalize("NFC", name).casefold()

"""Listing folders the way dataset layouts need it: in any case, with any image extension, without litter."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from zsad_bench.core.errors import UserError
from zsad_bench.data.images import has_image_extension

NORMAL_FOLDERS = frozenset({"good", "ok", "normal", "nominal", "no", "mt_free"})
ANOMALOUS_FOLDERS = frozenset(
    {"bad", "ko", "ng", "yes", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal"}
)
MASK_FOLDERS = ("ground_truth", "groundtruth", "masks", "mask")

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "labels.txt"})


@dataclass(frozen=True)
class Listing:
    """One folder: sub-folders, image files by extension, and other files that do not belong here. Sorted by name."""

    folders: tuple[Path, ...]
    images: tuple[Path, ...]
    strays: tuple[Path, ...]


def list_folder(folder: Path) -> Listing:
    """List a folder without hidden files and litter. UserError when it cannot be read."""
    folders, images, strays = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                path = folder / entry.name
                if is_litter(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(path)
                elif has_image_extension(path):
                    images.append(path)
                else:
                    strays.append(path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check the path and its permissions") from error
    return Listing(tuple(folders), tuple(images), tuple(strays))


def list_below(folder: Path) -> Listing:
    """As :func:`list_folder` with the images and strays of all folders below; links back to a parent are left out."""
    listing = list_folder(folder)
    images, strays = list(listing.images), list(listing.strays)
    for sub in listing.folders:
        if sub.is_symlink() and folder.resolve().is_relative_to(sub.resolve()):
            continue
        below = list_below(sub)
        images.extend(below.images)
        strays.extend(below.strays)
    return Listing(listing.folders, tuple(sorted(images)), tuple(sorted(strays)))


def is_litter(name: str) -> bool:
    """Hidden files and what file managers and archives leave behind."""
    return name.startswith(".") or name.casefold() in _LITTER


def is_normal_folder(name: str) -> bool:
    """True for the names under which layouts keep normal images (good, ok, Normal...)."""
    return name.casefold() in NORMAL_FOLDERS


def find_folder(listing: Listing, names: Collection[str]) -> Path | None:
    """The only sub-folder with one of these (lower-case) names, in any case. UserError when there are several."""
    found = [folder for folder in listing.folders if folder.name.casefold() in names]
    if len(found) > 1:
        both = " and ".join(folder.name for folder in found)
        raise UserError(f"{found[0].parent}: holds {both}, which mean the same; keep one of them")
    return found[0] if found else None


def relative(path: Path, root: Path) -> str:
    """POSIX path of a file below the root, for image ids and messages."""
    return path.relative_to(root).as_posix()

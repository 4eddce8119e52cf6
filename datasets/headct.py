"""HeadCT (head CT hemorrhage): ``head_ct/NNN.png`` and ``labels.csv`` with the columns ``id, hemorrhage``; no masks."""

from __future__ import annotations

from pathlib import Path

from zsad_bench.contract import Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.csv_rows import csv_rows
from .reading.layout import list_folder, relative
from .reading.pairing import stray_problems

_CATEGORY = "headct"
_FOLDER = "head_ct"


class HeadCT(Published):
    """HeadCT in its published layout, where the folder of images may lie in another one of the same name."""

    EXPECTED = "labels.csv and head_ct/000.png"

    def is_original(self, root: Path) -> bool:
        """True when labels.csv and the folder of images are there."""
        return (root / "labels.csv").is_file() and _FOLDER in folders_of(root)

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        folder = folders_of(self.root)[_FOLDER]
        listing = list_folder(folders_of(folder).get(_FOLDER, folder))
        index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
        labels = _labels(self.root / "labels.csv")
        for image in listing.images:
            label = labels.pop(int(image.stem), None) if image.stem.isascii() and image.stem.isdigit() else None
            if label is None:
                message = "labels.csv has no line for this image; add its label or remove the image"
                index.problems.append(Problem(relative(image, self.root), message, "error", _CATEGORY))
                continue
            kind = "hemorrhage" if label else "good"
            index.test.append(Sample(relative(image, self.root), image, _CATEGORY, label, kind, None))
        for number in labels:
            message = f"names image {number:03}, which does not exist; restore it or drop the line"
            index.problems.append(Problem("labels.csv", message, "error", _CATEGORY))
        return index


def _labels(path: Path) -> dict[int, int]:
    """Number of the image -> 0 or 1. UserError naming the line that is something else."""
    labels: dict[int, int] = {}
    for line, row in csv_rows(path, ("id", "hemorrhage")):
        number, label = row["id"], row["hemorrhage"]
        if not (number.isascii() and number.isdigit()) or label not in ("0", "1"):
            raise UserError(f"{path}, line {line}: id '{number}', hemorrhage '{label}'; expected a number, and 0 or 1")
        if int(number) in labels:
            raise UserError(f"{path}, line {line}: id {number} stands there twice; keep one line")
        labels[int(number)] = int(label)
    return labels

"""GC10-DET: folders ``1/`` to ``10/`` of steel images and Pascal VOC boxes in ``lable/<stem>.xml`` (its spelling).

Every image has a defect and there are no masks. The only protocol, ``boxes``, takes the boxes as masks: a pixel-level
number then says how well boxes are found, not defects. An image may lie in several folders; it is used once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from zsad_bench.contract import Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.layout import Listing, list_folder, relative
from .reading.pairing import stray_problems

_CATEGORY = "gc10"
_LABELS = ("lable", "label", "labels")
_DEFECTS = (
    *("punching_hole", "welding_line", "crescent_gap", "water_spot", "oil_spot"),
    *("silk_spot", "inclusion", "rolled_pit", "crease", "waist_folding"),
)


class Gc10(Published):
    """GC10-DET in its published layout."""

    PROTOCOLS = ("boxes",)
    EXPECTED = "the folders 1 to 10 and lable"

    def is_original(self, root: Path) -> bool:
        """True when there are folder 1 and a folder of labels."""
        found = folders_of(root)
        return "1" in found and _labels(found) is not None

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        found = folders_of(self.root)
        labels = _labels(found)
        assert labels is not None
        boxes = {path.stem: path for path in list_folder(labels).strays if path.suffix.lower() == ".xml"}
        seen: dict[str, Path] = {}
        for number, defect in enumerate(_DEFECTS, start=1):
            listing = list_folder(found[str(number)]) if str(number) in found else Listing((), (), ())
            index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
            for image in listing.images:
                where = relative(image, self.root)
                if (first := seen.setdefault(image.stem, image)) != image:
                    message = f"also lies in {relative(first, self.root)}; it is used once, under that name"
                    index.problems.append(Problem(where, message, "warning", _CATEGORY))
                    continue
                index.test.append(Sample(where, image, _CATEGORY, 1, defect, boxes.get(image.stem)))
        for stem in boxes.keys() - seen.keys():
            message = "boxes without an image of that name; rename the file after its image or remove it"
            index.problems.append(Problem(relative(boxes[stem], self.root), message, "error", _CATEGORY))
        return index

    def _mask(self, sample: Sample) -> np.ndarray:
        assert sample.mask_path is not None
        if sample.mask_path.suffix.lower() != ".xml":
            return super()._mask(sample)
        mask = np.zeros(self._image_size(sample), dtype=bool)
        for left, top, right, bottom in read_boxes(sample.mask_path):
            mask[max(top - 1, 0) : bottom, max(left - 1, 0) : right] = True
        return mask


def read_boxes(path: Path) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of a Pascal VOC file: pixels counted from 1, both ends inside the box.

    Raises:
        UserError: the file is no such XML, or a box has no pixel.
    """
    try:
        return [_box(box) for box in ElementTree.parse(path).getroot().iter("bndbox")]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as Pascal VOC boxes ({error}); restore the file") from error


def _box(element: ElementTree.Element) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(float(element.findtext(key, ""))) for key in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise ValueError(f"a box ends before it begins: {left}, {top}, {right}, {bottom}")
    return left, top, right, bottom


def _labels(folders: dict[str, Path]) -> Path | None:
    return next(_present(folders), None)


def _present(folders: dict[str, Path]) -> Iterator[Path]:
    return (folders[name] for name in _LABELS if name in folders)

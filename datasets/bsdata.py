"""BSData (ball screw drives): ``data/<name>.jpg`` and labelme polygons in ``label/<name>.json`` for 394 of 1104 images.

The other images have no label file, and nothing says that they are free of defects. Protocols: ``unlabelled_normal``
takes them as normal; ``labelled`` uses only the 394 with polygons, all anomalous. Masks are the filled polygons.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from zsad_bench.contract import Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.layout import list_folder, relative
from .reading.pairing import stray_problems

_CATEGORY = "bsd"


class BSData(Published):
    """BSData in its published layout."""

    PROTOCOLS = ("unlabelled_normal", "labelled")
    EXPECTED = "data/<name>.jpg and label/<name>.json"

    def is_original(self, root: Path) -> bool:
        """True when there are ``data`` and ``label`` with JSON files."""
        found = folders_of(root)
        return "data" in found and "label" in found and any(found["label"].glob("*.json"))

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        found = folders_of(self.root)
        listing = list_folder(found["data"])
        index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
        polygons = {path.stem: path for path in list_folder(found["label"]).strays if path.suffix.lower() == ".json"}
        for image in listing.images:
            outline = polygons.pop(image.stem, None)
            if outline is None and self.variant == "labelled":
                continue
            label, defect_type = (0, "good") if outline is None else (1, "pitting")
            index.test.append(Sample(relative(image, self.root), image, _CATEGORY, label, defect_type, outline))
        for path in polygons.values():
            message = "polygons without an image of that name; rename the file after its image or remove it"
            index.problems.append(Problem(relative(path, self.root), message, "error", _CATEGORY))
        return index

    def _mask(self, sample: Sample) -> np.ndarray:
        assert sample.mask_path is not None
        if sample.mask_path.suffix.lower() != ".json":
            return super()._mask(sample)
        height, width = self._image_size(sample)
        canvas = Image.new("1", (width, height))
        draw = ImageDraw.Draw(canvas)
        for points in read_polygons(sample.mask_path):
            draw.polygon(points, fill=1, outline=1)
        return np.array(canvas)


def read_polygons(path: Path) -> list[list[tuple[float, float]]]:
    """Polygons of a labelme file, each a list of (x, y) in pixels from the upper left corner.

    Raises:
        UserError: the file is no such JSON, or holds a shape that is not a polygon of three or more points.
    """
    try:
        shapes = json.loads(path.read_text(encoding="utf-8"))["shapes"]
        return [_polygon(shape) for shape in shapes]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read as labelme polygons ({type(error).__name__}: {error}); restore the file"
        ) from error


def _polygon(shape: dict[str, object]) -> list[tuple[float, float]]:
    points = shape["points"]
    if shape.get("shape_type", "polygon") != "polygon" or not isinstance(points, list) or len(points) < 3:
        raise ValueError(f"a shape of type {shape.get('shape_type')!r} is not a polygon of at least 3 points")
    return [(float(x), float(y)) for x, y in points]

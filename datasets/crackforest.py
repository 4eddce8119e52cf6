"""CrackForest (CFD, road cracks): ``image/NNN.jpg`` and ``groundTruth/NNN.mat``; every image has a crack.

The MAT files hold ``groundTruth.Segmentation``, region numbers of which 1 is the road and larger ones are cracks, so a
pixel is anomalous when its number minus one is greater than ``dataset.mask_threshold``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from zsad_bench.contract import Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.layout import list_folder, relative
from .reading.pairing import stray_problems

_CATEGORY = "road"
_BACKGROUND = 1


class CrackForest(Published):
    """CrackForest in its published layout."""

    EXPECTED = "image/001.jpg and groundTruth/001.mat"

    def is_original(self, root: Path) -> bool:
        """True when there are ``image`` and ``groundTruth`` with MAT files."""
        found = folders_of(root)
        return "image" in found and "groundtruth" in found and any(found["groundtruth"].glob("*.mat"))

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        found = folders_of(self.root)
        listing = list_folder(found["image"])
        index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
        truth = {path.stem: path for path in list_folder(found["groundtruth"]).strays if path.suffix.lower() == ".mat"}
        for image in listing.images:
            image_id = relative(image, self.root)
            index.test.append(Sample(image_id, image, _CATEGORY, 1, "crack", truth.pop(image.stem, None)))
        for path in truth.values():
            message = "ground truth without an image of that name; rename it after its image or remove it"
            index.problems.append(Problem(relative(path, self.root), message, "error", _CATEGORY))
        return index

    def _mask(self, sample: Sample) -> np.ndarray:
        assert sample.mask_path is not None
        if sample.mask_path.suffix.lower() != ".mat":
            return super()._mask(sample)
        return read_segmentation(sample.mask_path) > _BACKGROUND + self.mask_threshold


def read_segmentation(path: Path) -> np.ndarray:
    """Region numbers (H, W) of a CrackForest MAT file. Raises UserError naming a file that holds none."""
    try:
        regions = np.asarray(loadmat(path)["groundTruth"][0, 0]["Segmentation"])
    except Exception as error:  # damaged files make scipy raise almost anything
        raise UserError(
            f"{path}: cannot be read as CrackForest ground truth ({type(error).__name__}: {error}); restore the file"
        ) from error
    if regions.ndim != 2 or regions.dtype.kind not in "uif":
        raise UserError(f"{path}: groundTruth.Segmentation is no image of region numbers; restore the file")
    return regions

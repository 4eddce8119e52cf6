"""MVTec LOCO AD: MVTec style with a validation split and a folder of masks for every anomalous image.

``<category>/ground_truth/<type>/<image stem>/000.png, 001.png ...`` hold one annotated region each; their pixel values
point into ``defects_config.json`` and need not be 255. The mask of the image is the union of all. AutoVI lies the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zsad_bench.contract import Sample
from zsad_bench.core.errors import UserError
from zsad_bench.data.images import read_mask_file

from .mvtec import MVTec, is_category
from .reading.layout import find_folder, list_folder


class Loco(MVTec):
    """MVTec LOCO AD, or any MVTec-style folder with several mask files an image."""

    united_masks = True

    def recognises(self, root: Path) -> bool:
        """True when a category has a folder of masks for a single image."""
        for folder in list_folder(root).folders:
            listing = list_folder(folder)
            truth = find_folder(listing, {"ground_truth"}) if is_category(listing) else None
            if truth is not None and any(list_folder(kind).folders for kind in list_folder(truth).folders):
                return True
        return False

    def mask_files(self, sample: Sample) -> tuple[Path, ...]:
        """All files in the image's folder of masks."""
        if sample.mask_path is None or not sample.mask_path.is_dir():
            return super().mask_files(sample)
        return list_folder(sample.mask_path).images

    def _mask(self, sample: Sample) -> np.ndarray:
        regions = [read_mask_file(path, self.mask_threshold) for path in self.mask_files(sample)]
        if len({region.shape for region in regions}) > 1:
            raise UserError(f"{sample.mask_path}: the masks in this folder differ in size; restore them")
        return np.logical_or.reduce(regions)

"""KolektorSDD2: ``train/NNNNN.png`` and ``test/NNNNN.png``, each with ``NNNNN_GT.png``; an all-zero one means normal.

The official split is kept. Train holds defects too, because the dataset was made for supervised methods.
"""

from __future__ import annotations

from pathlib import Path

from zsad_bench.contract import SPLITS, Index, Sample

from .original_or_copy import Published, folders_of
from .reading.layout import list_folder, relative
from .reading.mask_labels import anomalous_masks, without_label
from .reading.pairing import pair_beside, stray_problems

_CATEGORY = "ksdd2"


class Ksdd2(Published):
    """KolektorSDD2 in its published layout."""

    EXPECTED = "train/10000.png, train/10000_GT.png and the same in test"

    def is_original(self, root: Path) -> bool:
        """True when train or test holds files called ..._GT."""
        found = folders_of(root)
        return any(_is_mask(path) for name in SPLITS if name in found for path in list_folder(found[name]).images)

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        for name in SPLITS:
            if (folder := folders_of(self.root).get(name)) is None:
                continue
            listing = list_folder(folder)
            index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
            images = [path for path in listing.images if not _is_mask(path)]
            masks = [path for path in listing.images if _is_mask(path)]
            pairs, problems = pair_beside(images, masks, root=self.root, category=_CATEGORY)
            index.problems.extend([*problems, *without_label(images, pairs, root=self.root, category=_CATEGORY)])
            marks, problems = anomalous_masks(pairs, self.mask_threshold, root=self.root, category=_CATEGORY)
            index.problems.extend(problems)
            for image, mask in pairs.items():
                if mask in marks:
                    label, defect_type, kept = (1, "defect", mask) if marks[mask] else (0, "good", None)
                    image_id = relative(image, self.root)
                    index.split(name).append(Sample(image_id, image, _CATEGORY, label, defect_type, kept))
        return index


def _is_mask(path: Path) -> bool:
    return path.stem.casefold().endswith("_gt")

"""Magnetic tile defects as published: ``MT_<Defect>/Imgs/<name>.jpg`` with ``<name>.png`` beside it.

``MT_Free`` is normal. A few masks of ``MT_Uneven`` mark no pixel; the images count as anomalous all the same, as in the
release.
"""

from __future__ import annotations

from pathlib import Path

from zsad_bench.contract import Index, Sample

from .original_or_copy import Published, folders_of
from .reading.layout import is_normal_folder, list_folder, relative
from .reading.pairing import pair_beside, stray_problems

_CATEGORY = "magnetic_tile"
_PREFIX = "mt_"


class MagneticTile(Published):
    """The magnetic tile dataset in its published layout. It has no train split: every image is a test image."""

    EXPECTED = "MT_Free/Imgs and MT_Blowhole/Imgs"

    def is_original(self, root: Path) -> bool:
        """True when there are folders ``MT_.../Imgs``."""
        return any("imgs" in folders_of(folder) for folder in _kinds(root))

    def _original(self) -> Index:
        index = Index(categories={_CATEGORY})
        for folder in _kinds(self.root):
            if (place := folders_of(folder).get("imgs")) is None:
                continue
            listing = list_folder(place)
            index.problems.extend(stray_problems(listing.strays, self.root, _CATEGORY))
            images = [path for path in listing.images if path.suffix.lower() in (".jpg", ".jpeg")]
            masks = [path for path in listing.images if path not in set(images)]
            pairs, problems = pair_beside(images, masks, root=self.root, category=_CATEGORY)
            index.problems.extend(problems)
            normal = is_normal_folder(folder.name)
            defect_type = "good" if normal else folder.name[len(_PREFIX) :].lower()
            for image in images:
                mask = None if normal else pairs.get(image)
                image_id = relative(image, self.root)
                index.test.append(Sample(image_id, image, _CATEGORY, int(not normal), defect_type, mask))
        return index


def _kinds(root: Path) -> list[Path]:
    return [folder for folder in list_folder(root).folders if folder.name.lower().startswith(_PREFIX)]

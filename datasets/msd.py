"""MSD (mobile phone screens) and other sets in Pascal VOC style: ``JPEGImages``, ``SegmentationClass``, ``ImageSets``.

Masks are palette images of class numbers; index 0 is the background. Some releases add normal images: a mask without a
marked pixel means normal. Protocols: ``test_split`` (the images of ``ImageSets/Segmentation/test.txt``) and
``all_images``.
"""

from __future__ import annotations

from pathlib import Path

from zsad_bench.contract import Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.layout import list_folder, relative
from .reading.mask_labels import anomalous_masks, without_label
from .reading.pairing import pair_masks, stray_problems

_TEST_FILE = "ImageSets/Segmentation/test.txt"


class Msd(Published):
    """A single-category dataset in Pascal VOC style, named after ``dataset.name``."""

    PROTOCOLS = ("test_split", "all_images")
    EXPECTED = "JPEGImages and SegmentationClass"

    def is_original(self, root: Path) -> bool:
        """True when JPEGImages and SegmentationClass are there."""
        return {"jpegimages", "segmentationclass"} <= folders_of(root).keys()

    def _original(self) -> Index:
        category = self.name
        index = Index(categories={category})
        found = folders_of(self.root)
        listing = list_folder(found["jpegimages"])
        index.problems.extend(stray_problems(listing.strays, self.root, category))
        pairs, problems = pair_masks(
            {"": listing.images}, [], found["segmentationclass"], root=self.root, category=category
        )
        index.problems.extend(problems)
        images = self._tested(index, listing.images)
        index.problems.extend(without_label(images, pairs, root=self.root, category=category))
        tested = {image: pairs[image] for image in images if image in pairs}
        marks, problems = anomalous_masks(tested, self.mask_threshold, root=self.root, category=category)
        index.problems.extend(problems)
        for image in images:
            mask = pairs.get(image)
            if mask in marks:
                label, defect_type, kept = (1, "defect", mask) if marks[mask] else (0, "good", None)
                index.test.append(Sample(relative(image, self.root), image, category, label, defect_type, kept))
        return index

    def _tested(self, index: Index, images: tuple[Path, ...]) -> list[Path]:
        """The images of the chosen protocol; names in the split file without an image are errors."""
        if self.variant == "all_images":
            return list(images)
        path = self.root / _TEST_FILE
        try:
            names = path.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); restore it, or use dataset.protocol=all_images"
            ) from error
        by_stem = {image.stem: image for image in images}
        for name in names:
            if name not in by_stem:
                message = f"listed in {_TEST_FILE} but there is no such image; restore it"
                index.problems.append(Problem(f"JPEGImages/{name}", message, "error", self.name))
        return [by_stem[name] for name in dict.fromkeys(names) if name in by_stem]

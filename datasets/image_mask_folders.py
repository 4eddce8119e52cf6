"""A folder of images and a folder of masks, every image anomalous: RSDDs, cracks, polyps, ISIC, TN3K, NEU-Seg.

Which folders these are stands in the dataset's YAML. Image-level metrics do not exist for such data, and result rows
say "all anomalous".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from zsad_bench.contract import SPLITS, DatasetOptions, Index, Problem, Sample, Split
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.layout import list_below, relative
from .reading.pairing import pair_masks, stray_problems


@dataclass(frozen=True)
class Part:
    """Where the images and masks of one category and split lie below the root; any case, ``/`` between levels."""

    category: str
    split: Split
    images: str
    masks: str


class ImageMaskFolders(Published):
    """Images and masks in folders that the configuration names.

    Args beyond those of :class:`~zsad_bench.contract.Dataset`:
        parts: mappings with ``images``, ``masks`` (folders below the root), ``category`` and ``split`` (train or test,
            the default). Copies of a dataset differ, so several may stand for one category and split: the first
            whose two folders exist is used.
        defect_type: the defect type of every image.
    """

    def __init__(
        self,
        *,
        parts: Sequence[Mapping[str, str]],
        defect_type: str = "defect",
        **options: Unpack[DatasetOptions],
    ) -> None:
        super().__init__(**options)
        self._parts = [_part(values, self.name) for values in parts]
        self._defect_type = defect_type

    def _expected_layout(self) -> str:
        return " or ".join(f"the folders '{part.images}' and '{part.masks}'" for part in self._parts)

    def is_original(self, root: Path) -> bool:
        """True when the folders of a part are there."""
        return any(_find(root, part.images) and _find(root, part.masks) for part in self._parts)

    def _original(self) -> Index:
        index = Index()
        done = set()
        used: list[Path] = []
        left: list[Path] = []
        for part in self._parts:
            images, masks = _find(self.root, part.images), _find(self.root, part.masks)
            if images is None or masks is None or (part.category, part.split) in done:
                left += [folder for folder in (images, masks) if folder is not None]
                continue
            done.add((part.category, part.split))
            used += [images, masks]
            index.categories.add(part.category)
            self._read_part(index, part, images, masks)
        index.problems.extend(self._not_read(left, used))
        return index

    def _not_read(self, left: Sequence[Path], used: Sequence[Path]) -> Iterator[Problem]:
        """Folders that another copy of the dataset would have its images or masks in, and that hold images here."""
        read = {image for folder in used for image in list_below(folder).images}
        where = ", ".join(dict.fromkeys(relative(folder, self.root) for folder in used))
        for folder in dict.fromkeys(left):
            if more := sum(image not in read for image in list_below(folder).images):
                message = f"its images ({more}) are not read, because {where} are complete; keep one copy"
                yield Problem(relative(folder, self.root), message, "warning")

    def _read_part(self, index: Index, part: Part, images: Path, masks: Path) -> None:
        listing = list_below(images)
        index.problems.extend(stray_problems(listing.strays, self.root, part.category))
        groups: dict[str, list[Path]] = {}
        for image in listing.images:
            folder = relative(image.parent, images)
            groups.setdefault("" if folder == "." else folder, []).append(image)
        pairs, problems = pair_masks(groups, [], masks, root=self.root, category=part.category)
        index.problems.extend(problems)
        for image in listing.images:
            image_id = relative(image, self.root)
            sample = Sample(image_id, image, part.category, 1, self._defect_type, pairs.get(image))
            index.split(part.split).append(sample)


def _part(values: Mapping[str, str], name: str) -> Part:
    keys = {"category", "split", "images", "masks"}
    split = values.get("split", "test")
    if not {"images", "masks"} <= set(values) <= keys or split not in SPLITS:
        raise UserError(
            f"dataset.parts: {dict(values)}: needs images and masks, and may have category and split (train or test)"
        )
    return Part(values.get("category", name), split, values["images"], values["masks"])


def _find(root: Path, place: str) -> Path | None:
    """A folder below ``root``, looked up level by level in any case."""
    folder: Path | None = root
    for name in place.split("/"):
        folder = folders_of(folder).get(name.casefold()) if folder is not None else None
    return folder

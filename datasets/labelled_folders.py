"""Folders of labels and no masks: BrainMRI and Br35H keep normal images in ``no/`` and others in ``yes/``.

The archives hold more: the same two folders again one level deeper, unlabelled images to predict, another task's data.
Only the two folders directly in the root are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from zsad_bench.contract import DatasetOptions, Index, Problem, Sample

from .original_or_copy import Published, folders_of
from .reading.layout import list_folder, relative
from .reading.pairing import stray_problems


class LabelledFolders(Published):
    """A single category, named after ``dataset.name``, whose folders tell the labels.

    Args beyond those of :class:`~zsad_bench.contract.Dataset`:
        folders: folder name in lower case -> defect type; ``good`` marks normal images.
    """

    def __init__(self, *, folders: Mapping[str, str], **options: Unpack[DatasetOptions]) -> None:
        super().__init__(**options)
        self._folders = {str(folder): str(kind) for folder, kind in folders.items()}

    def _expected_layout(self) -> str:
        return f"the folders {' and '.join(self._folders)}"

    def is_original(self, root: Path) -> bool:
        """True when all folders are there."""
        return self._folders.keys() <= folders_of(root).keys()

    def _original(self) -> Index:
        index = Index(categories={self.name})
        for name, folder in folders_of(self.root).items():
            if name not in self._folders:
                message = f"not one of the folders {', '.join(self._folders)}; it is not read"
                index.problems.append(Problem(relative(folder, self.root), message, "warning"))
                continue
            listing = list_folder(folder)
            index.problems.extend(stray_problems(listing.strays, self.root, self.name))
            kind = self._folders[name]
            for image in listing.images:
                image_id = relative(image, self.root)
                index.test.append(Sample(image_id, image, self.name, int(kind != "good"), kind, None))
        return index

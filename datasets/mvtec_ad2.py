"""MVTec AD 2: a public test set with its ground truth inside, and two private ones without labels.

Normal images lie in ``<category>/train/good`` and ``validation/good``, the public test images in
``<category>/test_public/{good,bad}``, their masks in ``test_public/ground_truth/bad/<stem>_mask.png``. The private test
sets ``<category>/test_private`` and ``test_private_mixed`` are flat folders of images. Protocols: ``public`` (labels
and masks are known), ``private`` and ``private_mixed`` (scores and maps only; the publisher's server has the labels).
"""

from __future__ import annotations

from pathlib import Path

from zsad_bench.contract import Index, Problem, Sample

from .mvtec import samples_of_split
from .original_or_copy import Published, folders_of
from .reading.layout import Listing, find_folder, list_folder, relative
from .reading.pairing import stray_problems

_TEST = {"public": "test_public", "private": "test_private", "private_mixed": "test_private_mixed"}


class MVTecAD2(Published):
    """MVTec AD 2 in its published layout."""

    PROTOCOLS = tuple(_TEST)
    EXPECTED = "<category>/test_public/{good,bad}"

    def is_original(self, root: Path) -> bool:
        """True when a folder has ``test_public`` inside."""
        return any("test_public" in folders_of(folder) for folder in list_folder(root).folders)

    def _original(self) -> Index:
        index = Index()
        for folder in list_folder(self.root).folders:
            listing = list_folder(folder)
            if find_folder(listing, {"test_public"}) is None:
                message = "no test_public folder inside; it is not taken for a category"
                index.problems.append(Problem(relative(folder, self.root), message, "warning"))
                continue
            category = folder.name
            index.categories.add(category)
            for name in ("train", "validation"):
                if (split := find_folder(listing, {name})) is not None:
                    index.train.extend(samples_of_split(index, self.root, list_folder(split), None, category))
            self._test(index, listing, category)
        return index

    def _test(self, index: Index, listing: Listing, category: str) -> None:
        folder = find_folder(listing, {_TEST[self.variant]})
        if folder is None:
            return
        inside = list_folder(folder)
        if self.variant == "public":
            truth = find_folder(inside, {"ground_truth"})
            labelled = Listing(tuple(f for f in inside.folders if f != truth), inside.images, inside.strays)
            for image in inside.images:
                message = "lies beside good/ and bad/, so its label is unknown; move it into one of them"
                index.problems.append(Problem(relative(image, self.root), message, "error", category))
            index.test.extend(samples_of_split(index, self.root, labelled, truth, category))
        else:
            for image in inside.images:
                index.test.append(Sample(relative(image, self.root), image, category, None, "", None))
        index.problems.extend(stray_problems(inside.strays, self.root, category))

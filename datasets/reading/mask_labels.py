"""Labels from masks: in some datasets every image has a mask, and an empty one means that the image is normal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zsad_bench.contract import Problem
from zsad_bench.data.images import UnreadableImage, read_mask_file

from .layout import relative


def marked_strips(
    pairs: Mapping[Path, Path], threshold: int, n_strips: int, *, root: Path, category: str
) -> tuple[dict[Path, tuple[bool, ...]], list[Problem]]:
    """Which strips of which masks mark at least one pixel; every mask is decoded once, in threads.

    Args:
        pairs: image -> mask file.
        threshold: a pixel counts when greater, in the units of the file.
        n_strips: strips along the height, from the top (:func:`strip_rows`); 1 is the whole mask.
        root, category: for the paths in the problems.

    Returns:
        mask -> one truth value a strip, without the unreadable masks; for each of these an error that names its image
    """

    def read(mask: Path) -> tuple[bool, ...] | UnreadableImage:
        try:
            marks = read_mask_file(mask, threshold)
        except UnreadableImage as error:
            return error
        return tuple(bool(marks[strip_rows(len(marks), n_strips, strip)].any()) for strip in range(n_strips))

    found, problems = {}, []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        image_of = {mask: image for image, mask in sorted(pairs.items(), key=lambda pair: pair[1])}
        for mask, result in zip(image_of, pool.map(read, image_of), strict=True):
            if isinstance(result, tuple):
                found[mask] = result
            else:
                image = relative(image_of[mask], root)
                message = f"the mask tells the label of {image} but cannot be read ({result})"
                problems.append(Problem(relative(mask, root), message, "error", category))
    return found, problems


def anomalous_masks(
    pairs: Mapping[Path, Path], threshold: int, *, root: Path, category: str
) -> tuple[dict[Path, bool], list[Problem]]:
    """As :func:`marked_strips` for whole masks: mask -> marks at least one pixel."""
    found, problems = marked_strips(pairs, threshold, 1, root=root, category=category)
    return {mask: marks for mask, (marks,) in found.items()}, problems


def strip_rows(height: int, n_strips: int, strip: int) -> slice:
    """Rows of a strip: from ``height * strip // n_strips`` up to where the next one begins."""
    return slice(height * strip // n_strips, height * (strip + 1) // n_strips)


def without_label(images: Sequence[Path], pairs: Mapping[Path, Path], *, root: Path, category: str) -> list[Problem]:
    """An error for every image that has no mask although masks tell the labels."""
    message = "has no mask, so it is unknown if it is normal; restore the mask or remove the image"
    return [Problem(relative(image, root), message, "error", category) for image in images if image not in pairs]

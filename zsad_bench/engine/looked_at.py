"""Masks and small photos that jobs of this process have looked at already, known again by content.

The jobs of a sweep measure and draw the same images; each is decoded once for its features and once for its pictures,
whatever the number of jobs. What is kept is bounded, and what was not used for longest goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.checksums import file_sha256
from zsad_bench.data.geometry import Geometry, image_to_array, mask_to_array

KEPT_BYTES = 48 << 20
"""Of masks and photos together; a photo of a contact sheet takes 85 kB, a mask at 240 pixels 7 kB."""

_kept: LRUCache[Hashable, NDArray[np.uint8]] = LRUCache(KEPT_BYTES, getsizeof=lambda array: max(array.nbytes, 1))


def small_photo(dataset: Dataset, sample: Sample, geometry: Geometry) -> NDArray[np.uint8]:
    """RGB pixels (S, S, 3) of a photo. Raises UnreadableImage naming the file."""
    key = ("photo", *_image_key(dataset, sample, geometry))
    return _known(key, lambda: image_to_array(dataset.read_image(sample), geometry))


def small_mask(dataset: Dataset, sample: Sample, geometry: Geometry) -> NDArray[np.bool_] | None:
    """Mask (S, S) of an image, None where its pixels are not known.

    Raises:
        UserError: as :meth:`Dataset.read_mask`.
    """
    if sample.label is None or (sample.label == 1 and sample.mask_path is None):
        return None
    size = geometry.size

    def packed() -> NDArray[np.uint8]:
        mask = dataset.read_mask(sample)
        assert mask is not None
        return np.packbits(mask_to_array(mask, geometry))

    try:
        files = tuple(file_sha256(path) for path in dataset.mask_files(sample))
    except OSError:  # which reading says in one line
        files = None
    rule = (type(dataset), dataset.mask_threshold, sample.label)
    bits = packed() if files is None else _known(("mask", files, rule, *_image_key(dataset, sample, geometry)), packed)
    return np.unpackbits(bits, count=size * size).view(np.bool_).reshape(size, size)


def _image_key(dataset: Dataset, sample: Sample, geometry: Geometry) -> tuple[Hashable, ...]:
    return dataset.content_key(sample), geometry


def _known(key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    found = _kept.get(key)
    if found is None:
        found = make()
        if found.nbytes <= KEPT_BYTES:
            _kept[key] = found
    return found

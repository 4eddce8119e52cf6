"""The scores of a category area by area, sorted once: what exact metrics and histograms are made from.

An *area* is the normal part of an image, or one region of its mask (:mod:`zsad_bench.metrics.regions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.spooled import Stack
from zsad_bench.metrics.regions import label_regions


class ImageAreas(NamedTuple):
    """Scores of one image, each part ascending.

    Attributes:
        normal: (n,) of its normal pixels.
        regions: (m,) of its anomalous pixels, region after region.
        sizes: (r,) pixels of each region; they add up to m.
    """

    normal: NDArray[np.floating]
    regions: NDArray[np.floating]
    sizes: NDArray[np.int64]

    def each_region(self) -> Iterator[NDArray[np.floating]]:
        """The scores of one region after another."""
        yield from np.split(self.regions, np.cumsum(self.sizes)[:-1]) if len(self.sizes) else ()


class SortedAreas:
    """All images of a category with a known mask; regions are labelled and scores are sorted on construction.

    Args:
        masks: n bool masks (H, W).
        maps: n maps (H, W), all of one type and of finite scores; read one by one.
        folder: where scores that are too many for memory lie; None for the system's folder.

    Attributes:
        n_positive, n_negative: anomalous and normal pixels.
        dtype: of the scores.
    """

    def __init__(
        self, masks: Sequence[NDArray[np.bool_]], maps: Sequence[NDArray[np.floating]], folder: Path | None = None
    ) -> None:
        self.dtype = maps[0].dtype if len(maps) else np.dtype(np.float32)
        self.n_positive = self.n_negative = 0
        self._ordered: Stack[np.floating] = Stack(self.dtype.type, folder)
        self._sizes: list[NDArray[np.int64]] = []
        for mask, scores in zip(masks, maps, strict=True):
            sizes = np.zeros(0, np.int64)
            parts = [np.sort(scores[~mask])]
            if mask.any():
                inside, sizes = label_regions(mask)
                parts.append(scores[mask][np.lexsort((scores[mask], inside))])
            self._ordered.append(np.concatenate(parts))
            self._sizes.append(sizes)
            self.n_positive += int(sizes.sum())
            self.n_negative += parts[0].size

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[ImageAreas]:
        for scores, sizes in zip(self._ordered, self._sizes, strict=True):
            end = scores.size - int(sizes.sum())
            yield ImageAreas(scores[:end], scores[end:], sizes)

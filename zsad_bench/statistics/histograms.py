"""What a category's maps leave behind: histograms per image and region, from which pixel metrics can be computed again.

Intervals, comparisons and curves need the metrics of many resamples of the images, and the maps are gone by then. A
:class:`PixelSummary` keeps how many pixels of each normal area and of each region fall between fixed score *edges*. The
edges are scores of the category itself, half of them scores of anomalous pixels, so that any calibration is resolved
equally well. `docs/statistics.md` states how far metrics from a summary are from the exact ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.spooled import Chosen
from zsad_bench.metrics.areas import SortedAreas

EDGES = 768
"""Scores at which anomalous pixels, normal pixels, and the pixels around the F1-optimal threshold are cut into bins."""

_TAILS = 0.5, 0.03  # half of the edges lie in this highest share of the anomalous and of the normal scores
_NEAR_BEST = 0.98  # thresholds with at least this share of F1-max may become the best one of a resample
_SAMPLE = 400_000  # sorted scores from which the edges are chosen


@dataclass(frozen=True)
class PixelSummary:
    """Histograms of one category; bin g holds the scores from ``edges[g]`` up to, not including, ``edges[g + 1]``.

    Attributes:
        image_ids: the N images with a known mask, in the order of ``negatives``.
        edges: (G,) ascending, the first at or below every score.
        negatives: (N, G) normal pixels per image and bin.
        regions: (R, G) pixels per region (8-connected part of a mask) and bin; a row's sum is the region's area.
        region_image: (R,) the position of the region's image in ``image_ids``.
    """

    image_ids: tuple[str, ...]
    edges: NDArray[np.floating]
    negatives: NDArray[np.integer]
    regions: NDArray[np.integer]
    region_image: NDArray[np.int32]

    @property
    def areas(self) -> NDArray[np.int64]:
        """(R,) pixels of each region."""
        areas: NDArray[np.int64] = self.regions.sum(axis=1, dtype=np.int64)
        return areas

    @property
    def single(self) -> NDArray[np.bool_]:
        """(G,) whether only one score can lie in the bin, so that its pixels are tied."""
        return np.append(np.nextafter(self.edges[:-1], self.edges[1:]) == self.edges[1:], False)

    def positives(self, bins: slice) -> NDArray[np.float64]:
        """(M, g) anomalous pixels per bin, for the M images that have any, in their order."""
        return self._add_up(self.regions[:, bins].astype(np.float64))

    def gains(self, bins: slice) -> NDArray[np.float64]:
        """(M, g) what the bin adds to the sum of the overlaps of the image's regions, for the same images."""
        return self._add_up(self.regions[:, bins] / self.areas[:, None])

    def region_counts(self) -> NDArray[np.int64]:
        """(N,) regions per image."""
        return np.bincount(self.region_image, minlength=len(self.image_ids))

    def _add_up(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        first = np.flatnonzero(np.diff(self.region_image, prepend=-1))
        return np.add.reduceat(rows, first, axis=0)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The summary as arrays to keep; counts take the smallest type that holds them."""
        return {
            "image_ids": np.array(self.image_ids, dtype=np.str_),
            "edges": self.edges,
            "negatives": _smallest(self.negatives),
            "regions": _smallest(self.regions),
            "region_image": self.region_image,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> PixelSummary | None:
        """The summary that :meth:`to_arrays` gave; None if an array is missing."""
        try:
            ids, *parts = (arrays[name] for name in ("image_ids", "edges", "negatives", "regions", "region_image"))
        except KeyError:
            return None
        return PixelSummary(tuple(ids.tolist()), *parts)


def summarise(
    image_ids: Sequence[str],
    masks: Sequence[NDArray[np.bool_] | None],
    maps: Sequence[NDArray[np.float32]],
    folder: Path | None = None,
) -> PixelSummary | None:
    """Summary of a category; images without a known mask are left out.

    Args:
        image_ids: n names.
        masks: n masks (H, W), None where a mask is not known.
        maps: n maps (H, W) of finite scores.
        folder: where sorted scores that are too many for memory lie meanwhile; None for the system's folder.

    Returns:
        None if no mask has an anomalous pixel: then pixel metrics are undefined.
    """
    known = [index for index, mask in enumerate(masks) if mask is not None]
    areas = SortedAreas(Chosen(masks, known), Chosen(maps, known), folder)
    return summarise_areas([image_ids[index] for index in known], areas)


def summarise_areas(image_ids: Sequence[str], areas: SortedAreas) -> PixelSummary | None:
    """As :func:`summarise`, of scores that are sorted already; all masks are known."""
    if not areas.n_positive:
        return None
    positives, negatives = _Sample(areas.n_positive), _Sample(areas.n_negative)
    n_regions = most = 0
    for image in areas:
        negatives.add(image.normal)
        for region in image.each_region():
            positives.add(region)
        n_regions += len(image.sizes)
        most = max(most, len(image.normal) + len(image.regions))
    edges = choose_edges(positives, negatives)
    kind = np.min_scalar_type(most)
    normal = np.empty((len(areas), len(edges)), kind)
    regions = np.empty((n_regions, len(edges)), kind)
    region_image = np.empty(n_regions, np.int32)
    row = 0
    for position, image in enumerate(areas):
        normal[position] = _count(image.normal, edges)
        for scores in image.each_region():
            regions[row], region_image[row] = _count(scores, edges), position
            row += 1
    return PixelSummary(tuple(image_ids), edges, normal, regions, region_image)


class _Sample:
    """About `_SAMPLE` of ``size`` scores, an even share of every group of them, and the lowest score."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lowest = np.inf
        self._parts: list[NDArray[np.floating]] = []

    def add(self, scores: NDArray[np.floating]) -> None:
        """Add a group, ascending."""
        if scores.size:
            self.lowest = min(self.lowest, scores[0])
            self._parts.append(scores[:: max(1, self.size // _SAMPLE)].copy())

    @cached_property
    def scores(self) -> NDArray[np.floating]:
        """The sample, ascending."""
        return np.sort(np.concatenate(self._parts)) if self._parts else np.zeros(0, np.float32)


def choose_edges(positives: _Sample, negatives: _Sample) -> NDArray[np.floating]:
    """Ascending edges: quantiles of both kinds of pixels, each followed by the next representable number.

    The pair of a score and its successor gives a score that many pixels share a bin of its own, so that ties stay ties;
    with few different scores every one has its own bin and metrics from the summary are exact. Thresholds near the
    best F1 are cut more finely, because a maximum over some thresholds only is always too small.
    """
    inside, outside = positives.scores, negatives.scores
    chosen = [_quantiles(scores, tail) for scores, tail in zip((inside, outside), _TAILS, strict=True) if scores.size]
    lowest = min(positives.lowest, negatives.lowest)
    few = positives.size <= 5 * EDGES  # then every anomalous score gets a bin of its own
    near = inside if few else _near_best_f1(inside, outside, positives.size, negatives.size)
    scores = np.unique(np.concatenate([*chosen, near, np.array([lowest], inside.dtype)]))
    return np.unique(np.concatenate([scores, np.nextafter(scores, np.inf, dtype=scores.dtype)]))


def _quantiles(pooled: NDArray[np.floating], tail: float) -> NDArray[np.floating]:
    shares = np.concatenate([np.linspace(0, 1, EDGES // 2), 1 - tail * np.linspace(0, 1, EDGES - EDGES // 2)])
    return pooled[np.round(shares * (pooled.size - 1)).astype(np.int64)]


def _near_best_f1(
    positives: NDArray[np.floating], negatives: NDArray[np.floating], n_positive: int, n_negative: int
) -> NDArray[np.floating]:
    """`EDGES` anomalous scores at which F1 is close to its maximum, evenly by rank."""
    true = n_positive * (1 - np.arange(positives.size) / positives.size)
    above = negatives.size - np.searchsorted(negatives, positives)
    f1 = 2 * true / (true + above * n_negative / max(negatives.size, 1) + n_positive)
    near: NDArray[np.floating] = positives[f1 >= _NEAR_BEST * f1.max()]
    return near[np.round(np.linspace(0, near.size - 1, EDGES)).astype(np.int64)]


def _count(scores: NDArray[np.floating], edges: NDArray[np.floating]) -> NDArray[np.int64]:
    """Scores per bin, of ascending scores."""
    return np.diff(np.searchsorted(scores, edges), append=scores.size)


def _smallest(counts: NDArray[np.integer]) -> NDArray[np.integer]:
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))

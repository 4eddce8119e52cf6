"""Resampling the units of a category, and every metric of every resample in a few matrix products.

A unit is an object with all its photos, or a photo that stands alone (:mod:`zsad_bench.metrics.units`). Units are drawn
with replacement, normal and anomalous ones (and those without a label) each among themselves, so that every resample
has as many of each as the category. Image and pixel metrics see the same draw: a drawn object brings the pixels of all
its photos, which are not independent of each other. The draw is seeded by the category and its units and by nothing
else: two methods on the same units see the same resamples, whatever the dataset is called and whichever results folders
they lie in, and the difference of their replicates is a paired bootstrap.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 (resampling) and 13 (percentiles);
Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8 (resampling whole clusters).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.seeds import named_seed
from zsad_bench.metrics.units import Units
from zsad_bench.statistics import binned
from zsad_bench.statistics.histograms import PixelSummary

RESAMPLES = 1000
BOOTSTRAPPED = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
_CHUNK = 100  # resamples at a time: bounds the memory
_ROWS = 25  # of them go through the formulas at a time: their curves stay in the cache
_WIDENED = 8 << 20  # bytes of one widened histogram: bounds the memory too


@dataclass(frozen=True)
class Replicates:
    """Metrics of every resample of a category.

    Attributes:
        images: key of the units (photos, labels and objects); replicates of two methods are paired only if it is the
            same.
        values: (RESAMPLES, len(BOOTSTRAPPED)) fractions, NaN where undefined.
    """

    images: str
    values: NDArray[np.float64]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The replicates as arrays to keep, in float32."""
        return {"images": np.array(self.images), "values": self.values.astype(np.float32)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Replicates | None:
        """The replicates that :meth:`to_arrays` gave; None if an array is missing or of another shape."""
        if not {"images", "values"} <= arrays.keys() or arrays["values"].shape != (RESAMPLES, len(BOOTSTRAPPED)):
            return None
        return Replicates(str(arrays["images"]), arrays["values"].astype(np.float64))


def resample_weights(labels: Sequence[int | None], seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """(resamples, n) how often each unit is drawn; every label keeps its number of units."""
    random = np.random.default_rng(seed)
    strata = np.array([-1 if label is None else label for label in labels])
    weights = np.zeros((resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    return weights


def bootstrap(category: str, units: Units, summary: PixelSummary | None) -> Replicates:
    """All metrics of `RESAMPLES` resamples of one category.

    Image metrics are exact. Pixel metrics come from the summary; NaN without one. The order of the photos is of no
    importance: units are ordered by name.

    Args:
        category: its name.
        units: of the category.
        summary: of photos that are all in ``units``.
    """
    weights = resample_weights(units.labels, named_seed(0, category, units.key, "bootstrap"))
    values = np.full((RESAMPLES, len(BOOTSTRAPPED)), np.nan)
    if {0, 1} <= set(units.labels):
        values[:, :3] = image_replicates(units.scores.astype(np.float64), units.labels, weights)
    if summary is not None:
        drawn = weights[:, [units.of_photo[image_id] for image_id in summary.image_ids]]
        values[:, 3:] = pixel_replicates(summary, drawn)
    return Replicates(units.key, values)


def image_replicates(
    scores: NDArray[np.float64], labels: Sequence[int | None], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S, 3) AUROC, AP and F1-max of scores (n,) under weights (S, n); units without a label are left out."""
    labelled = np.array([index for index, label in enumerate(labels) if label is not None])
    truth = np.array([labels[index] == 1 for index in labelled])
    order = np.argsort(scores[labelled], kind="stable")
    truth, ordered = truth[order], scores[labelled][order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf) != 0)
    single = np.ones(len(starts), bool)
    parts = []
    for start in range(0, len(weights), _CHUNK):
        drawn = weights[start : start + _CHUNK, labelled[order]]
        positive = np.add.reduceat(drawn * truth, starts, axis=1)
        negative = np.add.reduceat(drawn * ~truth, starts, axis=1)
        curve = binned.curves(binned.Counts(positive, negative))
        parts.append([binned.auroc(curve), binned.average_precision(curve, single), binned.f1max(curve)])
    return np.concatenate([np.stack(part, axis=1) for part in parts])


def pixel_replicates(summary: PixelSummary, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, 4) AUROC, AP, F1-max and AUPRO of pixels under weights (S, N) of the summary's images."""
    single = summary.single
    parts = []
    for curve, clump in pixel_curves(summary, weights):
        ap = binned.average_precision(curve, single, clump)
        parts.append(np.stack([binned.auroc(curve), ap, binned.f1max(curve), binned.aupro(curve)], axis=1))
    return np.concatenate(parts)


def pixel_curves(
    summary: PixelSummary, weights: NDArray[np.float64]
) -> Iterator[tuple[binned.Curves, NDArray[np.float64]]]:
    """Curves of the resamples with their clumps (:func:`binned.average_precision`), some resamples at a time.

    Numbers of pixels are added up over the bins of each image before they are weighted, not of each resample; in
    float64 that is exact. Overlaps are weighted in float32. Bins are taken some at a time: the histograms of all images
    in all bins would be the largest arrays of a run.
    """
    owners = np.unique(summary.region_image)
    pixels = np.bincount(summary.region_image, summary.areas)[owners]
    regions = summary.region_counts().astype(np.float32)
    n_bins = len(summary.edges)
    width = max(_WIDENED // (8 * len(summary.image_ids)), 64)
    blocks = [slice(max(stop - width, 0), stop) for stop in range(n_bins, 0, -width)]
    whole = list(_from_top(summary, blocks)) if len(blocks) == 1 else None
    whole_gains = list(_gains(summary, blocks)) if len(blocks) == 1 else None
    at_once = _CHUNK if whole is None else _ROWS  # blocks are made anew every time
    for start in range(0, len(weights), _CHUNK):
        narrow = weights[start : start + _CHUNK].astype(np.float32)
        gain = np.empty((len(narrow), n_bins), np.float32)
        for bins, gains in whole_gains or _gains(summary, blocks):
            np.matmul(narrow[:, owners], gains, out=gain[:, bins])
        n_regions = np.maximum(narrow @ regions, 1)[:, None]
        for first in range(0, len(narrow), at_once):
            rows = slice(first, first + at_once)
            drawn = weights[start : start + _CHUNK][rows]
            owned = drawn[:, owners]
            n_positive = owned * pixels
            clump = (n_positive * owned).sum(axis=1) / np.maximum(n_positive.sum(axis=1), 1)
            true, false = (np.zeros((len(drawn), n_bins + 1)) for _ in range(2))
            for bins, negatives, positives in whole or _from_top(summary, blocks):
                place = slice(1 + n_bins - bins.stop, 1 + n_bins - bins.start)
                np.matmul(owned, positives, out=true[:, place])
                np.matmul(drawn, negatives, out=false[:, place])
            overlap = binned.from_top(gain[rows] / n_regions[rows].astype(np.float64))
            yield binned.Curves(true, false, overlap), clump


def _from_top(
    summary: PixelSummary, blocks: Sequence[slice]
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Blocks of bins, the highest first, with their pixels.

    Yields:
        The bins; negatives (N, g) and positives (M, g) in each bin and all above, the highest first.
    """
    above: tuple[NDArray[np.float64], ...] = (np.zeros(1), np.zeros(1))
    for bins in blocks:
        kinds = (summary.negatives[:, bins], summary.positives(bins))
        within = (np.cumsum(kind[:, ::-1], axis=1, dtype=np.float64) for kind in kinds)
        sums = [part + carried[:, None] for part, carried in zip(within, above, strict=True)]
        above = tuple(part[:, -1].copy() for part in sums)
        yield bins, sums[0], sums[1]


def _gains(summary: PixelSummary, blocks: Sequence[slice]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of bins with the gains (M, g) of each bin alone, the lowest first."""
    for bins in blocks:
        yield bins, summary.gains(bins).astype(np.float32)

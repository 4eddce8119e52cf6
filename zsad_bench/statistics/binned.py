"""Metrics and curves from counts per bin, for many resamples at once.

The formulas are those of :mod:`zsad_bench.metrics.exact`, with bins in place of groups of equal scores. Inside a bin
that can hold several scores the two kinds of pixels are taken to be evenly mixed: TP and FP grow together in a straight
line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsad_bench.metrics.regions import FPR_LIMIT

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Counts of S resamples in G bins, ascending scores.

    Attributes:
        positive, negative: (S, G).
        gain: (S, G) what each bin adds to the mean overlap, or None for image scores.
    """

    positive: Array
    negative: Array
    gain: Array | None = None


@dataclass(frozen=True)
class Curves:
    """Curves of S resamples from the strictest threshold on; (S, G + 1) each, starting at zero marked.

    Attributes:
        true, false: marked positives and negatives.
        overlap: mean overlap, or None.
    """

    true: Array
    false: Array
    overlap: Array | None


def curves(counts: Counts) -> Curves:
    """Cumulative counts from the highest bin down."""
    return Curves(
        from_top(counts.positive),
        from_top(counts.negative),
        None if counts.gain is None else from_top(counts.gain),
    )


def from_top(values: Array) -> Array:
    """(S, G) values of bins -> (S, G + 1) their sums from the highest bin down, starting at zero."""
    total = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values[:, ::-1], axis=1, out=total[:, 1:])
    return total


def auroc(curve: Curves) -> Array:
    """(S,) area under the ROC curve, ties and bins counting one half; NaN without both kinds."""
    heights = (curve.true[:, 1:] + curve.true[:, :-1]) / 2
    area = np.einsum("sg,sg->s", heights, np.diff(curve.false, axis=1))
    return _divide(area, curve.true[:, -1] * curve.false[:, -1])


def average_precision(curve: Curves, single: NDArray[np.bool_], clump: Array | None = None) -> Array:
    """(S,) step-wise average precision; NaN without positives.

    In a bin with several scores TP and FP are taken to grow in a straight line, and precision is integrated along it:
    with t from 0 to 1 the mean of (TP + h + n t) / (A + h + m t), A = TP + FP before the bin, n and m what it adds to
    TP and A. The line passes through the middle of each positive, and step-wise AP takes the precision with the whole
    positive marked, hence h = 1/2, and more where a resample holds images several times, whose pixels tie.
    Source of the interpolation: Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", 2006.

    Args:
        single: (G,) bins with one score.
        clump: (S,) how many copies of its image a positive has on average; None means 1.
    """
    gained = np.diff(curve.true, axis=1)
    used = np.flatnonzero(gained.any(axis=0))  # bins without any positive add nothing
    tied = single[::-1][used]
    n, true, false = gained[:, used], curve.true[:, used + 1], curve.false[:, used + 1]
    half = 0.5 if clump is None else clump[:, None] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        marked = true + false
        precision = true / marked
        several = np.flatnonzero(~tied)
        before = curve.true[:, used[several]] + curve.false[:, used[several]] + half
        n_several = n[:, several]
        m = marked[:, several] + half - before
        share = n_several / m
        line = share + (true[:, several] - n_several + half - share * before) / m * np.log1p(m / before)
        precision[:, several] = line
        precision *= n
    precision[n == 0] = 0.0
    return _divide(np.sum(precision, axis=1), curve.true[:, -1])


def f1max(curve: Curves) -> Array:
    """(S,) largest F1 at the ends of bins; NaN without positives."""
    total = curve.true[:, -1:]
    best = np.max(2 * curve.true / np.maximum(curve.true + curve.false + total, 1), axis=1)
    return np.where(total[:, 0] > 0, best, np.nan)


def aupro(curve: Curves) -> Array:
    """(S,) area under overlap against false positive rate up to 0.3, divided by 0.3; NaN where undefined."""
    assert curve.overlap is not None
    total = curve.false[:, -1]
    limit = FPR_LIMIT * total[:, None]
    start, width = curve.false[:, :-1], np.diff(curve.false, axis=1)
    inside = np.clip(limit - start, 0, width)
    slope = np.diff(curve.overlap, axis=1) / np.maximum(width, 1)
    area = np.sum(inside * (curve.overlap[:, :-1] + slope * inside / 2), axis=1)
    return _divide(area, np.where(curve.true[:, -1] > 0, limit[:, 0], 0))


def _divide(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

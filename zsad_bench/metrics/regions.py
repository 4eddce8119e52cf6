"""Per-region overlap: the regions of masks, the exact curve, and the 200-threshold sweep of published codes.

A *region* is an 8-connected component of one ground-truth mask. At threshold t the *overlap* is the mean, over all
regions of all images of a category, of the marked fraction of the region. With K regions, a marked pixel of region r
adds its *share* 1 / (K x area of r), so that overlap(t) is the sum of the shares of all marked anomalous pixels.

Source of the measure and of its limit 0.3: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021.
"""

from __future__ import annotations

import numpy as np
import scipy

from zsad_bench.metrics.sorted_scores import Marked, SortedRuns

FPR_LIMIT = 0.3
"""AUPRO integrates up to this false positive rate and divides by it."""

SWEEP_STEPS = 200
"""Thresholds of the sweep; rounding of its step can make it one more."""

_BLOCK = 1 << 16  # pixels counted at a time
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regions of one mask.

    Args:
        mask: (H, W) bool with at least one True.

    Returns:
        For every True pixel, in row-major order, the number of its region from 0; and the regions' areas in pixels.
    """
    labels, _ = scipy.ndimage.label(mask, structure=_EIGHT_CONNECTED)
    inside = labels[mask] - 1
    return inside, np.bincount(inside)


def area_under_overlap(
    above: np.ndarray, reached: np.ndarray, gain: np.ndarray, x: int, overlap: float, limit: float
) -> float:
    """Area that consecutive groups of tied scores add under the overlap curve, left of `limit`.

    From the point (`x`, `overlap`) the curve runs horizontally to `above[0]`, then in a straight line (the tie) to
    `reached[0]`, where the overlap has grown by `gain[0]`; then on to the next group. A line that crosses the limit
    is cut there, which is linear interpolation at the limit.

    Args:
        above: (g,) negatives with a score above the group's. Abscissae count false positives, not yet divided by N.
        reached: (g,) negatives with the group's score or more.
        gain: (g,) sum of the shares of the group's pixels.
        x: abscissa of the end of the curve before these groups.
        overlap: its ordinate.
        limit: 0.3 x N.
    """
    before = overlap + np.concatenate(([0.0], np.cumsum(gain[:-1])))
    previous_end = np.minimum(np.concatenate(([x], reached[:-1])), limit)
    begin, end = np.minimum(above, limit), np.minimum(reached, limit)
    width = end - begin
    slope = gain / np.maximum(reached - above, 1)
    return float(np.sum(before * (begin - previous_end) + width * (before + slope * width / 2)))


def sweep200(positives: SortedRuns, negatives: SortedRuns, share: np.ndarray) -> float:
    """AUPRO as the 200-threshold routine of published codes gives it; only for comparison with their tables.

    Thresholds are t = arange(min, max, (max - min) / 200) over all scores, a pixel is marked when its score is > t. The
    points with FPR(t) < 0.3 stay; their FPRs are stretched to [0, 1] by their own minimum and maximum; the result is
    the trapezoid under overlap against stretched FPR. It changes with the calibration of the scores.

    Args:
        positives: score + region j of every anomalous pixel (complex64 or complex128).
        negatives: scores of normal pixels, float32 or float64 as the parts of ``positives``.
        share: (K,) share of a pixel of each region.

    Returns:
        A fraction, or NaN where the routine has no value: no positive or no negative, a constant map, or fewer than
        two different false positive rates below 0.3.
    """
    if not positives.size or not negatives.size:
        return np.nan
    low, high = min(positives.lowest, negatives.lowest), max(positives.highest, negatives.highest)
    with np.errstate(over="ignore"):
        step = (high - low) / SWEEP_STEPS  # in the precision of the maps, which decides between 200 and 201 thresholds
    if not 0 < step < np.inf:
        return np.nan
    thresholds = _round_down(np.arange(low, high, step, dtype=np.float64), negatives.dtype)
    fpr = Marked(negatives).count(thresholds[::-1])[0][::-1] / negatives.size
    overlap = np.cumsum(_gains(positives, thresholds, share)[::-1])[::-1]
    kept = fpr < FPR_LIMIT
    fpr, overlap = fpr[kept], overlap[kept]
    if not fpr.size or fpr[0] == fpr[-1]:
        return np.nan
    stretched = (fpr - fpr[-1]) / (fpr[0] - fpr[-1])  # FPR falls as the threshold rises
    return min(float(np.trapezoid(overlap[::-1], stretched[::-1])), 1.0)


def _gains(positives: SortedRuns, thresholds: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(t,) shares of the pixels above a threshold and not above the next one."""
    gain = np.zeros(thresholds.size + 1)
    descent = positives.descend()
    while (block := descent.take_largest(_BLOCK)).size:
        pixel_gain = share[block.imag.astype(np.intp)]
        gain += np.bincount(np.searchsorted(thresholds, block.real), pixel_gain, gain.size)
    return gain[1:]


def _round_down(thresholds: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Largest values of `dtype` that are <= the float64 `thresholds`.

    For a score of `dtype`, score > t is then unchanged, and millions of scores need not be widened to float64.
    """
    rounded = thresholds.astype(dtype)
    return np.where(rounded > thresholds, np.nextafter(rounded, dtype.type(-np.inf)), rounded)

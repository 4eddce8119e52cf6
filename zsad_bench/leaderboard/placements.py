"""How far a unit lies above the others: AUROC as a mean over units, and how sure such a mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zsad_bench.metrics.units import Units


def placements(units: Units) -> dict[int, float]:
    """Per labelled unit the share of the other class that is on the right side of it, ties one half; by its number.

    The mean over the anomalous units is AUROC, and so is the mean over the normal ones (Hanley and Hajian-Tilaki
    1997).
    """
    known = units.scores[units.labelled]
    normal, anomalous = known[units.truth == 0], known[units.truth == 1]
    if not normal.size or not anomalous.size:
        return {}
    placed = np.where(units.truth == 1, _share_below(normal, known), 1 - _share_below(anomalous, known))
    return dict(zip(units.labelled.tolist(), placed.tolist(), strict=True))


def _share_below(others: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) share of ``others`` (m,) below each score, ties one half."""
    ordered = np.sort(others)
    below, reached = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return (below + reached) / (2 * others.size)


def clustered_error(values: NDArray[np.float64], clusters: Sequence[object]) -> float:
    """Standard error of a mean of values (n,), of which those of one cluster are not independent; NaN for one cluster.

    With a value a cluster it is the usual one. Source: Cameron and Miller, "A Practitioner's Guide to Cluster-Robust
    Inference", Journal of Human Resources 2015, section II, with the factor m / (m - 1) for m clusters.
    """
    numbers: dict[object, int] = {}
    places = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    m = len(numbers)
    if m < 2:
        return math.nan
    sums = np.bincount(places, values - values.mean())
    return math.sqrt(m / (m - 1) * float(sums @ sums)) / values.size

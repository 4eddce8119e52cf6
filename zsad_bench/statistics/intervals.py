"""How sure a number is, and which methods can be told apart. docs/statistics.md says what the intervals cover.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (bootstrap intervals and tests); Demsar,
"Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006 (Friedman and Nemenyi tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

LEVEL = 0.95
ALPHA = 0.05
_ROUNDING = 1e-5  # methods closer than this on every resample are the same: replicates are kept in float32


def interval(estimate: float, replicates: NDArray[np.float64], n_units: int) -> tuple[float, float]:
    """95 % interval of a fraction from its bootstrap replicates: basic (reflected) on the log-odds scale.

    Reflecting undoes the bias of AP and F1-max, which are too large on few images; percentile intervals double it.
    Log-odds log((x + a) / (1 - x + a)) with a = 1 / (2 n) keep the ends between 0 and 1, and are finite at both.

    Args:
        estimate: the value on all units (images, or objects where photos form objects).
        replicates: (S,) values on resamples of the units; NaN are left out.
        n_units: units behind the value.

    Returns:
        (low, high) with low <= estimate <= high; NaN where fewer than half of the replicates are defined.
    """
    defined = replicates[~np.isnan(replicates)]
    if math.isnan(estimate) or defined.size < max(2, replicates.size / 2):
        return math.nan, math.nan
    a = 0.5 / max(n_units, 1)
    odds = np.log((defined + a) / (1 - defined + a))
    centre = math.log((estimate + a) / (1 - estimate + a))
    tail = _expanded_tail(max(n_units // 2, 2))
    odds.sort()
    low, high = _quantile(odds, tail), _quantile(odds, 1 - tail)
    ends = np.exp(2 * centre - np.array([high, low]))
    first, last = np.clip((ends * (1 + a) - a) / (1 + ends), 0, 1)
    return float(min(first, estimate)), float(max(last, estimate))


def _quantile(ordered: NDArray[np.float64], share: float) -> float:
    """Linear between order statistics, as ``numpy.quantile``, which takes ten times as long on so few numbers."""
    place = share * (ordered.size - 1)
    below = min(int(place), ordered.size - 2)
    return float(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))


@lru_cache(maxsize=4096)
def _expanded_tail(n: int) -> float:
    """Share of replicates to cut off at either end, smaller than 2.5 % for few images.

    The bootstrap has the spread of n - 1 degrees of freedom but normal tails. Source: Hesterberg, "What Teachers Should
    Know About the Bootstrap", The American Statistician 2015, section 5 (expanded percentile).
    """
    return float(scipy.special.ndtr(math.sqrt(n / (n - 1)) * scipy.special.stdtrit(n - 1, (1 - LEVEL) / 2)))


def paired(difference: float, replicates: NDArray[np.float64]) -> tuple[float, float, float]:
    """Interval and two-sided p of a paired difference from the differences of the same resamples.

    The basic bootstrap: the spread of replicate minus estimate stands for that of estimate minus truth. The interval
    is the reflected one; p is twice the smaller share of replicates whose deviation reaches the estimate, and never
    below 2 / (S + 1).

    Returns:
        (low, high, p); NaN if replicates are undefined.
    """
    defined = replicates[~np.isnan(replicates)]
    if math.isnan(difference) or defined.size < max(2, replicates.size / 2):
        return math.nan, math.nan, math.nan
    if np.abs(defined).max() < _ROUNDING and abs(difference) < _ROUNDING:
        return difference, difference, 1.0
    deviations = defined - difference
    deviations.sort()
    low, high = (_quantile(deviations, share) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    above, below = np.count_nonzero(deviations >= difference), np.count_nonzero(deviations <= difference)
    p = min(1.0, 2 * (min(above, below) + 1) / (defined.size + 1))
    return difference - float(high), difference - float(low), p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for how many there are; NaN stay NaN and do not count."""
    corrected = [math.nan] * len(p_values)
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class RankTest:
    """Friedman's test over categories.

    Attributes:
        ranks: mean rank by label, 1 is best.
        n_blocks: categories that every method has.
        p: of Friedman's test, NaN if it does not exist.
        critical_difference: mean ranks closer than this cannot be told apart (Nemenyi, 5 %); NaN without a test.
        reason: why there is no test, else empty.
    """

    ranks: dict[str, float]
    n_blocks: int
    p: float
    critical_difference: float
    reason: str = ""


def rank_test(values: Mapping[str, Mapping[str, float]]) -> RankTest:
    """Friedman's test with Nemenyi's critical difference.

    Args:
        values: metric by label and block (category); blocks that a label lacks, or where it is NaN, are left out.
    """
    labels = list(values)
    blocks = [
        block
        for block in (values[labels[0]] if labels else ())
        if all(not math.isnan(values[label].get(block, math.nan)) for label in labels)
    ]
    table = np.array([[values[label][block] for label in labels] for block in blocks])
    if len(labels) < 2 or not blocks:
        reason = "one method only" if len(labels) < 2 else "no category that every method has"
        return RankTest({}, len(blocks), math.nan, math.nan, reason)
    order = scipy.stats.rankdata(-table, axis=1)
    ranks = dict(zip(labels, order.mean(axis=0).tolist(), strict=True))
    if len(labels) < 3 or len(blocks) < 2:
        reason = "Friedman's test needs three methods" if len(labels) < 3 else "Friedman's test needs two categories"
        return RankTest(ranks, len(blocks), math.nan, math.nan, reason)
    if np.ptp(table, axis=1).max() == 0:
        return RankTest(ranks, len(blocks), 1.0, math.nan, "all methods are equal in every category")
    p = float(scipy.stats.friedmanchisquare(*table.T).pvalue)
    return RankTest(ranks, len(blocks), p, critical_difference(len(labels), len(blocks)))


def critical_difference(n_methods: int, n_blocks: int) -> float:
    """Nemenyi's critical difference of mean ranks at 5 %: q sqrt(k (k + 1) / (6 N)), Demsar 2006, equation before 6.

    q is the quantile of the studentized range for k groups and infinite degrees of freedom over sqrt(2).
    """
    q = scipy.stats.studentized_range.ppf(1 - ALPHA, n_methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks)))

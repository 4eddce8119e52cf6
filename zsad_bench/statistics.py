"""How sure a number is, and which methods can be told apart. docs/statistics.md says what the intervals cover.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (bootstrap intervals and tests); Demsar,
"Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006 (Friedman and Nemenyi tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from zsad_bench.bootstrap import BOOTSTRAPPED
from zsad_bench.results import METRIC_NAMES
from zsad_bench.series import Series, column, sections

LEVEL = 0.95
ALPHA = 0.05
_LISTED = 6  # pairs that a sentence names
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
    """Share of replicates to cut off at either end, smaller than 2.5 % for few images: the bootstrap has the spread of
    n - 1 degrees of freedom but normal tails. Source: Hesterberg, "What Teachers Should Know About the Bootstrap",
    The American Statistician 2015, section 5 (expanded percentile)."""
    return float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 - LEVEL) / 2, n - 1)))


def series_interval(series: Series, metric: str) -> tuple[float, float]:
    """95 % interval of the mean of a series over categories and seeds; NaN where nothing was resampled."""
    position, replicates = column(metric), series.replicates
    if position is None or replicates is None:
        return math.nan, math.nan
    return interval(series.mean(metric), replicates[:, position], series.n_units)


def category_intervals(series: Series, category: str) -> dict[str, tuple[float, float]]:
    """95 % interval of every metric of one category that was resampled."""
    replicates = series.category_replicates(category)
    if replicates is None:
        return {}
    n_units = next(job.results[category].n_units for job in series.jobs if category in job.results)
    return {
        metric: interval(series.value(category, metric), replicates[:, position], n_units)
        for position, metric in enumerate(BOOTSTRAPPED)
    }


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of two methods on the same units.

    Attributes:
        difference: first minus second, mean over categories.
        low, high: 95 % interval of the difference.
        p: two-sided probability of a difference this large if there were none.
        p_holm: the same, corrected for the number of pairs compared.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = math.nan

    @property
    def distinguishable(self) -> bool:
        """Whether the corrected test rejects equality at 5 %."""
        return self.p_holm < ALPHA


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


def compare(series: Sequence[Series], metric: str) -> list[Comparison]:
    """Paired comparisons of all pairs that :func:`same_units` allows, with Holm's correction."""
    position = column(metric)
    if position is None:
        return []
    found = []
    for first, second in combinations(series, 2):
        if not same_units(first, second) or first.replicates is None or second.replicates is None:
            continue
        difference = first.mean(metric) - second.mean(metric)
        replicates = first.replicates[:, position] - second.replicates[:, position]
        low, high, p = paired(difference, replicates)
        found.append(Comparison(first.label, second.label, difference, low, high, p))
    corrected = holm([pair.p for pair in found])
    return [
        Comparison(pair.first, pair.second, pair.difference, pair.low, pair.high, pair.p, p_holm)
        for pair, p_holm in zip(found, corrected, strict=True)
    ]


def same_units(first: Series, second: Series) -> bool:
    """Whether two series of one dataset and protocol have the same units (photos, labels, objects) in every category.

    Then they saw the same resamples too, which are seeded by the units.
    """
    if first.section != second.section or first.categories != second.categories:
        return False
    return "" not in first.images_hashes and first.images_hashes == second.images_hashes


def not_compared(series: Sequence[Series]) -> str:
    """Which series of a section :func:`compare` leaves out or keeps apart, and why, in sentences; empty if none."""
    known = [entry for entry in series if entry.replicates is not None]
    alike: dict[tuple[object, ...], list[str]] = {}
    for entry in known:
        alike.setdefault((entry.categories, entry.images_hashes), []).append(entry.label)
    sentences = []
    if len(alike) > 1:
        sentences.append(
            "Methods are compared only where photos, labels and objects are the same; they are not the same for "
            + " | ".join("; ".join(labels) for labels in alike.values())
            + "."
        )
    missing = [entry.label for entry in series if entry.replicates is None]
    if missing:
        sentences.append(f"Not compared, being unfinished or without resamples: {'; '.join(missing)}.")
    return " ".join(sentences)


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
    order = stats.rankdata(-table, axis=1)
    ranks = dict(zip(labels, order.mean(axis=0).tolist(), strict=True))
    if len(labels) < 3 or len(blocks) < 2:
        reason = "Friedman's test needs three methods" if len(labels) < 3 else "Friedman's test needs two categories"
        return RankTest(ranks, len(blocks), math.nan, math.nan, reason)
    if np.ptp(table, axis=1).max() == 0:
        return RankTest(ranks, len(blocks), 1.0, math.nan, "all methods are equal in every category")
    p = float(stats.friedmanchisquare(*table.T).pvalue)
    return RankTest(ranks, len(blocks), p, critical_difference(len(labels), len(blocks)))


def critical_difference(n_methods: int, n_blocks: int) -> float:
    """Nemenyi's critical difference of mean ranks at 5 %: q sqrt(k (k + 1) / (6 N)), Demsar 2006, equation before 6.

    q is the quantile of the studentized range for k groups and infinite degrees of freedom over sqrt(2).
    """
    q = stats.studentized_range.ppf(1 - ALPHA, n_methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks)))


def block_values(series: Sequence[Series], metric: str) -> dict[str, dict[str, float]]:
    """Metric by label and category, for :func:`rank_test`.

    Raises:
        ValueError: series of several datasets or protocols, which no test may put together.
    """
    if len(sections(series)) > 1:
        raise ValueError(f"one dataset and protocol at a time, not {', '.join(map(str, sections(series)))}")
    return {entry.label: {category: entry.value(category, metric) for category in entry.categories} for entry in series}


def verdict(comparisons: Sequence[Comparison], metric: str, units: str = "images") -> str:
    """Plain sentences: which pairs can be told apart and which cannot; the longer list is summed up.

    Args:
        comparisons: of one dataset and protocol.
        metric: that was compared.
        units: what was resampled, ``images`` or ``objects``.
    """
    name = METRIC_NAMES[metric]
    if not comparisons:
        return f"No two methods were evaluated on the same {units}, so {name} cannot be compared."
    apart = sorted((pair for pair in comparisons if pair.distinguishable), key=lambda pair: -abs(pair.difference))
    alike = [pair for pair in comparisons if not pair.distinguishable]
    short = _short_names(comparisons)
    sentences = [
        f"In {name}, {len(apart)} of {len(comparisons)} pairs of methods can be told apart "
        f"(paired bootstrap over {units}, 5 % after Holm's correction)."
    ]
    if apart and (len(apart) <= _LISTED or len(apart) <= len(alike)):
        sentences.append("Told apart: " + "; ".join(_ordered(pair, short) for pair in apart) + ".")
    elif apart:
        sentences.append(f"The largest difference: {_ordered(apart[0], short)}.")
    if alike and (len(alike) <= _LISTED or len(alike) < len(apart)):
        names = "; ".join(f"{short[pair.first]} and {short[pair.second]}" for pair in alike)
        sentences.append(f"Not distinguishable on these {units}: {names}.")
    elif alike:
        few = f"These {units} are too few."
        sentences.append(f"No other pair is distinguishable on these {units}." if apart else few)
    return " ".join(sentences)


def _short_names(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Labels without their batch size where all have the same."""
    labels = [label for pair in comparisons for label in (pair.first, pair.second)]
    same = len({label.rpartition(", ")[2] for label in labels}) == 1
    return {label: label.rpartition(", ")[0] or label if same else label for label in labels}


def _ordered(pair: Comparison, short: Mapping[str, str]) -> str:
    better, worse = (pair.first, pair.second) if pair.difference > 0 else (pair.second, pair.first)
    ends = sorted(100 * abs(end) if pair.low * pair.high > 0 else 100 * end for end in (pair.low, pair.high))
    points = f"{100 * abs(pair.difference):.1f} points ({ends[0]:.1f} to {ends[1]:.1f})"
    return f"{short[better]} above {short[worse]} by {points}"

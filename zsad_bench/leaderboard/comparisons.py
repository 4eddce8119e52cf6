"""Intervals, paired comparisons and rank tests of the series in results folders, and their verdict in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from zsad_bench.leaderboard.series import Series, column, sections
from zsad_bench.metrics.names import METRIC_NAMES
from zsad_bench.statistics.bootstrap import BOOTSTRAPPED
from zsad_bench.statistics.intervals import ALPHA, holm, interval, paired

_LISTED = 6  # pairs that a sentence names


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


def block_values(series: Sequence[Series], metric: str) -> dict[str, dict[str, float]]:
    """Metric by label and category, for :func:`~zsad_bench.statistics.intervals.rank_test`.

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
        (
            f"In {name}, {len(apart)} of {len(comparisons)} pairs of methods can be told apart "
            f"(paired bootstrap over {units}, 5 % after Holm's correction)."
        )
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

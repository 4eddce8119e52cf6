"""From scores to a yes or no: thresholds estimated on half of the units, tested on the other half.

A unit is an image, or an object with all its photos (:mod:`zsad_bench.metrics.units`). Kept apart from the ranking
metrics, which need no threshold. The halves are seeded by the category and its units, with both classes in the same
proportion, so that all methods with the same units are judged on the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zsad_bench.core.seeds import named_seed
from zsad_bench.leaderboard.series import Series, row_labels

RULES = {"f1max": None, "fpr01": 0.01, "fpr05": 0.05}
"""Name of a rule, and the false positive rate that it allows; None stands for the largest F1."""

COLUMNS = ("threshold", "fpr", "recall", "precision", "f1")


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it does to units that it was not chosen on.

    Attributes:
        threshold: units with this score or more are called anomalous.
        fpr, recall, precision, f1: on the other half; NaN where undefined.
        n_estimate, n_test: units of the two halves.
        normal_estimate: normal units of the first half; a false positive rate below 1 / this cannot be estimated.
    """

    threshold: float
    fpr: float
    recall: float
    precision: float
    f1: float
    n_estimate: int
    n_test: int
    normal_estimate: int


def choose_threshold(labels: NDArray[np.bool_], scores: NDArray[np.float64], fpr: float | None) -> float:
    """Threshold on given units: the one of the largest F1, or the smallest that keeps the false positive rate.

    Args:
        labels: (n,) True for anomalous; at least one of each.
        scores: (n,)
        fpr: allowed false positive rate, or None for F1-max.
    """
    if fpr is None:
        candidates = np.unique(scores[labels])
        marked = scores[None, :] >= candidates[:, None]
        true = (marked & labels).sum(axis=1)
        f1 = 2 * true / (marked.sum(axis=1) + labels.sum())
        return float(candidates[len(f1) - 1 - np.argmax(f1[::-1])])
    normal = np.sort(scores[~labels])[::-1]
    allowed = math.floor(fpr * len(normal) + 1e-9)
    return float(np.nextafter(normal[allowed], np.inf)) if allowed < len(normal) else float(normal[-1])


def operating_point(labels: Sequence[int], scores: NDArray[np.float64], rule: str, seed: int) -> OperatingPoint | None:
    """Estimate on one half of the units, test on the other; None if a half lacks a class.

    Raises:
        KeyError: an unknown rule.
    """
    fpr = RULES[rule]
    truth = np.array(labels) == 1
    first = _half(truth, seed)
    if len(set(truth[first])) < 2 or len(set(truth[~first])) < 2:
        return None
    threshold = choose_threshold(truth[first], scores[first], fpr)
    anomalous, called = truth[~first], scores[~first] >= threshold
    true, false = int((called & anomalous).sum()), int((called & ~anomalous).sum())
    return OperatingPoint(
        threshold,
        false / int((~anomalous).sum()),
        true / int(anomalous.sum()),
        true / (true + false) if true + false else math.nan,
        2 * true / (2 * true + false + int((anomalous & ~called).sum())),
        int(first.sum()),
        int((~first).sum()),
        int((~truth[first]).sum()),
    )


def _half(truth: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """(n,) True for the half on which thresholds are estimated; of an odd number it gets the larger part."""
    random = np.random.default_rng(seed)
    first = np.zeros(len(truth), dtype=bool)
    for label in (False, True):
        members = random.permutation(np.flatnonzero(truth == label))
        first[members[: (len(members) + 1) // 2]] = True
    return first


def operating_points(series: Sequence[Series]) -> pd.DataFrame:
    """A row per series, category and rule, of the series' first seed, and the mean over categories."""
    rows = []
    for entry in series:
        job = (entry.finished or entry.jobs)[0]
        units = {category: result.units for category, result in job.results.items()}
        seeds = {category: named_seed(0, category, known.key, "halves") for category, known in units.items()}
        for rule in RULES:
            found = []
            for category, known in units.items():
                scores = known.scores[known.labelled].astype(np.float64)
                point = operating_point(known.truth.tolist(), scores, rule, seeds[category])
                if point is not None:
                    found.append(point)
                    rows.append({**row_labels(entry), "category": category, "rule": rule, **vars(point)})
            if job.complete and len(found) == len(job.results) > 1:
                means = {name: float(np.mean([getattr(point, name) for point in found])) for name in COLUMNS[1:]}
                rows.append({**row_labels(entry), "category": "mean", "rule": rule, **means})
    return pd.DataFrame(rows)

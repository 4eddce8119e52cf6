"""Scores of one category in their order, and the counts from which every exact metric follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsad_bench.metrics.reading import Pairs
from zsad_bench.metrics.regions import label_regions
from zsad_bench.metrics.sorted_scores import Marked, SortedRuns

_BLOCK = 1 << 14  # positives handled at a time: bounds the temporaries, whatever the share of positives
_MOST_REGIONS = 1 << 24  # as long as their numbers are exact in float32


class Ranked(NamedTuple):
    """The sorted scores of one category."""

    positives: SortedRuns  # complex for pixels: score + region j, so that ties are in the order of their regions
    negatives: SortedRuns
    share: np.ndarray = np.zeros(0)  # (K,) 1 / (K x area): what a pixel of a region adds to the mean overlap


class Groups(NamedTuple):
    """Consecutive groups of equal positive scores, in falling order; arrays of one length, see the top of the file."""

    n: np.ndarray
    true: np.ndarray  # TP
    above: np.ndarray  # G
    reached: np.ndarray  # F
    gain: np.ndarray  # float64, what the group adds to the mean overlap; zeros for image scores


def rank_pixels(pairs: Pairs, folder: Path | None) -> Ranked:
    """Split the pixels of all images into positives, with their regions, and negatives; sort both by score."""
    positives = SortedRuns(np.result_type(pairs.dtype, np.complex64), pairs.n_positive, folder)
    negatives = SortedRuns(pairs.dtype, pairs.n_negative, folder)
    areas = [np.zeros(0, np.int64)]
    n_regions = 0
    for mask, scores in pairs:
        if not mask.any():
            negatives.add(scores.reshape(-1))
            continue
        inside, area = label_regions(mask)
        positive = np.empty(inside.size, positives.dtype)
        positive.real = scores[mask]
        positive.imag = inside + n_regions
        positives.add(positive)
        negatives.add(scores[~mask])
        areas.append(area)
        n_regions += area.size
    return ranked_regions(positives, negatives, np.concatenate(areas))


def ranked_regions(positives: SortedRuns, negatives: SortedRuns, areas: np.ndarray) -> Ranked:
    """Sealed scores with the shares of K regions of these areas (K,)."""
    if areas.size > _MOST_REGIONS:
        raise ValueError(f"{areas.size} regions in the masks; at most {_MOST_REGIONS} can be told apart")
    ranked = Ranked(positives.seal(), negatives.seal(), 1.0 / (areas * max(areas.size, 1)))
    require_finite(ranked)
    return ranked


def require_finite(ranked: Ranked) -> None:
    """Refuse NaN and infinity with ValueError."""
    bad = ranked.positives.not_finite + ranked.negatives.not_finite
    if bad:
        size = ranked.positives.size + ranked.negatives.size
        raise ValueError(f"{bad} of {size} scores are not finite (NaN or infinity)")


def groups(ranked: Ranked) -> Iterator[Groups]:
    """All groups in blocks of about `_BLOCK` positives; a group is never cut."""
    positives, negatives = ranked.positives.descend(), Marked(ranked.negatives)
    true = 0
    while (block := positives.take_largest(_BLOCK)[::-1]).size:
        scores = block.real
        last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), scores.size - 1)
        size = np.diff(last, prepend=-1)
        above, reached = negatives.count(scores[last])
        pixel_gain = ranked.share[block.imag.astype(np.intp)] if ranked.share.size else np.zeros(scores.size)
        yield Groups(size, true + last + 1, above, reached, np.add.reduceat(pixel_gain, last - size + 1))
        true += block.size

"""Scores of one category in their order, and the counts from which every exact metric follows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsad_bench.metrics.areas import ImageAreas, SortedAreas
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
    """Consecutive groups of equal positive scores, in falling order; arrays of one length, as ``exact.py`` defines."""

    n: np.ndarray
    true: np.ndarray  # TP
    above: np.ndarray  # G
    reached: np.ndarray  # F
    gain: np.ndarray  # float64, what the group adds to the mean overlap; zeros for image scores


class _Pixels(NamedTuple):
    """The scores of one image."""

    normal: np.ndarray  # (n,)
    anomalous: np.ndarray  # (m,)
    region: np.ndarray  # (m,) number in this image of the region that each anomalous pixel is of
    areas: np.ndarray  # (r,) int64


def rank_pixels(source: Pairs | SortedAreas, folder: Path | None) -> Ranked:
    """Split the pixels of all images into positives, with their regions, and negatives; sort both by score.

    Raises:
        ValueError: too many regions, or scores that are not finite.
    """
    positives = SortedRuns(np.result_type(source.dtype, np.complex64), source.n_positive, folder)
    negatives = SortedRuns(source.dtype, source.n_negative, folder)
    areas = [np.zeros(0, np.int64)]
    n_regions = 0
    for image in map(_labelled, source) if isinstance(source, SortedAreas) else starmap(_split, source):
        negatives.add(image.normal)
        positive = np.empty(image.anomalous.size, positives.dtype)
        positive.real = image.anomalous
        positive.imag = image.region + n_regions
        positives.add(positive)
        areas.append(image.areas)
        n_regions += image.areas.size
    if n_regions > _MOST_REGIONS:
        raise ValueError(f"{n_regions} regions in the masks; at most {_MOST_REGIONS} can be told apart")
    ranked = Ranked(positives.seal(), negatives.seal(), 1.0 / (np.concatenate(areas) * max(n_regions, 1)))
    require_finite(ranked)
    return ranked


def _split(mask: np.ndarray, scores: np.ndarray) -> _Pixels:
    if not mask.any():
        return _Pixels(scores.reshape(-1), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return _Pixels(scores[~mask], scores[mask], *label_regions(mask))


def _labelled(image: ImageAreas) -> _Pixels:
    return _Pixels(image.normal, image.regions, np.repeat(np.arange(image.sizes.size), image.sizes), image.sizes)


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

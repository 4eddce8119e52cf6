"""What a category's maps leave behind: histograms per image and region, from which pixel metrics can be computed again.

Intervals, comparisons and curves need the metrics of many resamples of the images, and the maps are gone by then. A
:class:`PixelSummary` keeps how many pixels of each normal area and of each region fall between fixed score *edges*. The
edges are scores of the category itself, half of them scores of anomalous pixels, so that any calibration is resolved
equally well. `docs/statistics.md` states how far metrics from a summary are from the exact ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from zsad_bench.regions import label_regions

EDGES = 768
"""Scores at which anomalous pixels, normal pixels, and the pixels around the F1-optimal threshold are cut into bins."""

_TAILS = 0.5, 0.03  # half of the edges lie in this highest share of the anomalous and of the normal scores
_NEAR_BEST = 0.98  # thresholds with at least this share of F1-max may become the best one of a resample
_SAMPLE = 400_000  # sorted scores from which the edges are chosen


@dataclass(frozen=True)
class PixelSummary:
    """Histograms of one category; bin g holds the scores from ``edges[g]`` up to, not including, ``edges[g + 1]``.

    Attributes:
        image_ids: the N images with a known mask, in the order of ``negatives``.
        edges: (G,) ascending, the first at or below every score.
        negatives: (N, G) normal pixels per image and bin.
        regions: (R, G) pixels per region (8-connected part of a mask) and bin; a row's sum is the region's area.
        region_image: (R,) the position of the region's image in ``image_ids``.
    """

    image_ids: tuple[str, ...]
    edges: NDArray[np.floating]
    negatives: NDArray[np.integer]
    regions: NDArray[np.integer]
    region_image: NDArray[np.int32]

    @property
    def areas(self) -> NDArray[np.int64]:
        """(R,) pixels of each region."""
        return self.regions.sum(axis=1, dtype=np.int64)

    @property
    def single(self) -> NDArray[np.bool_]:
        """(G,) whether only one score can lie in the bin, so that its pixels are tied."""
        return np.append(np.nextafter(self.edges[:-1], self.edges[1:]) == self.edges[1:], False)

    def positives(self) -> NDArray[np.float64]:
        """(N, G) anomalous pixels per image and bin."""
        return self._add_up(self.regions)

    def gains(self) -> NDArray[np.float64]:
        """(N, G) what the bin adds to the sum of the overlaps of the image's regions."""
        return self._add_up(self.regions / self.areas[:, None])

    def region_counts(self) -> NDArray[np.int64]:
        """(N,) regions per image."""
        return np.bincount(self.region_image, minlength=len(self.image_ids))

    def _add_up(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        total = np.zeros((len(self.image_ids), len(self.edges)))
        np.add.at(total, self.region_image, rows)
        return total

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file; counts take the smallest type that holds them."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                image_ids=np.array(self.image_ids, dtype=np.str_),
                edges=self.edges,
                negatives=_smallest(self.negatives),
                regions=_smallest(self.regions),
                region_image=self.region_image,
            )

    @staticmethod
    def load(path: Path) -> PixelSummary | None:
        """The summary, or None if there is none or its file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return PixelSummary(
                    tuple(file["image_ids"].tolist()),
                    file["edges"],
                    file["negatives"],
                    file["regions"],
                    file["region_image"],
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None


def summarise(
    image_ids: Sequence[str], masks: Sequence[NDArray[np.bool_] | None], maps: NDArray[np.float32]
) -> PixelSummary | None:
    """Summary of a category; images without a known mask are left out.

    Args:
        image_ids: n names.
        masks: n masks (H, W), None where a mask is not known.
        maps: (n, H, W) finite scores.

    Returns:
        None if no mask has an anomalous pixel: then pixel metrics are undefined.
    """
    known = [index for index, mask in enumerate(masks) if mask is not None]
    normal, areas, region_image = [], [], []
    for position, index in enumerate(known):
        mask, scores = masks[index], maps[index]
        assert mask is not None
        normal.append(np.sort(scores[~mask]))
        if mask.any():
            inside, sizes = label_regions(mask)
            order = np.lexsort((scores[mask], inside))
            areas += np.split(scores[mask][order], np.cumsum(sizes)[:-1])
            region_image += [position] * len(sizes)
    if not areas:
        return None
    edges = choose_edges(areas, normal)
    return PixelSummary(
        tuple(image_ids[index] for index in known),
        edges,
        np.stack([_count(scores, edges) for scores in normal]),
        np.stack([_count(scores, edges) for scores in areas]),
        np.array(region_image, dtype=np.int32),
    )


def choose_edges(
    positives: Sequence[NDArray[np.floating]], negatives: Sequence[NDArray[np.floating]]
) -> NDArray[np.floating]:
    """Ascending edges: quantiles of both kinds of pixels, each followed by the next representable number.

    The pair of a score and its successor gives a score that many pixels share a bin of its own, so that ties stay ties;
    with few different scores every one has its own bin and metrics from the summary are exact. Thresholds near the
    best F1 are cut more finely, because a maximum over some thresholds only is always too small.

    Args:
        positives, negatives: ascending scores of each region and of the normal pixels of each image.
    """
    n_positive, n_negative = (sum(scores.size for scores in groups) for groups in (positives, negatives))
    inside, outside = _pooled(positives, n_positive), _pooled(negatives, n_negative)
    chosen = [_quantiles(scores, tail) for scores, tail in zip((inside, outside), _TAILS, strict=True) if scores.size]
    lowest = min(scores[0] for scores in (*positives, *negatives) if scores.size)
    few = n_positive <= 5 * EDGES  # then every anomalous score gets a bin of its own
    near = inside if few else _near_best_f1(inside, outside, n_positive, n_negative)
    scores = np.unique(np.concatenate([*chosen, near, np.array([lowest])]))
    return np.unique(np.concatenate([scores, np.nextafter(scores, np.inf, dtype=scores.dtype)]))


def _pooled(groups: Sequence[NDArray[np.floating]], size: int) -> NDArray[np.floating]:
    """About `_SAMPLE` of the scores of ascending groups, ascending; an even share of every group."""
    return np.sort(np.concatenate([scores[:: max(1, size // _SAMPLE)] for scores in groups]))


def _quantiles(pooled: NDArray[np.floating], tail: float) -> NDArray[np.floating]:
    shares = np.concatenate([np.linspace(0, 1, EDGES // 2), 1 - tail * np.linspace(0, 1, EDGES - EDGES // 2)])
    return pooled[np.round(shares * (pooled.size - 1)).astype(np.int64)]


def _near_best_f1(
    positives: NDArray[np.floating], negatives: NDArray[np.floating], n_positive: int, n_negative: int
) -> NDArray[np.floating]:
    """`EDGES` anomalous scores at which F1 is close to its maximum, evenly by rank."""
    true = n_positive * (1 - np.arange(positives.size) / positives.size)
    above = negatives.size - np.searchsorted(negatives, positives)
    f1 = 2 * true / (true + above * n_negative / max(negatives.size, 1) + n_positive)
    near = positives[f1 >= _NEAR_BEST * f1.max()]
    return near[np.round(np.linspace(0, near.size - 1, EDGES)).astype(np.int64)]


def _count(scores: NDArray[np.floating], edges: NDArray[np.floating]) -> NDArray[np.int64]:
    """Scores per bin, of ascending scores."""
    return np.diff(np.searchsorted(scores, edges), append=scores.size)


def _smallest(counts: NDArray[np.integer]) -> NDArray[np.integer]:
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))

"""Image and pixel metrics of one category: exact, from one sort.

Public: `image_metrics`, `pixel_metrics`, `undefined_reasons`. Every value is a fraction between 0 and 1, or NaN where
the definition has no value.

All metrics follow from a few counts. With P positives (anomalous) and N negatives (normal), go through the *distinct
scores of the positives* from the largest to the smallest, g = 1, 2, ...:

    n_g    positives with exactly this score
    TP_g   positives with this score or a larger one
    F_g    negatives with this score or a larger one
    G_g    negatives with a strictly larger score

A threshold between two such scores adds false positives only: it raises neither recall nor F1, and lies on a horizontal
piece of the per-region-overlap curve. So the scores of the positives are all that must be visited, and the negatives,
which are the bulk, are sorted by value and searched. `docs/metrics.md` derives this. Scores that are too many for
memory are sorted in parts (`sorted_runs`); the counts, and so every value, are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from zsad_bench.metrics import regions
from zsad_bench.metrics.areas import SortedAreas
from zsad_bench.metrics.regions import FPR_LIMIT, SWEEP_STEPS, area_under_overlap, label_regions
from zsad_bench.metrics.sorted_scores import Marked, SortedRuns

_BLOCK = 1 << 14  # positives handled at a time: bounds the temporaries, whatever the share of positives
_MOST_REGIONS = 1 << 24  # as long as their numbers are exact in float32


def image_metrics(labels: ArrayLike | Sequence[int], scores: ArrayLike | Sequence[float]) -> dict[str, float]:
    """Image-level AUROC, average precision and F1-max of one category.

    Args:
        labels: (n,), 0 = normal, 1 = anomalous; bool, integer or float array, tensor or list.
        scores: (n,), larger = more anomalous; any real dtype. float16 and bfloat16 are widened, never rounded.

    Returns:
        `image_auroc`, `image_ap`, `image_f1max`: fractions in [0, 1]. Without an anomalous image all are NaN. Without a
        normal image AUROC is NaN, AP and F1-max are 1 by their definitions. `undefined_reasons` says why.

    Raises:
        ValueError: no image, wrong number of dimensions, different lengths, labels other than 0 and 1, scores that are
            not real numbers or not finite (how many is said).

    Example:
        One of the three pairs of a normal and an anomalous image is in the wrong order:

        >>> metrics = image_metrics(labels=[0, 1, 1, 1], scores=[0.3, 0.2, 0.5, 0.9])
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'image_auroc': 0.667, 'image_ap': 0.917, 'image_f1max': 0.857}
    """
    truth, values = _to_numpy(labels), _to_numpy(scores)
    if truth.ndim != 1 or values.ndim != 1:
        raise ValueError(f"labels and scores must have one dimension, got shapes {truth.shape} and {values.shape}")
    if truth.size != values.size:
        raise ValueError(f"{truth.size} labels but {values.size} scores")
    if not truth.size:
        raise ValueError("no image to evaluate: labels and scores are empty")
    positive = _binary(truth, "labels")
    values = values.astype(_sort_dtype([values.dtype]))
    positives, negatives = SortedRuns.of(values[positive]), SortedRuns.of(values[~positive])
    ranked = _Ranked(positives, negatives)
    _require_finite(ranked)
    auroc, ap, f1max, _ = _exact(ranked)
    return {"image_auroc": auroc, "image_ap": ap, "image_f1max": f1max}


def pixel_metrics(
    masks: ArrayLike | Sequence[ArrayLike],
    maps: ArrayLike | Sequence[ArrayLike],
    sweep200: bool = False,
    folder: Path | None = None,
) -> dict[str, float]:
    """Pixel-level AUROC, average precision, F1-max and AUPRO of one category.

    The pixels of all images, normal images included, are pooled. AUPRO: 8-connected regions over all images, exact
    curve, linear interpolation at the false positive rate 0.3, area divided by 0.3.

    Args:
        masks: (n, H, W), non-zero = anomalous; bool or integer (a float mask may hold only 0 and 1). Or a sequence of
            n arrays (H_i, W_i), for evaluation at the images' own sizes; they are read twice, one after another.
        maps: the same shapes, larger = more anomalous, any real dtype. float32 is sorted as float32 and float64 as
            float64; float16 and bfloat16 are widened to float32. Nothing is rounded, so no ties appear.
        sweep200: also give `pixel_aupro_sweep200`, the 200-threshold routine of published codes (`regions.sweep200`).
        folder: where scores that are too many for memory lie for the moment, in a file without a name; None: where the
            system keeps such files.

    Returns:
        `pixel_auroc`, `pixel_ap`, `pixel_f1max`, `pixel_aupro` and, if asked, `pixel_aupro_sweep200`: fractions in
        [0, 1]. Without an anomalous pixel all are NaN. Without a normal pixel AUROC, AUPRO and sweep are NaN, AP and
        F1-max are 1 by their definitions. The sweep is also NaN for a constant map. `undefined_reasons` says why.

    Raises:
        ValueError: no image, an image without pixels, wrong number of dimensions, different shapes, a float mask with
            values other than 0 and 1, scores that are not real numbers or not finite (how many is said).

    Memory beyond the inputs, whatever their size: at most 2 x 16 MiB of scores being sorted and as much of sorted ones,
    and a few images. For a share p of anomalous pixels the temporary file takes 4 (1 + p) bytes a pixel of float32.

    Example:
        A normal image, and one whose two anomalous pixels are found while one normal pixel beside them is found first:

        >>> import numpy as np
        >>> masks = np.array([[[0, 0], [0, 0]], [[1, 1], [0, 0]]])
        >>> maps = np.array([[[0.1, 0.2], [0.1, 0.3]], [[0.7, 0.8], [0.9, 0.1]]])
        >>> {name: round(value, 3) for name, value in pixel_metrics(masks, maps).items()}
        {'pixel_auroc': 0.833, 'pixel_ap': 0.583, 'pixel_f1max': 0.8, 'pixel_aupro': 0.444}
    """
    return _pixel_metrics(_rank_pixels(_Pairs(masks, maps), folder), sweep200)


def area_metrics(areas: SortedAreas, sweep200: bool = False, folder: Path | None = None) -> dict[str, float]:
    """As :func:`pixel_metrics`, of scores whose regions are labelled already."""
    positives = SortedRuns(np.result_type(areas.dtype, np.complex64), areas.n_positive, folder)
    negatives = SortedRuns(areas.dtype, areas.n_negative, folder)
    sizes = [np.zeros(0, np.int64)]
    n_regions = 0
    for image in areas:
        negatives.add(image.normal)
        positive = np.empty(image.regions.size, positives.dtype)
        positive.real = image.regions
        positive.imag = np.repeat(np.arange(n_regions, n_regions + image.sizes.size), image.sizes)
        positives.add(positive)
        sizes.append(image.sizes)
        n_regions += image.sizes.size
    return _pixel_metrics(_ranked(positives, negatives, np.concatenate(sizes)), sweep200)


def _pixel_metrics(ranked: _Ranked, sweep200: bool) -> dict[str, float]:
    auroc, ap, f1max, aupro = _exact(ranked)
    metrics = {"pixel_auroc": auroc, "pixel_ap": ap, "pixel_f1max": f1max, "pixel_aupro": aupro}
    if sweep200:
        metrics["pixel_aupro_sweep200"] = regions.sweep200(*ranked)
    return metrics


def undefined_reasons(
    metrics: Mapping[str, float], truth: ArrayLike | Sequence[int] | Sequence[ArrayLike]
) -> dict[str, str]:
    """One phrase for every metric that is NaN, e.g. {"pixel_auroc": "no anomalous pixel in the category"}.

    Args:
        metrics: what `image_metrics` or `pixel_metrics` returned.
        truth: the labels or masks it was given.

    Returns:
        Reason by metric name; empty when every metric is defined.

    Example:
        >>> labels = [1, 1]
        >>> undefined_reasons(image_metrics(labels, [0.2, 0.4]), labels)
        {'image_auroc': 'no normal image in the category'}
    """
    undefined = [name for name, value in metrics.items() if np.isnan(value)]
    if not undefined:
        return {}
    parts = truth if isinstance(truth, Sequence) else [truth]
    no_positive = not any(np.any(_to_numpy(part)) for part in parts)
    no_negative = all(np.all(_to_numpy(part)) for part in parts)

    def reason(name: str) -> str:
        unit = "image" if name.startswith("image_") else "pixel"
        if no_positive:
            return f"no anomalous {unit} in the category"
        if no_negative:
            return f"no normal {unit} in the category"
        return f"the {SWEEP_STEPS} thresholds give fewer than two false positive rates below {FPR_LIMIT}"

    return {name: reason(name) for name in undefined}


# --- reading the input ------------------------------------------------------------------------------------------------


def _to_numpy(values: ArrayLike | Sequence[int] | Sequence[float] | int) -> np.ndarray:
    """Array of anything array-like, torch tensors on any device included. numpy lacks bfloat16: float32 then."""
    if hasattr(values, "detach"):  # a torch tensor, recognised without importing torch
        tensor = values.detach().cpu()
        return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    return np.asarray(values)


def _sort_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """float32 when it holds every value of all `dtypes` exactly, else float64."""
    if any(dtype.kind not in "fiub" for dtype in dtypes):
        raise ValueError(f"scores must be real numbers, got {', '.join(sorted({str(dtype) for dtype in dtypes}))}")
    return np.dtype(np.float32 if all(np.can_cast(dtype, np.float32) for dtype in dtypes) else np.float64)


def _binary(truth: np.ndarray, name: str) -> np.ndarray:
    """Bool array of an array that holds only 0 and 1. Raises ValueError naming `name` otherwise."""
    positive: np.ndarray = truth == 1
    if not np.array_equal(positive, truth != 0):
        raise ValueError(f"{name} must hold only 0 (normal) and 1 (anomalous)")
    return positive


def _mask(mask: np.ndarray) -> np.ndarray:
    """Bool mask: non-zero is anomalous. A float mask with fractions was resized but not thresholded: refused."""
    if mask.dtype == bool:
        return mask
    return mask != 0 if mask.dtype.kind in "iu" else _binary(mask, "float masks")


class _Pairs:
    """(mask, map) of every image, both (H_i, W_i), read when they are asked for, without a copy where the type allows.

    Raises ValueError, as `pixel_metrics` says.

    Attributes:
        dtype: in which all scores can be compared.
        n_positive, n_negative: anomalous and normal pixels.
    """

    def __init__(self, masks: ArrayLike | Sequence[ArrayLike], maps: ArrayLike | Sequence[ArrayLike]) -> None:
        for name, given in (("masks", masks), ("maps", maps)):
            if getattr(given, "ndim", 3) != 3:
                raise ValueError(f"{name} must have three dimensions (n, H, W), got {getattr(given, 'ndim', None)}")
        if len(masks) != len(maps):
            raise ValueError(f"{len(masks)} masks but {len(maps)} maps")
        if not len(maps):
            raise ValueError("no image to evaluate: masks and maps are empty")
        self._masks, self._maps = masks, maps
        dtypes = set()
        self.n_positive = self.n_negative = 0
        for mask, scores in self:
            dtypes.add(scores.dtype)
            count = int(np.count_nonzero(mask))
            self.n_positive += count
            self.n_negative += mask.size - count
        self.dtype = _sort_dtype(sorted(dtypes, key=str))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in range(len(self._maps)):
            mask, scores = _to_numpy(self._masks[index]), _to_numpy(self._maps[index])
            if mask.ndim != 2 or mask.shape != scores.shape or not mask.size:
                raise ValueError(
                    f"image {index}: mask and map must have two dimensions, the same shape and at least one pixel, "
                    f"got shapes {mask.shape} and {scores.shape}"
                )
            yield _mask(mask), scores


# --- counts -----------------------------------------------------------------------------------------------------------


class _Ranked(NamedTuple):
    """The sorted scores of one category."""

    positives: SortedRuns  # complex for pixels: score + region j, so that ties are in the order of their regions
    negatives: SortedRuns
    share: np.ndarray = np.zeros(0)  # (K,) 1 / (K x area): what a pixel of a region adds to the mean overlap


class _Groups(NamedTuple):
    """Consecutive groups of equal positive scores, in falling order; arrays of one length, see the top of the file."""

    n: np.ndarray
    true: np.ndarray  # TP
    above: np.ndarray  # G
    reached: np.ndarray  # F
    gain: np.ndarray  # float64, what the group adds to the mean overlap; zeros for image scores


def _rank_pixels(pairs: _Pairs, folder: Path | None) -> _Ranked:
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
    return _ranked(positives, negatives, np.concatenate(areas))


def _ranked(positives: SortedRuns, negatives: SortedRuns, areas: np.ndarray) -> _Ranked:
    """Sealed scores with the shares of K regions of these areas (K,)."""
    if areas.size > _MOST_REGIONS:
        raise ValueError(f"{areas.size} regions in the masks; at most {_MOST_REGIONS} can be told apart")
    ranked = _Ranked(positives.seal(), negatives.seal(), 1.0 / (areas * max(areas.size, 1)))
    _require_finite(ranked)
    return ranked


def _require_finite(ranked: _Ranked) -> None:
    """Refuse NaN and infinity with ValueError."""
    bad = ranked.positives.not_finite + ranked.negatives.not_finite
    if bad:
        size = ranked.positives.size + ranked.negatives.size
        raise ValueError(f"{bad} of {size} scores are not finite (NaN or infinity)")


def _groups(ranked: _Ranked) -> Iterator[_Groups]:
    """All groups in blocks of about `_BLOCK` positives; a group is never cut."""
    positives, negatives = ranked.positives.descend(), Marked(ranked.negatives)
    true = 0
    while (block := positives.take_largest(_BLOCK)[::-1]).size:
        scores = block.real
        last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), scores.size - 1)
        size = np.diff(last, prepend=-1)
        above, reached = negatives.count(scores[last])
        pixel_gain = ranked.share[block.imag.astype(np.intp)] if ranked.share.size else np.zeros(scores.size)
        yield _Groups(size, true + last + 1, above, reached, np.add.reduceat(pixel_gain, last - size + 1))
        true += block.size


# --- formulas ---------------------------------------------------------------------------------------------------------


def _exact(ranked: _Ranked) -> tuple[float, float, float, float]:
    """(AUROC, AP, F1-max, AUPRO) of ranked scores, NaN where undefined. For image scores the fourth has no meaning."""
    n_positive, n_negative = ranked.positives.size, ranked.negatives.size
    if not n_positive:
        return np.nan, np.nan, np.nan, np.nan
    limit = FPR_LIMIT * n_negative
    double_wins, ap, f1max, area, overlap, x = 0, 0.0, 0.0, 0.0, 0.0, 0
    for group in _groups(ranked):
        double_wins += _double_wins(group, n_negative)
        ap += _recall_gain_times_precision(group, n_positive)
        f1max = max(f1max, _best_f1(group, n_positive))
        area += area_under_overlap(group.above, group.reached, group.gain, x, overlap, limit)
        overlap += float(group.gain.sum())
        x = int(group.reached[-1])
    ap = min(ap, 1.0)  # the sum can exceed 1 by its rounding error; the same below
    if not n_negative:
        return np.nan, ap, f1max, np.nan
    area += max(limit - x, 0.0)  # behind the last group every region is covered: overlap 1 up to the limit
    return double_wins / (2 * n_positive * n_negative), ap, f1max, min(area / limit, 1.0)


def _double_wins(group: _Groups, n_negative: int) -> int:
    """Twice the (positive, negative) pairs in the right order, ties half: sum n_g [2 (N - F_g) + (F_g - G_g)].

    AUROC is this over 2 P N (Mann-Whitney). An integer, hence exact up to P N = 4e18.
    """
    return int(np.sum(group.n * (2 * n_negative - group.reached - group.above)))


def _recall_gain_times_precision(group: _Groups, n_positive: int) -> float:
    """Step-wise average precision: sum (R_g - R_(g-1)) Precision_g = sum (n_g / P) TP_g / (TP_g + F_g).

    No interpolation: the trapezoid under the precision-recall curve is another number, above all when scores tie.
    """
    return float(np.sum(group.n * (group.true / (group.true + group.reached)))) / n_positive


def _best_f1(group: _Groups, n_positive: int) -> float:
    """Largest 2 TP_g / (TP_g + F_g + P), which is 2 Precision Recall / (Precision + Recall) without its 0 / 0."""
    return float(np.max(2 * group.true / (group.true + group.reached + n_positive)))


if TYPE_CHECKING:
    from torch import Tensor

    ArrayLike: TypeAlias = np.ndarray | Tensor

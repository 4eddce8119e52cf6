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
memory are sorted in parts (`sorted_scores`); the counts, and so every value, are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zsad_bench.metrics import regions
from zsad_bench.metrics.areas import SortedAreas
from zsad_bench.metrics.ranked import Groups, Ranked, groups, rank_pixels, require_finite
from zsad_bench.metrics.reading import Pairs, binary, sort_dtype, to_numpy
from zsad_bench.metrics.regions import FPR_LIMIT, SWEEP_STEPS, area_under_overlap
from zsad_bench.metrics.sorted_scores import SortedRuns

if TYPE_CHECKING:
    from zsad_bench.metrics.reading import ArrayLike


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
    truth, values = to_numpy(labels), to_numpy(scores)
    if truth.ndim != 1 or values.ndim != 1:
        raise ValueError(f"labels and scores must have one dimension, got shapes {truth.shape} and {values.shape}")
    if truth.size != values.size:
        raise ValueError(f"{truth.size} labels but {values.size} scores")
    if not truth.size:
        raise ValueError("no image to evaluate: labels and scores are empty")
    positive = binary(truth, "labels")
    values = values.astype(sort_dtype([values.dtype]))
    positives, negatives = SortedRuns.of(values[positive]), SortedRuns.of(values[~positive])
    ranked = Ranked(positives, negatives)
    require_finite(ranked)
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
    return _pixel_metrics(rank_pixels(Pairs(masks, maps), folder), sweep200)


def area_metrics(areas: SortedAreas, sweep200: bool = False, folder: Path | None = None) -> dict[str, float]:
    """As :func:`pixel_metrics`, of scores whose regions are labelled already."""
    return _pixel_metrics(rank_pixels(areas, folder), sweep200)


def _pixel_metrics(ranked: Ranked, sweep200: bool) -> dict[str, float]:
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
    no_positive = not any(np.any(to_numpy(part)) for part in parts)
    no_negative = all(np.all(to_numpy(part)) for part in parts)

    def reason(name: str) -> str:
        unit = "image" if name.startswith("image_") else "pixel"
        if no_positive:
            return f"no anomalous {unit} in the category"
        if no_negative:
            return f"no normal {unit} in the category"
        return f"the {SWEEP_STEPS} thresholds give fewer than two false positive rates below {FPR_LIMIT}"

    return {name: reason(name) for name in undefined}


def _exact(ranked: Ranked) -> tuple[float, float, float, float]:
    """(AUROC, AP, F1-max, AUPRO) of ranked scores, NaN where undefined. For image scores the fourth has no meaning."""
    n_positive, n_negative = ranked.positives.size, ranked.negatives.size
    if not n_positive:
        return np.nan, np.nan, np.nan, np.nan
    limit = FPR_LIMIT * n_negative
    double_wins, ap, f1max, area, overlap, x = 0, 0.0, 0.0, 0.0, 0.0, 0
    for group in groups(ranked):
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


def _double_wins(group: Groups, n_negative: int) -> int:
    """Twice the (positive, negative) pairs in the right order, ties half: sum n_g [2 (N - F_g) + (F_g - G_g)].

    AUROC is this over 2 P N (Mann-Whitney). An integer, hence exact up to P N = 4e18.
    """
    return int(np.sum(group.n * (2 * n_negative - group.reached - group.above)))


def _recall_gain_times_precision(group: Groups, n_positive: int) -> float:
    """Step-wise average precision: sum (R_g - R_(g-1)) Precision_g = sum (n_g / P) TP_g / (TP_g + F_g).

    No interpolation: the trapezoid under the precision-recall curve is another number, above all when scores tie.
    """
    return float(np.sum(group.n * (group.true / (group.true + group.reached)))) / n_positive


def _best_f1(group: Groups, n_positive: int) -> float:
    """Largest 2 TP_g / (TP_g + F_g + P), which is 2 Precision Recall / (Precision + Recall) without its 0 / 0."""
    return float(np.max(2 * group.true / (group.true + group.reached + n_positive)))

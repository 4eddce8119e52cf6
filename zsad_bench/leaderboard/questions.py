"""The tables behind the plots: one function a question, each from result files alone.

Whatever is said of images is said of the units of :mod:`zsad_bench.metrics.units`: an image, or an object with all its
photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from zsad_bench.leaderboard.board import spread
from zsad_bench.leaderboard.comparisons import category_intervals, series_interval
from zsad_bench.leaderboard.merged_rows import batch_text, fastest, merge_batches
from zsad_bench.leaderboard.placements import clustered_error, placements
from zsad_bench.leaderboard.series import Series, row_labels, summary_of
from zsad_bench.leaderboard.speed import speed_columns
from zsad_bench.metrics.names import METRICS
from zsad_bench.metrics.regions import FPR_LIMIT
from zsad_bench.results.rows import CategoryResult
from zsad_bench.results.runs import Job
from zsad_bench.statistics import binned
from zsad_bench.statistics.bootstrap import pixel_curves

SHARES = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
"""Ranges of the share of anomalous images (photos) in a batch; an upper end belongs to its range."""
GRID = 200  # points of a curve


def by_batch_size(series: Sequence[Series]) -> pd.DataFrame:
    """Means of every metric with interval and spread over seeds: a row per series and metric."""
    rows: list[dict[str, object]] = []
    for entry in sorted(series, key=lambda entry: entry.batch_order):
        for metric in METRICS:
            low, high = series_interval(entry, metric)
            deviation = spread(entry.seed_means(metric))
            ends = {"low": low, "high": high, "seed_std": deviation, "seeds": entry.seeds}
            rows.append({**row_labels(entry), "metric": metric, "value": entry.mean(metric), **ends})
    return pd.DataFrame(rows)


def by_seed(series: Sequence[Series]) -> pd.DataFrame:
    """Means of every metric for each finished seed, of series with two or more: what composing batches anew does."""
    rows: list[dict[str, object]] = []
    for entry in sorted(series, key=lambda entry: entry.batch_order):
        for metric in METRICS if len(entry.finished) > 1 else ():
            for job, value in zip(entry.finished, entry.seed_means(metric), strict=True):
                rows.append({**row_labels(entry), "metric": metric, "seed": job.info.seed, "value": value})
    return pd.DataFrame(rows)


def by_category(series: Sequence[Series]) -> pd.DataFrame:
    """Every metric of every category with its interval."""
    rows: list[dict[str, object]] = []
    for entry in series:
        for category in entry.categories:
            intervals = category_intervals(entry, category)
            for metric in METRICS:
                value = entry.value(category, metric)
                low, high = intervals.get(metric, (math.nan, math.nan))
                shown = {"category": category, "metric": metric, "value": value, "low": low, "high": high}
                rows.append({**row_labels(entry), **shown})
    return pd.DataFrame(rows)


def speed(series: Sequence[Series], metric: str) -> pd.DataFrame:
    """Accuracy against images per second, of text, encoder and method and of the method alone.

    Batch sizes with the same result are one row, that of the fastest; ``batch_sizes`` names them. ``pareto`` and
    ``method_pareto`` mark rows that nobody beats in both, within a dataset and protocol; a row that cannot be told from
    chance (:func:`above_chance`) is never marked.
    """
    rows: list[dict[str, object]] = []
    for group in merge_batches(series):
        entry = fastest(group)
        low, high = series_interval(entry, metric)
        shown = {"batch_sizes": batch_text(group), "above_chance": above_chance(entry), **speed_columns(entry)}
        rows.append({**row_labels(entry), **shown, "value": entry.mean(metric), "low": low, "high": high})
    table = pd.DataFrame(rows)
    if not table.empty:
        for front, rate in (("pareto", "images_per_second"), ("method_pareto", "method_images_per_second")):
            table[front] = False
            for _, part in table.groupby(["dataset", "protocol"]):
                known = part[part["above_chance"]]
                table.loc[known.index, front] = pareto_front(known[rate].to_numpy(), known["value"].to_numpy())
    return table


def above_chance(entry: Series) -> bool:
    """Whether a series ranks images better than chance: its image AUROC, with its whole interval, is above 0.5.

    True where image AUROC is unknown.
    """
    value, (low, _) = entry.mean("image_auroc"), series_interval(entry, "image_auroc")
    return not (value <= 0.5 or low <= 0.5)


def pareto_front(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether no other point is at least as good in both and better in one; NaN are never on the front."""
    points = np.stack([first, second], axis=1)
    known = ~np.isnan(points).any(axis=1)
    beaten = [
        bool(np.any((points[known] >= point).all(axis=1) & (points[known] > point).any(axis=1))) for point in points
    ]
    return known & ~np.array(beaten, dtype=bool)


def by_share(series: Sequence[Series]) -> pd.DataFrame:
    """How well images are ranked, by the share of anomalous images in their batch.

    Every unit counts with its placement, an object in the batch of the photo that gave its score. Only batches of two
    or more images count, and only runs that recorded the batches. The interval is 1.96 standard errors of the mean over
    units; a unit that counts once for every seed is one cluster.
    """
    rows: list[dict[str, object]] = []
    for entry in series:
        found: list[tuple[float, float, object]] = []
        for job in entry.jobs:
            for category, result in job.results.items():
                shares, units = _shares(result), result.units
                scores = [image.score for image in result.images]
                for number, value in placements(units).items():
                    image_id = result.images[units.decisive(number, scores)].image_id
                    if image_id in shares:
                        found.append((shares[image_id], value, (category, units.names[number])))
        for low, high in SHARES:
            chosen = [place for place in found if low < place[0] <= high or place[0] == low == 0]
            inside = np.array([value for _, value, _ in chosen])
            if inside.size > 1:
                error = 1.96 * clustered_error(inside, [unit for _, _, unit in chosen])
                numbers = {"n_images": inside.size, "value": float(inside.mean()), "error": error}
                rows.append({**row_labels(entry), "share_from": low, "share_to": high, **numbers})
    return pd.DataFrame(rows)


def _shares(result: CategoryResult) -> dict[str, float]:
    """Share of anomalous images in the batch of each image; empty where batches are unknown or hold one image."""
    batches: dict[int, list[tuple[str, int]]] = {}
    labels = {image.image_id: image.label for image in result.images}
    for image in result.images:
        if image.batch is not None and image.label is not None:
            batches.setdefault(image.batch, []).append((image.image_id, image.label))
    last = max(batches, default=0)
    # The last one was filled with images that are counted in batches of their own.
    filled = [label for name in result.filled_with if (label := labels.get(name)) is not None]
    shares: dict[str, float] = {}
    for number, batch in batches.items():
        together = [label for _, label in batch] + (filled if number == last else [])
        if len(together) > 1:
            shares |= {image_id: sum(together) / len(together) for image_id, _ in batch}
    return shares


def agreement(series: Sequence[Series]) -> pd.DataFrame:
    """Spearman's rank correlation of the image scores of two methods, mean over categories, first seed; symmetric.

    Empty between series of different datasets or protocols.
    """
    scores = [
        {
            category: dict(zip(units.names, units.scores.tolist(), strict=True))
            for category, result in (entry.finished or entry.jobs)[0].results.items()
            for units in (result.units,)
        }
        for entry in series
    ]
    table = pd.DataFrame(math.nan, index=[entry.label for entry in series], columns=[entry.label for entry in series])
    for i, first in enumerate(scores):
        for j, second in enumerate(scores):
            values = [
                _spearman(first[category], second[category])
                for category in first
                if category in second and series[i].section == series[j].section
            ]
            known = [value for value in values if not math.isnan(value)]
            table.iloc[i, j] = float(np.mean(known)) if known else math.nan
    return table


def _spearman(first: dict[str, float], second: dict[str, float]) -> float:
    common = sorted(set(first) & set(second))
    x, y = [first[key] for key in common], [second[key] for key in common]
    if len(common) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(scipy.stats.spearmanr(x, y).statistic)


def worst_images(series: Sequence[Series], count: int = 6) -> pd.DataFrame:
    """Normal units with the highest and anomalous units with the lowest scores of each category, first seed.

    An object has the image id of the photo to show (:meth:`Units.telling`), and its name in the column ``object``.
    """
    rows: list[dict[str, object]] = []
    for entry in series:
        for category, result in (entry.finished or entry.jobs)[0].results.items():
            units, scores = result.units, [image.score for image in result.images]
            for kind, label in (("false alarm", 0), ("miss", 1)):
                for rank, number in enumerate(units.worst(label, count), 1):
                    image = result.images[units.telling(number, scores)]
                    shown = {"category": category, "kind": kind, "rank": rank, "image_id": image.image_id}
                    if units.form_objects:
                        shown["object"] = image.group
                    more = {"defect_type": units.defect_type(number), "score": float(units.scores[number])}
                    rows.append({**row_labels(entry), **shown, **more})
    return pd.DataFrame(rows)


def score_table(entry: Series) -> pd.DataFrame:
    """Category, label and score of every unit of a series, first seed."""
    rows = [
        {"category": category, "label": label, "score": score}
        for category, result in (entry.finished or entry.jobs)[0].results.items()
        for units in (result.units,)
        for label, score in zip(units.labels, units.scores.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["category", "label", "score"])


def curves(entry: Series) -> pd.DataFrame:
    """ROC, precision-recall and per-region-overlap curves: mean over categories at `GRID` abscissae, first seed.

    Image curves are exact; pixel curves come from the histograms. Columns: curve, x, y.
    """
    job = (entry.finished or entry.jobs)[0]
    found: dict[str, list[NDArray[np.float64]]] = {}
    grid = np.linspace(0, 1, GRID)
    for category, result in job.results.items():
        for name, y in _category_curves(job, category, result, grid).items():
            found.setdefault(name, []).append(y)
    parts = []
    for name, ys in found.items():
        x = grid * FPR_LIMIT if name == "pixel_pro" else grid
        parts.append(pd.DataFrame({**row_labels(entry), "curve": name, "x": x, "y": np.mean(ys, axis=0)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _category_curves(
    job: Job, category: str, result: CategoryResult, grid: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    curves: dict[str, NDArray[np.float64]] = {}
    units = result.units
    order = np.argsort(units.scores[units.labelled], kind="stable")
    truth, values = units.truth[order] == 1, units.scores[units.labelled][order]
    if truth.any() and not truth.all():
        starts = np.flatnonzero(np.diff(values, prepend=-np.inf) != 0)
        positive, negative = (np.add.reduceat(part.astype(float), starts)[None] for part in (truth, ~truth))
        curve = binned.curves(binned.Counts(positive, negative))
        curves |= {f"image_{name}": y for name, y in _sampled(curve, grid).items()}
    summary = summary_of(job, category)
    if summary is not None:
        ((curve, _),) = pixel_curves(summary, np.ones((1, len(summary.image_ids))))
        curves |= {f"pixel_{name}": y for name, y in _sampled(curve, grid).items()}
    return curves


def _sampled(curve: binned.Curves, grid: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Curves at common abscissae. A precision is that of the first threshold that reaches the recall."""
    fpr, recall = curve.false[0] / curve.false[0, -1], curve.true[0] / curve.true[0, -1]
    marked = curve.true[0] + curve.false[0]
    precision = np.divide(curve.true[0], marked, out=np.ones_like(marked), where=marked > 0)
    first = np.minimum(np.searchsorted(recall, grid, side="left"), len(recall) - 1)
    first = np.maximum(first, int(np.argmax(marked > 0)))
    sampled = {"roc": np.interp(grid, fpr, recall), "pr": precision[first]}
    if curve.overlap is not None:
        sampled["pro"] = np.interp(grid * FPR_LIMIT, fpr, curve.overlap[0])
    return sampled

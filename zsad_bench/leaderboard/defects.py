"""Questions about defects: which types and which sizes are found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from zsad_bench.leaderboard.placements import clustered_error, placements
from zsad_bench.leaderboard.series import Series, row_labels, summary_of
from zsad_bench.results.runs import Job
from zsad_bench.statistics import binned

SIZES = ((0.0, 0.005), (0.005, 0.02), (0.02, 0.05), (0.05, 1.0))
"""Ranges of a region's share of its image."""


def by_defect_type(series: Sequence[Series]) -> pd.DataFrame:
    """Image AUROC of the anomalous units of one defect type against all normal ones, first seed."""
    rows: list[dict[str, object]] = []
    for entry in series:
        for category, result in (entry.finished or entry.jobs)[0].results.items():
            units = result.units
            kinds: dict[str, list[float]] = {}
            for number, value in placements(units).items():
                if units.labels[number] == 1:
                    kinds.setdefault(units.defect_type(number), []).append(value)
            for kind, values in sorted(kinds.items()):
                shown = {"category": category, "defect_type": kind, "n_images": len(values)}
                rows.append({**row_labels(entry), **shown, "image_auroc": float(np.mean(values))})
    return pd.DataFrame(rows)


def by_defect_size(series: Sequence[Series]) -> pd.DataFrame:
    """AUPRO of the regions of one size: overlap averaged over those regions, false positives of the whole category.

    The value is the mean over all regions of the size in a dataset, whichever category they are in. The interval is
    1.96 standard errors; the regions of one unit are a cluster.
    """
    rows: list[dict[str, object]] = []
    for entry in series:
        found: list[tuple[float, float, object]] = []
        job = (entry.finished or entry.jobs)[0]
        for category in job.results:
            found += _region_aupro(job, category)
        for low, high in SIZES:
            chosen = [place for place in found if low < place[0] <= high]
            inside = np.array([value for _, value, _ in chosen])
            if inside.size:
                error = 1.96 * clustered_error(inside, [unit for _, _, unit in chosen])
                numbers = {"n_regions": inside.size, "value": float(inside.mean()), "error": error}
                rows.append({**row_labels(entry), "size_from": low, "size_to": high, **numbers})
    return pd.DataFrame(rows)


def _region_aupro(job: Job, category: str) -> list[tuple[float, float, object]]:
    """(share of the image, AUPRO, unit) of every region; their mean over regions is the category's AUPRO."""
    summary = summary_of(job, category)
    if summary is None:
        return []
    pixels = summary.negatives.sum(axis=1, dtype=np.int64)
    pixels += np.bincount(summary.region_image, summary.areas, len(summary.image_ids)).astype(np.int64)
    regions = summary.regions.astype(np.float64)
    negative = np.broadcast_to(summary.negatives.sum(axis=0, dtype=np.float64), regions.shape)
    counts = binned.Counts(regions, negative, regions / summary.areas[:, None])
    values = binned.aupro(binned.curves(counts))
    sizes = summary.areas / pixels[summary.region_image]
    units = job.results[category].units.of_photo
    photos = [summary.image_ids[position] for position in summary.region_image]
    clusters = [(category, units.get(photo, photo)) for photo in photos]
    return list(zip(sizes.tolist(), values.tolist(), clusters, strict=True))

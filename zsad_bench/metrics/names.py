"""Which metrics there are, what they are called in text, and how a fraction is written."""

from __future__ import annotations

import math
from collections.abc import Container

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
METRIC_NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "pixel_aupro": "pixel AUPRO",
    "pixel_aupro_sweep200": "pixel AUPRO (200 thresholds)",
}
"""How a metric is called in text."""

OPTIONAL_METRICS = ("pixel_aupro_sweep200",)


def shown_metrics(columns: Container[str]) -> list[str]:
    """The metrics among the columns of a table, in the field's order."""
    return [metric for metric in (*METRICS, *OPTIONAL_METRICS) if metric in columns]


def percent(value: float) -> str:
    """A fraction as percent with one decimal; a dash where there is no value."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"

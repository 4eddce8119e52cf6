"""What is kept of a category for later statistics: histograms of its maps and replicates of its metrics."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from zsad_bench.metrics.units import Units
from zsad_bench.statistics.bootstrap import bootstrap
from zsad_bench.statistics.histograms import PixelSummary

SUMMARY, REPLICATES = "summary", "replicates"
"""Kinds of arrays that are kept."""


def kept_arrays(category: str, units: Units, summary: PixelSummary | None) -> dict[str, dict[str, NDArray[Any]]]:
    """Arrays by kind: the summary, if there is one, and the replicates of all metrics."""
    replicates = bootstrap(category, units, summary).to_arrays()
    return {**({} if summary is None else {SUMMARY: summary.to_arrays()}), REPLICATES: replicates}

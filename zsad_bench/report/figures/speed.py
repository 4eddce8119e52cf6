"""Accuracy against throughput, of :func:`~zsad_bench.leaderboard.questions.speed`: with the encoder and without."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from zsad_bench.metrics.names import METRIC_NAMES
from zsad_bench.report.figures.plots import batch_sizes, figure, legend, look, short, style, titled

_PANELS = (
    ("images_per_second", "pareto", "encoder and method"),
    ("method_images_per_second", "method_pareto", "method alone, on stored features"),
)
_LOG_FROM = 4.0  # a logarithmic axis if the fastest is this many times as fast as the slowest
_SIZES = (5.0, 13.0)  # markers of the smallest and of the largest batch


def speed_figure(table: pd.DataFrame, metric: str) -> Figure:
    """A metric against images per second, larger markers for larger batches; the Pareto front is ringed and joined.

    Args:
        table: of one dataset and protocol.
    """
    shown = table[table["value"].notna() & table["images_per_second"].notna()]
    with style():
        made, panels = figure(10.0, 4.2, 2)
        looks = look(shown["method"].unique().tolist())
        order = {size: place for place, size in enumerate(batch_sizes(shown))}
        for axes, (rate, front, title) in zip(panels, _PANELS, strict=True):
            known = shown[shown[rate].notna()]
            for row in known.sort_values("batch_size", key=lambda sizes: -sizes.map(order)).to_dict("records"):
                kind = looks[str(row["method"])]
                size = np.interp(order[row["batch_size"]], [0, max(len(order) - 1, 1)], _SIZES)
                axes.plot(
                    *(row[rate], 100 * row["value"], kind["marker"]),
                    color=kind["color"],
                    ms=float(size),
                    mec="white",
                    mew=0.6,
                )
            best = shown[shown[front]].sort_values(rate)
            axes.plot(best[rate], 100 * best["value"], "o--", color="#555555", mfc="none", ms=17, lw=1.2, zorder=1)
            _scale(axes, shown[rate])
            axes.margins(0.12)
            axes.set_xlabel(f"images per second\n({title})")
        panels[0].set_ylabel(f"{METRIC_NAMES[metric]}, %")
        panels[0].set_title(titled(shown, "larger marker: larger batch"))
        for method, kind in looks.items():
            panels[1].plot([], [], kind["marker"], color=kind["color"], ms=8, label=short(method))
        panels[1].plot([], [], "o--", color="#555555", mfc="none", ms=11, label="Pareto front")
        legend(panels[1], len(looks) + 1)
    return made


def _scale(axes: Axes, rates: pd.Series) -> None:
    """Logarithmic if the rates differ much, with as many numbers as there is room for."""
    if rates.notna().sum() and rates.max() > _LOG_FROM * rates.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if rates.max() < 30 * rates.min() else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")

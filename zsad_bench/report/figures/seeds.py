"""How much the composition of batches matters: one point a seed.

The numbers come from :func:`~zsad_bench.leaderboard.questions.by_seed`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zsad_bench.metrics.names import METRIC_NAMES
from zsad_bench.report.figures.plots import batch_size_axis, batch_sizes, figure, legend, look, short, style, titled

_WIDTH = 0.6  # of a batch size, which all methods share


def seeds_figure(table: pd.DataFrame, metric: str) -> Figure:
    """The mean over categories of every seed as a point, their mean with one standard deviation as a bar.

    Args:
        table: of one dataset and protocol.
    """
    shown = table[(table["metric"] == metric) & table["value"].notna()]
    with style():
        made, (axes,) = figure()
        sizes = batch_sizes(shown)
        looks = look(shown["method"].unique().tolist())
        for number, (method, part) in enumerate(shown.groupby("method", sort=True)):
            kind, offset = looks[str(method)], _WIDTH * ((number + 0.5) / len(looks) - 0.5)
            name = short(method)
            for size, seeds in part.groupby("batch_size", sort=False):
                values = 100 * seeds["value"].to_numpy(float)
                place = sizes.index(size) + offset
                spots = place + 0.25 * _WIDTH / len(looks) * np.linspace(-1, 1, values.size)
                axes.plot(spots, values, kind["marker"], color=kind["color"], ms=4, alpha=0.6, lw=0)
                axes.errorbar(
                    *(place, values.mean(), values.std(ddof=1)),
                    label=name,
                    fmt="_",
                    color=kind["color"],
                    ms=16,
                    capsize=4,
                    lw=1.6,
                )
                name = "_"  # one entry a method
        batch_size_axis(axes, sizes)
        axes.set_xlim(-0.5, len(sizes) - 0.5)
        axes.set_ylabel(f"{METRIC_NAMES[metric]}, %")
        axes.set_title(titled(shown, "a point per seed; bars: standard deviation"))
        legend(axes, len(looks))
    return made

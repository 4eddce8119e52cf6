"""The critical-difference diagram: mean ranks of methods, and which of them Nemenyi's test cannot tell apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from zsad_bench.report.figures.plots import COLOURS, figure, style, wrapped
from zsad_bench.statistics.intervals import RankTest


def critical_difference_figure(test: RankTest, title: str) -> Figure:
    """Mean ranks on a line, bars join methods that are not significantly different (Demsar 2006).

    Drawn by scikit-posthocs, which the extra ``report`` installs.

    Args:
        test: with a critical difference.
    """
    from scikit_posthocs import critical_difference_diagram

    labels = list(test.ranks)
    ranks = np.array([test.ranks[label] for label in labels])
    apart = np.abs(ranks[:, None] - ranks[None, :]) > test.critical_difference
    significance = pd.DataFrame(np.where(apart, 0.0, 1.0), index=labels, columns=labels)
    palette = {label: COLOURS[position % len(COLOURS)] for position, label in enumerate(sorted(labels))}
    with style():
        made, (axes,) = figure(8.6, 1.9 + 0.32 * math.ceil(len(labels) / 2))
        axes.grid(visible=False)
        critical_difference_diagram(
            pd.Series(test.ranks),
            significance,
            ax=axes,
            color_palette=palette,
            label_fmt_left="{label} ({rank:.2f})",
            label_fmt_right="({rank:.2f}) {label}",
        )
        p = f"p = {test.p:.3f}" if test.p >= 0.001 else "p < 0.001"
        axes.set_title(
            f"{wrapped(f'{title}: mean rank over {test.n_blocks} categories (Friedman {p})')}\n"
            f"bars join methods within the critical difference {test.critical_difference:.2f}",
            loc="center",
            fontsize=10.5,
            pad=12,
        )
    return made

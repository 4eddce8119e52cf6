"""Interactive charts of the report, as plotly figures in JSON: batch-size curves and the category explorer.

These two are plotly's on the page; every other picture there, and every file in ``plots/``, is matplotlib's.
"""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from zsad_bench.core.names import batch_size_order
from zsad_bench.metrics.names import METRIC_NAMES
from zsad_bench.report.figures.plots import look

_SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down"}


def batch_size_chart(table: pd.DataFrame) -> str:
    """Lines of every method and metric against batch size; each trace says in ``meta`` which metric it is.

    Args:
        table: of :func:`zsad_bench.leaderboard.questions.by_batch_size`, one dataset and protocol.
    """
    shown = table[table["value"].notna()]
    sizes = sorted(set(shown["batch_size"].tolist()), key=batch_size_order)
    return _figure(shown, "batch_size", [str(size) for size in sizes], "batch size", "lines+markers", 0.06)


def category_chart(table: pd.DataFrame) -> str:
    """Dots of every method and metric for each category, with intervals.

    Args:
        table: of :func:`zsad_bench.leaderboard.questions.by_category`, one dataset and protocol.
    """
    shown = table[table["value"].notna()]
    return _figure(shown, "category", sorted(set(shown["category"])), "category", "markers", 0.6)


def _figure(shown: pd.DataFrame, column: str, ticks: list[str], title: str, mode: str, width: float) -> str:
    """All methods side by side within ``width`` of a tick."""
    looks = look(shown["method"].unique().tolist())
    places = {tick: place for place, tick in enumerate(ticks)}
    traces = []
    for (metric, method), part in shown.groupby(["metric", "method"], sort=True):
        rows = part.assign(place=part[column].astype(str).map(places)).sort_values("place")
        offset = width * ((list(looks).index(str(method)) + 0.5) / len(looks) - 0.5)
        traces.append(_trace(rows, offset, str(metric), str(method), column, looks[str(method)], mode))
    made = go.Figure(traces)
    made.update_layout(
        template="simple_white",
        font={"family": "system-ui, sans-serif", "size": 14},
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        xaxis={"title": {"text": title}, "tickmode": "array", "tickvals": list(range(len(ticks))), "ticktext": ticks},
        yaxis={"title": {"text": "%"}, "automargin": True, "showgrid": True, "gridcolor": "#e3e6ea"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hoverlabel={"align": "left"},
    )
    text = made.to_json()
    assert text is not None
    return text


def _trace(
    rows: pd.DataFrame, offset: float, metric: str, method: str, column: str, kind: dict[str, str], mode: str
) -> go.Scatter:
    value, low, high = (100 * rows[name].to_numpy(float) for name in ("value", "low", "high"))
    ends = [
        [_plain(str(tick)), _shown(first), _shown(last)]
        for tick, first, last in zip(rows[column], low, high, strict=True)
    ]
    hover = (
        f"{_plain(method)}, {column.replace('_', ' ')} %{{customdata[0]}}<br>{METRIC_NAMES[metric]} %{{y:.1f}} %<br>"
        "95 % interval %{customdata[1]} to %{customdata[2]}<extra></extra>"
    )
    return go.Scatter(
        x=(rows["place"] + offset).tolist(),
        y=value.tolist(),
        name=_plain(method),
        meta=metric,
        mode=mode,
        customdata=ends,
        hovertemplate=hover,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(np.clip(high - value, 0, None)).tolist(),
            "arrayminus": np.nan_to_num(np.clip(value - low, 0, None)).tolist(),
            "thickness": 1,
            "width": 4,
        },
        line={"color": kind["color"]},
        marker={"size": 9, "symbol": _SYMBOLS.get(kind["marker"], "star")},
    )


def _plain(text: str) -> str:
    """Plotly reads some HTML in names; data must not."""
    return html.escape(text, quote=False)


def _shown(value: float) -> str:
    return "unknown" if np.isnan(value) else f"{value:.1f}"

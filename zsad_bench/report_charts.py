"""Interactive charts of the report, as plotly figures in JSON: batch-size curves and the category explorer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from zsad_bench.plots import COLOURS, METRIC_NAMES, look

_SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down"}


def batch_size_chart(table: pd.DataFrame) -> str:
    """Lines of every method and metric against batch size; each trace says in ``meta`` which metric it is.

    Args:
        table: of :func:`zsad_bench.analysis.by_batch_size`, one dataset.
    """
    shown = table[table["value"].notna()]
    traces = []
    for (metric, method), part in shown.groupby(["metric", "method"], sort=True):
        order = part["batch_size"].map(lambda size: float("inf") if size == "all" else float(size)).argsort()
        rows = part.iloc[order.to_numpy()]
        traces.append(
            _trace(rows, str(metric), str(method), rows["batch_size"].astype(str).tolist(), shown, "lines+markers")
        )
    return _figure(traces, "batch size")


def category_chart(table: pd.DataFrame) -> str:
    """Dots of every method and metric for each category, with intervals.

    Args:
        table: of :func:`zsad_bench.analysis.by_category`, one dataset.
    """
    shown = table[table["value"].notna()]
    traces = [
        _trace(part, str(metric), str(method), part["category"].tolist(), shown, "markers")
        for (metric, method), part in shown.groupby(["metric", "method"], sort=True)
    ]
    return _figure(traces, "category")


def _trace(
    rows: pd.DataFrame, metric: str, method: str, x: list[str], everything: pd.DataFrame, mode: str
) -> go.Scatter:
    kind = look(everything["method"].unique().tolist())[method]
    value, low, high = (100 * rows[name].to_numpy(float) for name in ("value", "low", "high"))
    name = METRIC_NAMES.get(metric, metric)
    hover = f"%{{x}}<br>{name} %{{y:.1f}} %<br>95 % interval %{{customdata[0]}} to %{{customdata[1]}}"
    return go.Scatter(
        x=x,
        y=value.tolist(),
        name=_plain(method),
        meta=metric,
        mode=mode,
        customdata=[[_shown(first), _shown(last)] for first, last in zip(low, high, strict=True)],
        hovertemplate=f"{_plain(method)}, {hover}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, end) if end == end else 0.0 for end in high - value],
            "arrayminus": [max(0.0, end) if end == end else 0.0 for end in value - low],
            "thickness": 1,
            "width": 4,
        },
        line={"color": kind["color"]},
        marker={"size": 9, "symbol": _SYMBOLS.get(kind["marker"], "star")},
    )


def _plain(text: str) -> str:
    """Plotly reads some HTML in names; data must not."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shown(value: float) -> str:
    return "unknown" if value != value else f"{value:.1f}"


def _figure(traces: list[go.Scatter], x: str) -> str:
    made = go.Figure(traces)
    made.update_layout(
        template="simple_white",
        colorway=list(COLOURS),
        font={"family": "system-ui, sans-serif", "size": 14},
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        xaxis={"title": x, "type": "category"},
        yaxis={"title": "%", "showgrid": True, "gridcolor": "#e3e6ea"},
        scattermode="group",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hoverlabel={"align": "left"},
    )
    text = made.to_json()
    assert text is not None
    return text

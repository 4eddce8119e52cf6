"""Figures of results, as PNG and SVG: one function a question.

Their tables come from :mod:`zsad_bench.leaderboard.questions`.

Colours are Okabe and Ito's, told apart with every kind of colour blindness; line styles and markers repeat what colour
says, so that figures survive a black and white printer.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from zsad_bench.core.files import atomic_path, write_atomic
from zsad_bench.core.names import batch_size_order
from zsad_bench.leaderboard.series import section_title
from zsad_bench.metrics.names import METRIC_NAMES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D3A9B", "#000000")
MARKERS = "osD^vP*X"
_LONGEST_LABEL = 40
_LONGEST_TITLE = 80
_LETTER = 0.085  # inches, on average
LINES = ("-", "--", "-.", ":")
HEAT = "viridis"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "zsad-bench",
    "savefig.dpi": 150,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for a block."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def figure(width: float = 7.0, height: float = 4.2, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with axes, rows first."""
    made = Figure(figsize=(width, height), layout="constrained")
    return made, list(np.atleast_1d(made.subplots(rows, columns, squeeze=False)).ravel())


def save(made: Figure, folder: Path, name: str) -> None:
    """Write ``<name>.png`` and ``<name>.svg``; the same figure gives the same bytes."""
    with style():
        with atomic_path(folder / f"{name}.png") as path:
            made.savefig(path, format="png", metadata={"Software": None})
        text = io.StringIO()
        made.savefig(text, format="svg", metadata={"Date": None})
        write_atomic(folder / f"{name}.svg", text.getvalue())


def look(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour, marker and line style of each method, by the order of their names."""
    return {
        name: {
            "color": COLOURS[position % len(COLOURS)],
            "marker": MARKERS[position % len(MARKERS)],
            "linestyle": LINES[position // len(COLOURS) % len(LINES)] if len(names) > len(COLOURS) else "-",
        }
        for position, name in enumerate(sorted(names))
    }


def short(text: object) -> str:
    """A label that leaves room for the figure."""
    label = str(text)
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 3] + "..."


def batch_sizes(table: pd.DataFrame) -> list[object]:
    """Batch sizes of a table in order, ``all`` last."""
    return sorted(set(table["batch_size"].tolist()), key=batch_size_order)


def batch_size_axis(axes: Axes, sizes: Sequence[object]) -> None:
    """An equal step for every batch size."""
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(sizes)))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(size) for size in sizes])
    axes.set_xlabel("batch size (images of a category seen together)")


def batch_size_figure(table: pd.DataFrame, metric: str, units: str = "images") -> Figure:
    """A metric against batch size, a line per method with its 95 % interval; a method with one point is a level.

    Args:
        table: of :func:`zsad_bench.leaderboard.questions.by_batch_size`, one dataset and protocol.
        metric: to show.
        units: what the intervals are over.
    """
    shown = table[(table["metric"] == metric) & table["value"].notna()]
    with style():
        made, (axes,) = figure()
        sizes = batch_sizes(shown)
        places = {size: position for position, size in enumerate(sizes)}
        looks = look(shown["method"].unique().tolist())
        for number, (method, part) in enumerate(shown.groupby("method", sort=True)):
            x = part["batch_size"].map(places).to_numpy(float)
            order = np.argsort(x)
            shifted = x[order] + 0.05 * (number - len(looks) / 2)
            value, low, high = (100 * part[name].to_numpy(float)[order] for name in ("value", "low", "high"))
            errors = np.clip(np.nan_to_num([value - low, high - value]), 0, None)
            _line(axes, shifted, value, errors, str(method), looks)
        batch_size_axis(axes, sizes)
        axes.set_ylabel(f"{METRIC_NAMES[metric]}, %")
        axes.set_title(titled(shown, f"bars: 95 % interval over {units}"))
        legend(axes, len(looks))
    return made


def _line(
    axes: Axes,
    x: NDArray[np.floating],
    value: NDArray[np.floating],
    error: NDArray[np.floating],
    method: str,
    looks: dict[str, dict[str, str]],
) -> None:
    """A method's points with error bars, joined."""
    kind = looks[method]
    axes.errorbar(
        *(x, value, error),
        label=short(method),
        color=kind["color"],
        marker=kind["marker"],
        ls=kind["linestyle"],
        capsize=3,
        lw=1.8,
        ms=6,
        elinewidth=1,
    )


def titled(table: pd.DataFrame, more: str = "") -> str:
    """The dataset of a table, its protocol unless that is the standard one, and a remark.

    Raises:
        ValueError: rows of several datasets or protocols, which no figure may put together.
    """
    keys = table[[name for name in ("dataset", "protocol") if name in table]].drop_duplicates()
    if len(keys) > 1:
        raise ValueError(f"rows of several datasets or protocols: {keys.to_numpy().tolist()}")
    dataset, protocol = ([*keys.to_numpy().ravel().tolist(), "standard"] if len(keys) else ["", "standard"])[:2]
    title = section_title(short(dataset), str(protocol))
    return wrapped(f"{title} ({more})" if more else title)


def wrapped(title: str) -> str:
    """A title in as many lines as it needs."""
    return textwrap.fill(title, _LONGEST_TITLE, break_on_hyphens=False)


def legend(axes: Axes, entries: int) -> None:
    """Beside the axes, or inside where one entry leaves room."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0)) if entries > 1 else axes.legend(loc="best")


def share_figure(table: pd.DataFrame) -> Figure:
    """Ranking of images against the share of anomalous images in their batch.

    The table is that of :func:`~zsad_bench.leaderboard.questions.by_share`. Shows the batch
    size at which the shares differ most.
    """
    spread = table.groupby("batch_size")["share_from"].nunique()
    table = table[table["batch_size"] == spread.idxmax()]
    with style():
        made, (axes,) = figure()
        labels = [f"{100 * low:g} to {100 * high:g} %" for low, high in _ranges(table, "share")]
        places = {low: position for position, (low, _) in enumerate(_ranges(table, "share"))}
        looks = look(table["method"].unique().tolist())
        for number, (method, part) in enumerate(table.groupby("method", sort=True)):
            x = part["share_from"].map(places).to_numpy(float) + 0.05 * (number - len(looks) / 2)
            value, error = (100 * part[name].to_numpy(float) for name in ("value", "error"))
            _line(axes, x, value, error, str(method), looks)
        axes.xaxis.set_major_locator(FixedLocator(list(range(len(labels)))))
        axes.set_xticklabels(labels)
        axes.set_xlabel("share of anomalous images in the batch")
        axes.set_ylabel("images ranked rightly, %")
        size = ", ".join(str(size) for size in batch_sizes(table))
        axes.set_title(titled(table, f"batch size {size}; bars: 1.96 standard errors"))
        legend(axes, len(looks))
    return made


def _ranges(table: pd.DataFrame, name: str) -> list[tuple[float, float]]:
    pairs = table[[f"{name}_from", f"{name}_to"]].drop_duplicates().itertuples(index=False)
    return sorted((float(low), float(high)) for low, high in pairs)


def size_figure(table: pd.DataFrame) -> Figure:
    """AUPRO by the size of the defect, of :func:`~zsad_bench.leaderboard.defects.by_defect_size`."""
    with style():
        made, (axes,) = figure()
        ranges = _ranges(table, "size")
        looks = look(table["method"].unique().tolist())
        width = 0.8 / max(len(looks), 1)
        for number, (method, part) in enumerate(table.groupby("method", sort=True)):
            places = part["size_from"].map({low: place for place, (low, _) in enumerate(ranges)}).to_numpy(float)
            x = places + width * (number - (len(looks) - 1) / 2)
            value, error = (100 * part[name].to_numpy(float) for name in ("value", "error"))
            axes.bar(x, value, width, label=short(method), color=looks[str(method)]["color"], edgecolor="white")
            axes.errorbar(x, value, np.nan_to_num(error), fmt="none", ecolor="#333333", capsize=2, lw=1)
        counts = table.groupby("size_from")["n_regions"].max()
        axes.xaxis.set_major_locator(FixedLocator(list(range(len(ranges)))))
        axes.set_xticklabels([f"{100 * low:g} to {100 * high:g} %\n{counts.loc[low]} regions" for low, high in ranges])
        axes.set_ylim(0, None)
        axes.set_xlabel("area of the defect, share of the image")
        axes.set_ylabel("AUPRO over these regions, %")
        axes.set_title(titled(table, "bars: 1.96 standard errors"))
        legend(axes, len(looks))
    return made


def heat_figure(table: pd.DataFrame, title: str, unit: str = "%", scale: float = 100.0) -> Figure:
    """A heat map with the value in every cell; an empty cell says that there is no value.

    Args:
        table: rows and columns as they shall appear.
    """
    values = scale * table.to_numpy(float)
    rows, columns = values.shape
    with style():
        across, down = (max((len(short(name)) for name in names), default=0) for names in (table.index, table.columns))
        width, height = 1.6 + _LETTER * across + 0.75 * columns, 1.1 + 0.6 * _LETTER * down
        made, (axes,) = figure(max(6.0, width), max(3.0, height + (0.4 if rows <= 12 else 0.28) * rows))
        axes.grid(visible=False)
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        image = axes.imshow(
            np.ma.masked_invalid(values), cmap=HEAT, vmin=low, vmax=max(high, low + 1e-9), aspect="auto"
        )
        axes.set_xticks(
            range(columns), [short(name) for name in table.columns], rotation=35, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(rows), [short(name) for name in table.index])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for y in range(rows):
            for x in range(columns):
                value = values[y, x]
                dark = np.isfinite(value) and (value - low) / max(high - low, 1e-9) < 0.6
                text = f"{value:.1f}" if scale == 100 else f"{value:.2f}"
                axes.text(
                    x,
                    y,
                    text if np.isfinite(value) else "none",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if dark else "black",
                )
        bar = made.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
        bar.outline.set_visible(False)
        bar.set_label(unit)
        axes.set_title(wrapped(title))
    return made


def distribution_figure(images: pd.DataFrame, title: str) -> Figure:
    """Image scores of normal and anomalous images, a panel per category.

    Args:
        images: of :func:`zsad_bench.leaderboard.questions.score_table`.
    """
    categories = sorted(images["category"].unique())
    columns = min(4, max(1, len(categories)))
    rows = max(1, -(-len(categories) // columns))
    with style():
        made, panels = figure(2.6 * columns + 0.4, 2.0 * rows + 0.7, columns, rows)
        for axes, category in zip(panels, categories, strict=False):
            part = images[(images["category"] == category) & images["label"].notna()]
            scores = part["score"].to_numpy(float)
            if scores.size:
                bins = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-9), 16).tolist()
                for label, name, colour, hatch in ((0, "normal", COLOURS[0], ""), (1, "anomalous", COLOURS[1], "///")):
                    axes.hist(
                        scores[part["label"] == label],
                        bins,
                        alpha=0.6,
                        color=colour,
                        hatch=hatch,
                        label=name,
                        edgecolor="white",
                        linewidth=0.4,
                    )
            axes.set_title(str(category), fontsize=10)
            axes.tick_params(labelsize=8.5)
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        for axes in panels[len(categories) :]:
            axes.set_visible(False)
        if categories:
            panels[0].legend(fontsize=8.5, loc="upper right")
        made.suptitle(wrapped(title), x=0.01, ha="left", fontsize=11.5)
        made.supxlabel("image score", fontsize=10)
        made.supylabel("images", fontsize=10)
    return made


def curves_figure(table: pd.DataFrame) -> Figure:
    """ROC and precision-recall of images, precision-recall and per-region overlap of pixels, methods overlaid.

    Args:
        table: of :func:`zsad_bench.leaderboard.questions.curves`, several methods, one dataset and protocol.
    """
    panels = [
        ("image_roc", "image ROC", "false positive rate", "recall"),
        ("image_pr", "image precision-recall", "recall", "precision"),
        ("pixel_pr", "pixel precision-recall", "recall", "precision"),
        ("pixel_pro", "per-region overlap", "pixel false positive rate", "mean overlap"),
    ]
    with style():
        made, axes_list = figure(8.6, 7.0, 2, 2)
        looks = look(table["method"].unique().tolist())
        for axes, (curve, title, x, y) in zip(axes_list, panels, strict=True):
            for method, part in table[table["curve"] == curve].groupby("method", sort=True):
                kind = looks[str(method)]
                line = LINES[list(looks).index(str(method)) % len(LINES)]
                axes.plot(part["x"], part["y"], color=kind["color"], ls=line, lw=1.8, label=short(method))
            if curve == "image_roc":
                axes.plot([0, 1], [0, 1], color="#AAAAAA", lw=1)
            axes.set(title=title, xlabel=x, ylabel=y, ylim=(0, 1.02))
        axes_list[0].legend(loc="lower right", fontsize=9)
        made.suptitle(titled(table, "mean over categories"), x=0.01, ha="left", fontsize=11.5)
    return made

"""Plot what FiSeCLIP's text filter brings as more of a batch is anomalous, from the CSV files of ``ablation.py``.

    python benchmarks/share_curve.py demo=results/shares_demo.csv "magnetic tile=results/shares_tiles.csv"

One panel per file: the difference that the filter makes (second variant of the table minus the first), in points,
against the share of anomalous images; bars are standard errors over categories and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart; marks differ as well.
CURVES = (
    ("image_auroc", "image AUROC", "#0072B2", "o"),
    ("image_ap", "image AP", "#56B4E9", "s"),
    ("pixel_ap", "pixel AP", "#D55E00", "^"),
    ("pixel_aupro", "pixel AUPRO", "#009E73", "D"),
)


def gains(path: Path, metric: str) -> pd.DataFrame:
    """Mean difference and its standard error per share of anomalous images, in points."""
    rows = pd.read_csv(path)
    rows = rows[rows["table"] == "shares"]
    unfiltered, filtered = rows["variant"].unique()[:2]
    wide = rows.pivot(index=["composition", "category", "seed"], columns="variant", values=metric)
    gain = 100 * (wide[filtered] - wide[unfiltered])
    gain.index = gain.index.set_levels([float(text.split("%")[0]) for text in gain.index.levels[0]], level=0)
    groups = gain.groupby(level=0)
    return pd.DataFrame({"mean": groups.mean(), "error": groups.sem()})


def draw(axes: Axes, path: Path, title: str) -> None:
    """One panel."""
    for place, (metric, label, colour, mark) in enumerate(CURVES):
        found = gains(path, metric)
        aside = (place - 1.5) * 0.8  # so that bars of different curves do not cover each other
        axes.errorbar(
            found.index + aside, found["mean"], yerr=found["error"], label=label, color=colour, marker=mark, capsize=2
        )
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_title(title)
    axes.set_xlabel("anomalous images in the batch, %")
    axes.set_xticks(np.array(found.index))
    axes.grid(axis="y", color="0.9")


def main() -> None:
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="TITLE=CSV")
    parser.add_argument("--output", type=Path, default=Path("docs/images/fiseclip_shares.png"))
    options = parser.parse_args()
    mpl.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(options.files), figsize=(4.6 * len(options.files), 3.6), squeeze=False)
    for axes, text in zip(panels[0], options.files, strict=True):
        title, _, path = text.partition("=")
        draw(axes, Path(path), title)
    panels[0, 0].set_ylabel("gain by the text filter, points")
    panels[0, 0].legend(frameon=False, fontsize="small")
    figure.tight_layout()
    figure.savefig(options.output, dpi=130)


if __name__ == "__main__":
    main()

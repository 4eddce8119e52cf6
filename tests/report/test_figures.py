"""Figures: the same data give the same picture, close to the one that was looked at."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from zsad_bench.report.figures import plots
from zsad_bench.report.figures.ranks import critical_difference_figure
from zsad_bench.report.figures.seeds import seeds_figure
from zsad_bench.report.figures.speed import speed_figure
from zsad_bench.statistics.intervals import rank_test

BASELINES = Path(__file__).parents[1] / "files" / "plots"
TOLERANCE = 6.0
"""Root mean square over 8-bit pixels; fonts are rendered a little differently by other releases."""


def curve_table() -> pd.DataFrame:
    rows = []
    for method, values in {"musc": (50, 70, 80), "winclip": (65, 65, 65), "late": (math.nan, 60, 75)}.items():
        for size, value in zip((1, 4, "all"), values, strict=True):
            ends = {"low": (value - 5) / 100, "high": (value + 3) / 100, "seed_std": math.nan, "seeds": "0"}
            row = {"dataset": "drawn", "method": method, "batch_size": size, "metric": "image_auroc"}
            rate = {"images_per_second": value / 7, "method_images_per_second": value**3, "method_pareto": size == 1}
            rows.append({**row, "value": value / 100, **ends, **rate, "pareto": size == "all"})
    return pd.DataFrame(rows)


def heat_table() -> pd.DataFrame:
    return pd.DataFrame({"bolt": [0.5, 0.9], "plate": [0.75, math.nan]}, index=["musc", "winclip"])


def seed_table() -> pd.DataFrame:
    rows = []
    for method, centre in (("musc", 70), ("fiseclip", 75)):
        for size in (4, "all"):
            for seed in range(3):
                row = {"dataset": "drawn", "method": method, "batch_size": size, "metric": "image_auroc", "seed": seed}
                rows.append({**row, "value": (centre + (3 - 2 * (size == "all")) * (seed - 1)) / 100})
    return pd.DataFrame(rows)


FIGURES = {
    "batch_size": lambda: plots.batch_size_figure(curve_table(), "image_auroc"),
    "speed": lambda: speed_figure(curve_table(), "image_auroc"),
    "seeds": lambda: seeds_figure(seed_table(), "image_auroc"),
    "heat": lambda: plots.heat_figure(heat_table(), "drawn: image AUROC"),
}


@pytest.mark.skipif(matplotlib.__version_info__ < (3, 11), reason="matplotlib before 3.11 lays out text in another way")
@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_were_approved(name: str, tmp_path: Path) -> None:
    """To approve a changed look: delete the file in tests/files/plots, run the test twice, and look at the picture."""
    made = FIGURES[name]()
    made.set_dpi(40)
    path = tmp_path / f"{name}.png"
    with plots.style():
        made.savefig(path, dpi=40)
    baseline = BASELINES / f"{name}.png"
    if not baseline.exists():
        baseline.parent.mkdir(exist_ok=True)
        baseline.write_bytes(path.read_bytes())
        pytest.fail(f"{baseline} was missing and is written: look at it")
    got, expected = (np.asarray(Image.open(file).convert("RGB"), float) for file in (path, baseline))
    assert got.shape == expected.shape
    assert math.sqrt(np.mean((got - expected) ** 2)) < TOLERANCE


def test_other_data_are_another_picture(tmp_path: Path) -> None:
    changed = curve_table()
    changed.loc[0, "value"] = 0.9
    pictures = []
    for table in (curve_table(), changed):
        with plots.style():
            plots.batch_size_figure(table, "image_auroc").savefig(tmp_path / "x.png", dpi=40)
        pictures.append(np.asarray(Image.open(tmp_path / "x.png").convert("RGB"), float))
    assert math.sqrt(np.mean((pictures[0] - pictures[1]) ** 2)) > TOLERANCE


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        plots.save(FIGURES["heat"](), tmp_path / folder, "heat")
    for name in ("heat.png", "heat.svg"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert "<svg" in (tmp_path / "first" / "heat.svg").read_text(encoding="utf-8")


def test_colours_stay_apart_for_colour_blind_eyes() -> None:
    """Simulated protan and deutan vision (Vienot, Brettel and Mollon 1999)."""
    linear = np.array([to_rgb(colour) for colour in plots.COLOURS[:6]]) ** 2.2
    for matrix in (
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    ):
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(apart) > 0.1


def test_edges_of_the_data_do_not_stop_a_figure() -> None:
    one = curve_table().iloc[3:4]
    empty = pd.DataFrame(columns=["category", "label", "score"])
    for made in (
        plots.batch_size_figure(one, "image_auroc"),
        speed_figure(one, "image_auroc"),
        plots.heat_figure(pd.DataFrame([[math.nan]], index=["a"], columns=["b"]), "nothing"),
        plots.distribution_figure(empty, "no image"),
    ):
        assert isinstance(made, Figure)


def test_the_critical_difference_diagram_names_everybody() -> None:
    pytest.importorskip("scikit_posthocs")
    random = np.random.default_rng(0)
    values = {
        name: {str(block): height + random.random() for block in range(12)}
        for name, height in (("a", 0), ("b", 0.1), ("c", 2))
    }
    made = critical_difference_figure(rank_test(values), "drawn")
    texts = " ".join(text.get_text() for axes in made.axes for text in axes.texts)
    for name in "abc":
        assert name in texts

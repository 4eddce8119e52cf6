"""``seeds=0..2``: batches composed anew for every seed, from the command line to the leaderboard and the report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.tables import unpadded
from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main
from zsad_bench.leaderboard.questions import by_seed
from zsad_bench.leaderboard.series import group_series
from zsad_bench.results.runs import read_runs


def test_seeds_become_one_row_with_mean_and_spread(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["dataset=mvtec", f"dataset.root={photo_folder}"]
    assert main(["method=musc", "batch_size=4", "seeds=0..2", "maps=none", "name=run", *data, *TINY_ENCODER]) == 0
    run = tmp_path / "results" / "run"
    rows = pd.read_csv(run / "metrics.csv").query("category == 'mean'")
    assert rows["seed"].tolist() == [0, 1, 2]
    values = rows["image_auroc"]
    assert values.nunique() > 1  # other batches, other scores
    (board,) = pd.read_csv(run / "leaderboard.csv").to_dict("records")
    assert (board["seed"], board["n_seeds"]) == ("0..2", 3)
    assert board["image_auroc"] == pytest.approx(values.mean())
    assert board["image_auroc_seed_std"] == pytest.approx(values.std(ddof=1))
    text = unpadded(run / "leaderboard.md")
    assert "image auroc std over seeds" in text
    assert f"| {100 * values.std(ddof=1):.1f} |" in text
    table = by_seed(group_series(read_runs([run]).jobs)).query("metric == 'image_auroc'")
    assert table["value"].tolist() == pytest.approx(values.tolist())

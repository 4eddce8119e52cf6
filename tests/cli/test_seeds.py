"""``seeds=0..2``: batches composed anew for every seed, from the command line to the leaderboard and the report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.test_main import ENCODER
from tests.helpers.tables import unpadded
from zsad_bench.cli.main import main
from zsad_bench.config.sweeps import expand_seeds
from zsad_bench.core.errors import UserError
from zsad_bench.leaderboard.questions import by_seed
from zsad_bench.results.runs import read_runs
from zsad_bench.results.series import group_series


def test_seeds_become_one_row_with_mean_and_spread(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["dataset=mvtec", f"dataset.root={photo_folder}"]
    assert main(["method=musc", "batch_size=4", "seeds=0..2", "maps=none", *data, *ENCODER]) == 0
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


def test_one_seed_says_nothing_of_spread(example_run: Path) -> None:
    series = group_series(read_runs([example_run]).jobs)
    assert set(by_seed(series)["method"]) == {"musc", "fiseclip (reconstruction)"}  # clip_ad was run once


@pytest.mark.parametrize("text", ["seeds=3", "seeds=2..1", "seeds=0...2", "seeds=a..b"])
def test_other_forms_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"seeds=0\.\.9"):
        expand_seeds([text])
    assert expand_seeds(["a=1", "seeds=2..4"]) == ["a=1", "seed=2,3,4"]

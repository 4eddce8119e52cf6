"""Results folders of earlier releases, as they were written, are read by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from zsad_bench.cli.main import main
from zsad_bench.leaderboard.tables import write_tables
from zsad_bench.results.rows import RESULT_FORMAT
from zsad_bench.results.runs import read_runs

RELEASES = sorted(path for path in (Path(__file__).parents[1] / "historic_results").iterdir() if path.is_dir())
FEW = ["dataset.n_normal=2", "dataset.n_anomalous=2", "dataset.n_train=0"]  # quickly rendered
JOB = ["dataset=demo", *FEW, "dataset.categories=[tile,gear]", "maps=none", "features=memory", "name=run"]


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "results" / "run"))


def test_nothing_is_damaged_and_every_number_is_there(release: Path) -> None:
    before = pd.read_csv(release / "metrics.csv", dtype=str)  # as numbers, pandas 2 would miss their last bits
    runs = read_runs([release])
    assert runs.problems == []
    assert runs.failures
    tables = write_tables(release)
    keys = ["config_hash", "category"]
    after = tables.metrics.set_index(keys).sort_index()
    metrics = [name for name in before if name.startswith(("image_", "pixel_")) and name != "image_size"]
    expected = before.set_index(keys).sort_index()[metrics].astype(float)
    pd.testing.assert_frame_equal(after[metrics], expected, check_exact=True)
    assert len(tables.leaderboard) == 4 + 1  # one job never finished a category
    assert tables.leaderboard["image_auroc_low"].notna().sum() == 4


def test_older_results_are_never_ranked_beside_newer_ones(release: Path) -> None:
    board = write_tables(release).leaderboard
    for protocol in board["protocol"]:
        assert protocol.endswith("result format 1")


def test_the_same_command_computes_older_results_again(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(release.parents[1])
    old = {path.parent.name for path in release.glob("jobs/*/job.json")}
    assert main(["method=musc", "batch_size=4", *JOB]) == 0
    (new,) = {path.parent for path in release.glob("jobs/*/job.json")} - {release / "jobs" / name for name in old}
    assert json.loads((new / "job.json").read_text())["format"] == RESULT_FORMAT
    board = pd.read_csv(release / "leaderboard.csv")
    shown = board[(board["method"] == "musc") & (board["batch_size"] == 4)]
    assert len(shown) == 1, "the older result of the same job is not shown beside the new one"
    assert "result format" not in shown["protocol"].iloc[0]
    assert {path.parent.name for path in release.glob("jobs/*/job.json")} > old, "nothing is deleted"


def test_files_of_a_later_release_are_read(release: Path) -> None:
    """Keys that nobody knows yet are ignored."""
    for path in release.glob("jobs/*/categories/*.json"):
        content = json.loads(path.read_text())
        content |= {"format": 99, "weather": "fine", "images": [{**i, "colour": "red"} for i in content["images"]]}
        path.write_text(json.dumps(content))
    for path in release.glob("jobs/*/job.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "weather": "fine"}))
    runs = read_runs([release])
    assert runs.problems == []
    assert sum(len(job.results) for job in runs.jobs) == 8

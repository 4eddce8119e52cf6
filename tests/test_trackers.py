"""Trackers receive configuration, metrics and pictures of a job; each is skipped where its package is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.helpers.result_files import category, info, saved
from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.core.errors import UserError
from zsad_bench.results.files import JobFolder
from zsad_bench.trackers import MlflowTracker, NoTracker, TensorBoardTracker, Tracker, WandbTracker, finished


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    from PIL import Image

    folder = saved(tmp_path / "run", info(), category("bottle", 0.5, float("nan")), category("cable", 0.7))
    (folder.path / "config.yaml").write_text("seed: 0\nmethod: {name: winclip, windows: [2, 3]}\n", encoding="utf-8")
    (folder.path / "maps").mkdir()
    Image.new("RGB", (8, 8), "red").save(folder.path / "maps" / "bottle.png")
    return folder


def test_what_a_tracker_is_told(job: JobFolder) -> None:
    told = finished(job)
    assert told.params == {"seed": "0", "method.name": "winclip", "method.windows": "[2, 3]"}
    assert told.metrics["mean/image_auroc"] == pytest.approx(0.6)
    assert told.metrics["cable/pixel_aupro"] == 0.5
    assert "bottle/pixel_aupro" not in told.metrics
    assert "mean/pixel_aupro" not in told.metrics
    assert [path.name for path in told.pictures] == ["bottle.png"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("none", NoTracker), ("mlflow", MlflowTracker), ("tensorboard", TensorBoardTracker), ("wandb", WandbTracker)],
)
def test_every_choice_is_built_or_says_what_to_install(name: str, kind: type[Tracker]) -> None:
    config = compose_config([f"tracker={name}", "name=x"]).tracker
    if not kind.needs or find_spec(kind.needs):
        assert isinstance(build(config, Tracker, "tracker"), kind)
    else:
        with pytest.raises(UserError, match=rf"pip install 'zsad-bench\[{name}\]'"):
            build(config, Tracker, "tracker")


def test_off_by_default_and_no_part_of_a_result(job: JobFolder) -> None:
    assert OmegaConf.to_container(compose_config(["name=x"]).tracker) == {"_target_": "zsad_bench.trackers.NoTracker"}
    before = sorted(job.path.rglob("*"))
    NoTracker().log(job)
    assert sorted(job.path.rglob("*")) == before


def test_mlflow(job: JobFolder, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    store = (tmp_path / "mlruns").as_uri()
    MlflowTracker(uri=store, experiment="bench").log(job)
    client = MlflowClient(store)
    (experiment,) = client.search_experiments(filter_string="name = 'bench'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["method.name"] == "winclip"
    assert run.data.metrics["mean/image_auroc"] == pytest.approx(0.6)
    assert [file.path for file in client.list_artifacts(run.info.run_id, "maps")] == ["maps/bottle.png"]


def test_tensorboard(job: JobFolder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    TensorBoardTracker(folder=str(tmp_path / "board")).log(job)
    events = EventAccumulator(str(tmp_path / "board" / job.path.name)).Reload()
    (scalar,) = events.Scalars("mean/image_auroc")
    assert scalar.value == pytest.approx(0.6)
    assert events.Tags()["images"] == ["bottle"]
    assert any("config" in tag for tag in events.Tags()["tensors"])


def test_wandb_offline(job: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    WandbTracker(project="bench", mode="offline", folder=str(tmp_path / "logs")).log(job)
    wandb.teardown()  # what a process does at its end: the rest is written
    (file,) = (tmp_path / "logs").rglob("*.wandb")
    content = file.read_bytes()
    assert b"mean/image_auroc" in content
    assert b"winclip" in content
    assert len(list((tmp_path / "logs").rglob("*.png"))) == 1

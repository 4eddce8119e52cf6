"""Several commands in one results folder: failures, exit codes, requests are their own; reporting writes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main
from zsad_bench.config.compose import compose_config
from zsad_bench.contract import FeatureRequest
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import shared_encoder
from zsad_bench.engine.job import run_job
from zsad_bench.results.commands import Command, failure_files, text_hash
from zsad_bench.results.runs import read_runs

FOLDER = Path("results/run")
FIXED = ("maps=none", "name=run", *TINY_ENCODER)
DATA = ("dataset=mvtec", "dataset.root=photos")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two categories."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    shutil.copytree(photo_folder / "plate", photo_folder / "bolt")
    shared_encoder.cache_clear()
    return tmp_path


def run(*arguments: str) -> int:
    return main([*arguments, *DATA, *FIXED])


def tree() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}


def errors() -> list[str]:
    return [failure.error for failure in read_runs([FOLDER]).failures]


def break_photo(category: str) -> bytes:
    path = Path("photos") / category / "test" / "good" / "001.png"
    before = path.read_bytes()
    path.write_bytes(before[:60])
    return before


def mend_photo(category: str, content: bytes) -> None:
    (Path("photos") / category / "test" / "good" / "001.png").write_bytes(content)


def test_a_second_command_leaves_the_failures_of_the_first_alone() -> None:
    assert run("-m", "method.windows=[2],[9]") == 2
    (kept,) = failure_files(FOLDER)
    assert run("batch_size=4") == 0  # another command, whose job ends well
    assert failure_files(FOLDER) == [kept]
    assert run("-m", "method.windows=[2],[9]", "batch_size=2") == 2
    assert len(failure_files(FOLDER)) == 2
    assert kept in failure_files(FOLDER)
    assert run("-m", "method.windows=[2],[9]") == 2
    assert len(failure_files(FOLDER)) == 2


def test_a_running_command_does_not_lose_its_failures_to_one_that_starts() -> None:
    running = Command(FOLDER, text_hash(["the one that runs"]))
    running.keep_failure(["method=x"], OmegaConf.create({"method": "x"}), "bad", exit_code=2)
    assert run("batch_size=4", "fail_fast=true") == 0  # nor does it stop for them
    assert running.exit_code() == 2
    assert Command(FOLDER, text_hash(["another"])).exit_code() == 0
    running.forget_failures()
    assert running.exit_code() == 0
    assert not (FOLDER / "failed" / running.key).exists()


def test_shards_fail_and_are_mended_each_for_itself() -> None:
    photo = break_photo("plate")
    assert [run("shard=2/2"), run("shard=1/2")] == [2, 0]
    assert len(errors()) == 1
    assert "001.png" in errors()[0]
    mend_photo("plate", photo)
    assert run("shard=1/2") == 0
    assert len(errors()) == 1
    assert run("shard=2/2") == 0
    assert failure_files(FOLDER) == []


def test_a_job_that_another_command_finished_is_no_longer_reported_as_failed() -> None:
    photo = break_photo("plate")
    assert run("method=musc") == 2
    assert run("method=musc", "batch_size=4", "seed=1") == 2
    assert len(errors()) == 2
    mend_photo("plate", photo)
    assert run("-m", "method=winclip,musc", "threads=1", "encoder.chunk_size=3") == 0
    assert len(errors()) == 1  # the job with batches of 4 is still missing
    assert len(failure_files(FOLDER)) == 2
    assert run("method=musc") == 0
    assert len(failure_files(FOLDER)) == 1


def test_failures_of_version_0_1_are_read_and_end_with_their_job() -> None:
    assert run("method=musc") == 0
    overrides = OmegaConf.to_container(OmegaConf.create(["method=musc", *DATA, *FIXED]))
    assert isinstance(overrides, list)
    for texts, error in ((overrides, "old"), (["method=other"], "older")):
        path = FOLDER / "failed" / f"{text_hash(texts)}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"overrides": texts, "exit_code": 2, "error": error}), encoding="utf-8")
    assert sorted(errors()) == ["old", "older"]
    assert run("method=musc") == 0
    assert errors() == ["older"]


@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_only_reporting_a_job_that_does_not_exist_writes_nothing(
    sweep: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("method=musc", "overwrite=never") == 2
    assert "results/run: no such results folder" in capsys.readouterr().err
    assert not Path("results").exists()
    assert run("method=musc") == 0
    before = tree()
    capsys.readouterr()
    for typo in (("batch_size=80",), ("method=winclip",), ("seed=10", "method=musc"), ("limit=3", "method=musc")):
        assert run(*sweep, *typo, "overwrite=never") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "overwrite=never computes nothing" in line
        assert next((FOLDER / "jobs").iterdir()).name in line
    assert tree() == before
    assert main(["method=musc", "overwrite=never", *DATA, *FIXED, "name=ruin"]) == 2
    assert "did you mean run?" in capsys.readouterr().err
    assert tree() == before
    with pytest.raises(Exception, match="has no job"):
        run_job(compose_config(["method=winclip", "overwrite=never", *DATA, *FIXED]), FOLDER)
    assert tree() == before


def test_only_reporting_a_sweep_that_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("method=musc", "batch_size=4") == 0
    expected = tree()
    for name in ("metrics.csv", "leaderboard.csv"):
        (FOLDER / name).unlink()
    capsys.readouterr()
    assert run("-m", "method=musc,winclip", "batch_size=1,4", "overwrite=never") == 0
    assert tree() == expected
    assert "3 of 4 jobs are not in the tables" in capsys.readouterr().err


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[FeatureRequest]:
    """What an encoder was asked for, call by call."""
    calls: list[FeatureRequest] = []
    original = ClipEncoder.encode

    def noting(self: ClipEncoder, pixels: torch.Tensor, request: FeatureRequest, *rest: object) -> object:
        calls.append(request)
        return original(self, pixels, request, *rest)

    monkeypatch.setattr(ClipEncoder, "encode", noting)
    return calls


def test_a_single_job_does_not_encode_for_an_earlier_sweep(requests: list[FeatureRequest]) -> None:
    assert run("-m", "method=musc,winclip") == 0
    assert all(request.windows and request.taps for request in requests)
    shutil.rmtree("cache")
    requests.clear()
    assert run("method=musc", "seed=1", "method.layers=[1]") == 0
    assert requests
    assert all(not request.windows and {tap.block for tap in request.taps} == {1} for request in requests)


def test_sweeps_under_a_launcher_have_requests_of_their_own() -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install zsad-bench[joblib]")
    launcher = ["cluster=joblib", "hydra.launcher.n_jobs=1"]
    assert run("-m", "method=musc,winclip", *launcher) == 0
    (first,) = (FOLDER / "requests").iterdir()
    content = first.read_bytes()
    assert run("-m", "method=musc", "batch_size=1,2", *launcher) == 0
    assert first.read_bytes() == content
    assert len(list((FOLDER / "requests").iterdir())) == 2
    (FOLDER / "requests.json").write_text("{}", encoding="utf-8")  # of version 0.1: nothing to anybody
    assert run("-m", "method=musc", "batch_size=1,2", *launcher) == 0


def test_a_sweep_has_one_results_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "name=a,b", *DATA, *FIXED[2:]]) == 2
    assert "a sweep has one results folder" in capsys.readouterr().err
    assert not Path("results").exists()


def test_commands_that_start_together_are_all_written_down() -> None:
    FOLDER.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from zsad_bench.cli.main import _record_command\n"
        f"for number in range(50): _record_command(Path({str(FOLDER)!r}), [f'shard={{sys.argv[1]}}/{{number}}'])"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = (FOLDER / "commands.txt").read_text(encoding="utf-8").splitlines()
    expected = {f"python -m zsad_bench shard={first}/{second}" for first in range(3) for second in range(50)}
    assert len(lines) == len(expected)
    assert set(lines) == expected


def test_tables_show_each_job_once_whichever_command_ran_it() -> None:
    assert run("method=musc", "shard=1/2") == 0
    assert run("method=musc", "shard=2/2") == 0
    rows = pd.read_csv(FOLDER / "metrics.csv")
    assert rows["category"].tolist() == ["bolt", "plate", "mean"]

"""Sweeps in several processes: the same bytes as in one, every image encoded once, failures kept, a clean end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from tests.helpers.miniatures import save_image
from tests.helpers.result_files import comparable_tables
from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli import hydra_job
from zsad_bench.cli.main import main
from zsad_bench.core.errors import UserError
from zsad_bench.core.machine import limit_threads
from zsad_bench.feature_store.category import GROUP
from zsad_bench.results.commands import Command, failure_files

SWEPT = ("method", "batch_size", "encoder.image_size")


def need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; pip install 'zsad-bench[{extra}]'")


@pytest.fixture
def here(tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two categories of more than one group of images."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for index in range(12, 12 + GROUP // 2):
        pixels = random.integers(90, 130, (40, 56, 3), dtype=np.uint8)
        save_image(photo_folder / "plate" / "test" / "good" / f"{index:03}.png", pixels)
    shutil.copytree(photo_folder / "plate", photo_folder / "bolt")
    return tmp_path


def sweep(name: str, *choices: str) -> list[str]:
    """A sweep whose features go into a store of its own, on a relative path like everything else."""
    fixed = ("dataset=mvtec", "dataset.root=photos", "maps=none", f"name={name}", f"features.root=store/{name}")
    return ["-m", *choices, *fixed, *TINY_ENCODER]


def encoded(store: Path) -> Counter[tuple[str, str, str]]:
    """How often each (category, image, feature) was put into a store."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path in store.glob("*/mvtec/*/*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            keys = json.loads(shard.metadata()["keys"])
            found.update((path.parent.name, key, name) for key in keys for name in shard.keys())  # noqa: SIM118
    return found


def failed(here: Path, name: str) -> list[list[str]]:
    """Method, batch size and image size of the jobs whose failure was kept."""
    kept = [json.loads(path.read_text()) for path in failure_files(here / "results" / name)]
    return sorted([text for text in each["overrides"] if text.split("=")[0] in SWEPT] for each in kept)


def assert_equal_and_encoded_once(here: Path, name: str) -> None:
    assert comparable_tables(here / "results" / name) == comparable_tables(here / "results" / "basic")
    counts = encoded(here / "store" / name)
    assert set(counts.values()) == {1}
    assert counts == encoded(here / "store" / "basic")
    assert {path.name for path in here.iterdir()} == {"photos", "results", "store"}


def test_joblib(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    need("hydra_plugins.hydra_joblib_launcher", "joblib")
    import joblib

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    choices = ("method=winclip,musc", "batch_size=20", "encoder.image_size=48,50")
    assert main(sweep("basic", *choices)) == 2  # 50 is no multiple of the patch size: those jobs fail
    assert main(sweep("joblib", *choices, "cluster=joblib")) == 2
    assert_equal_and_encoded_once(here, "joblib")
    assert len(failed(here, "basic")) == 2
    assert failed(here, "joblib") == failed(here, "basic")
    threads = max(1, joblib.cpu_count() // 2)
    devices = pd.read_csv(here / "results" / "joblib" / "timing.csv")["device"]
    assert devices.str.endswith(f"({threads} threads)").all()
    errors = capfd.readouterr().err
    assert "multiple of the patch size" in errors
    assert "Traceback" not in errors

    many = ("batch_size=1,2,3,4,5,6,7", "cluster=joblib", "fail_fast=true", "method.windows=[9]")
    assert main(sweep("fast", *many)) == 2
    assert 0 < len(failure_files(here / "results" / "fast")) < 7
    assert not list((here / "results" / "fast").glob("jobs/*/categories/*.json"))


def test_parts_of_one_job_in_several_processes(here: Path) -> None:
    need("hydra_plugins.hydra_joblib_launcher", "joblib")
    assert main(sweep("basic", "method=musc", "batch_size=4")) == 0
    parts = ("shard=1/3,2/3,3/3", "cluster=joblib")
    assert main(sweep("parts", "method=musc", "batch_size=4", *parts)) == 0
    assert_equal_and_encoded_once(here, "parts")


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the process table of Linux")
def test_control_c_ends_every_process(here: Path) -> None:
    need("hydra_plugins.hydra_joblib_launcher", "joblib")
    arguments = sweep("run", "method=winclip", "batch_size=1,2,3,4,5,6,7", "cluster=joblib")
    process = subprocess.Popen(
        [sys.executable, "-m", "zsad_bench", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list((here / "results" / "run").glob("jobs/*/categories/*.json")):
        os.sched_yield()
    workers = children(process.pid)
    assert len(workers) >= 2
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "the same command computes the rest: python -m zsad_bench -m method=winclip" in errors
    assert "Traceback" not in errors
    for worker in workers:
        state = Path(f"/proc/{worker}/stat")
        while state.exists() and state.read_text(encoding="utf-8").split()[2] != "Z":
            os.sched_yield()


def test_a_worker_does_not_outlive_its_parent() -> None:
    child = (
        "import sys; from zsad_bench.cli.hydra_job import _end_with_parent\n"
        "_end_with_parent(); print('up', flush=True); sys.stdin.read()"
    )
    parent = (
        "import os, subprocess, sys\n"
        "reads, _writes = os.pipe()\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], stdin=reads).wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.kill()
    assert process.stdout.read() == ""  # ends only when the child, who holds the other end, is gone
    process.wait()


def test_the_slurm_launcher_on_this_machine(here: Path) -> None:
    need("hydra_plugins.hydra_submitit_launcher", "submitit")
    assert main(sweep("basic", "method=musc")) == 0
    assert main(sweep("slurm", "method=musc", "cluster=slurm_local")) == 0
    assert_equal_and_encoded_once(here, "slurm")
    logs = "".join(path.read_text() for path in (here / "results" / "slurm").glob(".submitit/*/*_log.err"))
    assert logs.count("done in") == 1
    devices = pd.read_csv(here / "results" / "slurm" / "timing.csv")["device"]
    assert devices.str.endswith("(1 threads)").all()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two nodes on loopback addresses with one CPU each; both are ended by their process ids."""
    need("ray", "ray")
    need("hydra_plugins.hydra_ray_launcher", "ray")
    port = free_port()
    head = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    node = [f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.2"]
    started: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # Ray's sockets need a short path
        for threads, arguments in (("1", [*head, f"--temp-dir={folder}"]), ("2", node)):
            command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", "--num-gpus=0"]
            process = subprocess.Popen(
                [*command, *arguments, "--object-store-memory=80000000", "--disable-usage-stats"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
                env={**os.environ, "SLURM_CPUS_PER_TASK": threads},  # shows which node a job ran on
                start_new_session=True,
            )
            started.append(process)
            assert process.stdout is not None
            assert any("Ray runtime started" in line for line in process.stdout)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
        try:
            yield
        finally:
            for process in reversed(started):
                process.terminate()
                process.communicate()


def test_a_ray_cluster_of_two_nodes(here: Path, ray_cluster: None) -> None:
    choices = ("encoder.image_size=48,50", "method=winclip,musc", "batch_size=20")  # the first two jobs succeed
    assert main(sweep("basic", *choices)) == 2
    arguments = sweep("ray", *choices, "cluster=ray", "hydra.launcher.ray.remote.num_cpus=1")
    done = subprocess.run([sys.executable, "-m", "zsad_bench", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert_equal_and_encoded_once(here, "ray")
    assert failed(here, "ray") == failed(here, "basic")
    assert "done in" in done.stdout + done.stderr
    devices = pd.read_csv(here / "results" / "ray" / "timing.csv")["device"]
    assert {text.rsplit("(", 1)[1] for text in devices} == {"1 threads)", "2 threads)"}


def test_a_launcher_that_is_not_installed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is not None:
        pytest.skip("the Ray launcher is installed")
    assert main(sweep("run", "batch_size=1,2", "cluster=ray")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: cluster: the launcher ray is not installed; pip install 'zsad-bench[ray]'"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cluster=joblib"], "runs sweeps, also those of a single job; add -m"),
        (["-m", "cluster=joblob"], "did you mean joblib"),
        (["-m", "hydra.launcher.setup=[export A=1]"], "'hydra.launcher.setup=[export A=1]': cannot be read"),
        (["-m", "+cluster=joblib"], "write cluster=... without +"),
        (["-m", "cluster=slurm"], "srun"),
        (["threads=0"], "threads=0: must be at least 1"),
    ],
)
def test_mistakes(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    if not shutil.which("srun"):
        need("hydra_plugins.hydra_joblib_launcher", "joblib")
        need("hydra_plugins.hydra_submitit_launcher", "submitit")
    elif "cluster=slurm" in arguments:
        pytest.skip("Slurm is installed")
    assert main([*arguments, "dataset=mvtec", "dataset.root=photos", "name=run", *TINY_ENCODER]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_machine_without_the_shared_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file system that all of them share"):
        hydra_job._enter(tmp_path, Command(Path("results") / "run", "0" * 12))


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        limit_threads(1)
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
        limit_threads(None)
        assert torch.get_num_threads() == 3
        limit_threads(2)
        assert torch.get_num_threads() == 2
    finally:
        limit_threads(before)

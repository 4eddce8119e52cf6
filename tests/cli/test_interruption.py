"""A sweep that is killed at any moment, or stopped by Ctrl-C, goes on where it was and ends with the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.result_files import comparable_tables
from tests.helpers.tiny_model import TINY_ENCODER


@pytest.fixture
def photos(photo_folder: Path) -> Path:
    for copy in ("bolt", "nut"):
        shutil.copytree(photo_folder / "plate", photo_folder / copy)
    return photo_folder


def command(root: Path, name: str) -> list[str]:
    return [
        *(sys.executable, "-m", "zsad_bench", "-m", "method=winclip,musc,fiseclip", "batch_size=4,all", "maps=none"),
        *("dataset=mvtec", f"dataset.root={root}", *TINY_ENCODER, f"name={name}"),
    ]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "ZSAD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("jobs/*/categories/*.json"))


def stop_after(arguments: list[str], folder: Path, count: int, number: int, cache: Path) -> tuple[int, str]:
    """Start a command, send it a signal as soon as `count` categories are finished; (exit code, errors)."""
    process = subprocess.Popen(
        arguments, env=environment(cache), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while process.poll() is None and len(finished(folder)) < count:
        os.sched_yield()
    process.send_signal(number)
    _, errors = process.communicate()
    return process.returncode, errors


def test_killed_again_and_again(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(command(photos, "whole"), env=environment(tmp_path / "a"), check=True, capture_output=True)
    parts = tmp_path / "results" / "parts"
    kept: dict[Path, int] = {}
    for count in (1, 8):
        stop_after(command(photos, "parts"), parts, count, signal.SIGKILL, tmp_path / "b")
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        kept = {path: path.stat().st_mtime_ns for path in finished(parts)}
        assert len(kept) >= count
    assert len(kept) < 18
    subprocess.run(command(photos, "parts"), env=environment(tmp_path / "b"), check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert comparable_tables(parts) == comparable_tables(tmp_path / "results" / "whole")


def test_control_c_says_how_to_go_on(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, errors = stop_after(command(photos, "run"), tmp_path / "results" / "run", 2, signal.SIGINT, tmp_path / "c")
    assert code == 130
    assert "the same command computes the rest: python -m zsad_bench -m method=winclip,musc,fiseclip" in errors
    assert "Traceback" not in errors
    assert 2 <= len(finished(tmp_path / "results" / "run")) < 18


def test_a_run_that_does_not_listen_is_ended(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from zsad_bench.cli.interrupt import prompt_interrupts\n"
        "with prompt_interrupts('stopped; go on with: this'):\n"
        "    while True:\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            signal.pause()\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopped; go on with: this" in errors

"""``templates/new_method`` runs as its README says, from a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from zsad_bench.cli.main import main

TEMPLATE = Path(__file__).resolve().parents[2] / "templates" / "new_method"
FEW = ["dataset.n_normal=2", "dataset.n_anomalous=2", "dataset.n_train=0", "dataset.categories=[tile]"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEMPLATE, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_template_is_a_method_of_the_benchmark(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(copy)
    job = ["method=new_method", "dataset=demo", *FEW, "maps=none", "features=memory", "name=run"]
    assert main(["--config-dir", "conf", *job]) == 0
    (row,) = pd.read_csv(copy / "results" / "run" / "leaderboard.csv").to_dict("records")
    assert (row["method"], row["variant"], row["fidelity"]) == ("new_method", "paper", "example")
    assert 0 <= row["image_auroc"] <= 1


def test_the_test_of_the_template_passes(copy: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", str(copy)]
    done = subprocess.run(
        command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout

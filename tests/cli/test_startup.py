"""What commands that compute little must not load: importing torch and open_clip takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main

FEW = ["dataset=demo", "dataset.n_normal=2", "dataset.n_anomalous=2", "dataset.n_train=1", "dataset.categories=[tile]"]
WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None  # to import it is an error from here on
from zsad_bench.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def without(names: tuple[str, ...], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The command line in a process that cannot import some packages."""
    code = WITHOUT.format(names=names)
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "jobs",
    [
        ["method=musc"],
        ["method=winclip_fewshot", "method.k_shot=1"],
        ["-m", "method=winclip,anoclip", "batch_size=1,4"],
    ],
    ids=["batch", "few shot", "sweep"],
)
def test_what_is_finished_needs_neither_torch_nor_open_clip(
    jobs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*jobs, *FEW, *TINY_ENCODER, "maps=none", "features=memory", "name=run"]
    assert main(command) == 0
    table = Path("results/run/metrics.csv").read_bytes()
    again = without(("torch", "open_clip"), command)
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stderr
    assert Path("results/run/metrics.csv").read_bytes() == table


def test_a_job_of_a_changed_label_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished job keeps its numbers, and what its rows say still follows the configuration."""
    monkeypatch.chdir(tmp_path)
    weights = Path("first.json")
    weights.write_bytes(Path(TINY_ENCODER[0].partition("=")[2]).read_bytes())
    Path("second.json").write_bytes(weights.read_bytes())
    common = [*FEW, *TINY_ENCODER[1:], "method=musc", "maps=none", "features=memory", "name=run"]
    assert main([f"encoder.model={Path('first.json').absolute()}", *common]) == 0
    assert main([f"encoder.model={Path('second.json').absolute()}", *common]) == 0
    rows = Path("results/run/metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
    assert all(",second," in row for row in rows[1:])


def test_the_help_needs_nothing_heavy() -> None:
    assert without(("torch", "open_clip", "pandas", "scipy", "numpy"), ["--help"]).returncode == 0


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        (("Dataset", "Sample", "Problem", "Index"), ("torch", "open_clip", "pandas", "hydra")),
        (
            ("Method", "Prediction", "TrainableMethod", "FeatureRequest", "Tap", "Stream"),
            ("open_clip", "pandas", "hydra"),
        ),
        (("FeatureBatch", "TextFeatures", "EncoderSpec", "UserError"), ("open_clip", "pandas", "hydra")),
    ],
)
def test_the_contract_loads_no_more_than_its_names_need(names: tuple[str, ...], absent: tuple[str, ...]) -> None:
    code = f"import sys; from zsad_bench.contract import {', '.join(names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(absent) & set(loaded)

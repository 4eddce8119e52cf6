"""``encoder.precision=auto``: what is chosen, and that the choice stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from zsad_bench.config.compose import compose_config
from zsad_bench.encoder import precision
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.encoder.precision import PRECISIONS, choose, resolve_precision
from zsad_bench.engine.identity import identity

TINY = str(Path(__file__).parents[1] / "files" / "tiny_clip.json")
CPU = torch.device("cpu")


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of measurements, in an empty cache folder; no choice is remembered from before, or afterwards."""
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path))
    precision._chosen.cache_clear()
    yield tmp_path / "precision.json"
    precision._chosen.cache_clear()


def test_a_16_bit_format_must_be_worth_it() -> None:
    assert choose({"fp32": 1.0}) == "fp32"
    assert choose({"fp32": 1.0, "bf16": 1.1, "fp16": 0.1}) == "fp32"
    assert choose({"fp32": 1.0, "bf16": 1.3, "fp16": 1.4}) == "bf16"
    assert choose({"fp32": 1.0, "bf16": 1.3, "fp16": 2.6}) == "fp16"
    assert choose({"fp32": 1.0, "fp16": 1.9}) == "fp16"


def test_auto_is_measured_once(measurements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured here decides, its line says so, and a later run takes the stored figures as they are."""
    encoder = load_encoder(TINY, None, precision="auto")
    ((machine, speeds),) = json.loads(measurements.read_text(encoding="utf-8")).items()
    assert "torch" in machine
    assert all(speed > 0 for speed in speeds.values())
    assert encoder.precision == choose(speeds)
    assert encoder.visual.conv1.weight.dtype == PRECISIONS[encoder.precision]
    assert f"encoder.precision=auto: {encoder.precision} on" in capsys.readouterr().err
    for stored, expected in (({"fp32": 1.0, "bf16": 3.0}, "bf16"), ({"fp32": 1.0, "fp16": 3.0}, "fp16")):
        measurements.write_text(json.dumps({machine: stored}), encoding="utf-8")
        precision._chosen.cache_clear()
        assert resolve_precision("auto", CPU) == expected
        assert json.loads(measurements.read_text(encoding="utf-8")) == {machine: stored}


def test_damaged_measurements_are_made_again(measurements: Path) -> None:
    measurements.write_text("{", encoding="utf-8")
    chosen = resolve_precision("auto", CPU)
    (speeds,) = json.loads(measurements.read_text(encoding="utf-8")).values()
    assert chosen == choose(speeds)


def test_results_are_filed_under_what_was_chosen(measurements: Path) -> None:
    """The identity of a job with auto is that of the same job with the precision by name."""
    chosen = resolve_precision("auto", CPU)
    names = {}
    for name in ("auto", *PRECISIONS):
        names[name] = identity(compose_config([f"encoder.precision={name}", "encoder.device=cpu"]), ["tile"])
    assert names["auto"] == names[chosen]
    assert len(set(names.values())) == len(PRECISIONS)

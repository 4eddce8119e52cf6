"""``encoder.precision=auto``: what is chosen, and that nothing but the device decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.config.compose import compose_config
from zsad_bench.encoder import precision
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.encoder.precision import PRECISIONS, for_compute_capability, resolve_precision
from zsad_bench.engine.identity import identity

TINY = str(TINY_MODEL)
CPU = torch.device("cpu")


@pytest.fixture
def fresh() -> Iterator[None]:
    """No choice is remembered from before, so its line is printed."""
    precision._chosen.cache_clear()
    yield
    precision._chosen.cache_clear()


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), "fp32"),  # GTX 1080: float16 at 1/64 of the rate
        ((7, 0), "fp16"),  # V100
        ((7, 5), "fp16"),  # T4
        ((8, 0), "bf16"),  # A100
        ((8, 9), "bf16"),  # RTX 4090
        ((12, 0), "bf16"),  # RTX 5090
    ],
)
def test_cuda_devices_get_what_they_have_in_hardware(capability: tuple[int, int], expected: str) -> None:
    assert for_compute_capability(*capability) == expected


def test_a_cpu_gets_bfloat16_if_it_has_the_instructions() -> None:
    """Linux lists what the processor has, another source than torch's."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        pytest.skip("no /proc/cpuinfo here")
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    expected = "bf16" if flags & {"avx512_bf16", "amx_bf16"} else "fp32"
    assert resolve_precision("auto", CPU) == expected


def test_other_devices_keep_all_digits() -> None:
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


def test_the_choice_is_used_and_said(fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = load_encoder(TINY, None, precision="auto", device="cpu")
    assert encoder.precision in PRECISIONS
    assert encoder.visual.conv1.weight.dtype == PRECISIONS[encoder.precision]
    assert f"encoder.precision=auto: {encoder.precision} on" in capsys.readouterr().err


def test_results_are_filed_under_what_was_chosen() -> None:
    """The identity of a job with auto is that of the same job with the precision by name."""
    chosen = resolve_precision("auto", CPU)
    names = {}
    for name in ("auto", *PRECISIONS):
        names[name] = identity(compose_config([f"encoder.precision={name}", "encoder.device=cpu"]), ["tile"])
    assert names["auto"] == names[chosen]
    assert len(set(names.values())) == len(PRECISIONS)

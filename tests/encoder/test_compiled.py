"""``encoder.compile``: the same features through ``torch.compile``, and one line where that does not work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.loading import load_encoder


@pytest.fixture
def small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tower of one block, because compiling takes seconds a block; nothing compiled before is found."""
    content = json.loads(TINY_MODEL.read_text())
    content["vision_cfg"]["layers"] = 1
    path = tmp_path / "one_block.json"
    path.write_text(json.dumps(content))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch.compiler.reset()
    with inductor.patch(compile_threads=1):  # no processes, each of which imports torch
        yield str(path)
    torch.compiler.reset()


def test_compiled_features_are_the_same(small_model: str) -> None:
    request = FeatureRequest((Tap(-1, Stream(), projected=True),))
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    plain = load_encoder(small_model, None).encode(pixels, request)
    encoder = load_encoder(small_model, None, compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = encoder.encode(pixels, request)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    torch.testing.assert_close(compiled.class_tokens, plain.class_tokens, atol=1e-5, rtol=1e-5)
    for tap in request.taps:
        torch.testing.assert_close(compiled.tokens[tap], plain.tokens[tap], atol=1e-5, rtol=1e-5)
    assert encoder.plan.key != load_encoder(small_model, None).plan.key


def test_without_a_compiler_it_is_one_line(small_model: str) -> None:
    encoder, message = load_encoder(small_model, None, compile=True), r"encoder\.compile=true: .*C\+\+ compiler"
    with inductor.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(UserError, match=message) as caught:
        encoder.encode(torch.zeros(1, 3, 48, 48), FeatureRequest())
    assert "\n" not in str(caught.value)

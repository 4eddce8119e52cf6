"""The counts behind docs/scaling.md against PyTorch's own counter, and the model's properties."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.contract.views import VIEWS
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.encoder.plan import encoder_spec
from zsad_bench.encoder.tower import Tower
from zsad_bench.toolkit.matching import mutual_scores

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import scaling_model as model

TAPS = (Tap(2), Tap(-1, Stream(("v",), embedding=True), projected=True))


@pytest.fixture(scope="module")
def plain_encoder() -> ClipEncoder:
    """The tiny encoder without packed matrices, whose products PyTorch's counter does not see."""
    encoder = load_encoder(str(TINY_MODEL), None)
    encoder.tower = Tower(encoder.visual, pack=False)
    return encoder


def counted(run: object) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted
        run()  # type: ignore[operator]
    return counter.get_total_flops()


REQUESTS = {
    "class token": FeatureRequest(),
    "taps": FeatureRequest(taps=TAPS),
    "last block": FeatureRequest(taps=(Tap(-1),)),
    "queries and a restart": FeatureRequest(taps=(Tap(4, Stream(("q", "k", "v"), start=1, restart=2)),)),
    "class rows": FeatureRequest(taps=(Tap(2, projected=True, class_only=True), Tap(-1, class_only=True))),
    "views": FeatureRequest(views=tuple(range(len(VIEWS)))),  # of some only, whole groups are computed
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_flops_of_the_walk(plain_encoder: ClipEncoder, request_: FeatureRequest) -> None:
    pixels = torch.randn(2, 3, plain_encoder.spec.image_size, plain_encoder.spec.image_size)
    expected = 2 * model.walk_flops(plain_encoder.spec, request_)
    assert 0.98 <= counted(lambda: plain_encoder.encode(pixels, request_)) / expected <= 1.02


def test_flops_of_windows(plain_encoder: ClipEncoder) -> None:
    pixels = torch.randn(1, 3, plain_encoder.spec.image_size, plain_encoder.spec.image_size)
    request = FeatureRequest(windows=(2, 3))
    alone = counted(lambda: plain_encoder.encode(pixels, FeatureRequest()))
    both = counted(lambda: plain_encoder.encode(pixels, request))
    assert 0.98 <= (both - alone) / model.window_flops(plain_encoder.spec, request) <= 1.02


def test_flops_of_matching() -> None:
    spec = encoder_spec(str(TINY_MODEL), None, None)
    patches = spec.grid[0] * spec.grid[1]
    features = torch.nn.functional.normalize(torch.randn(5, patches, spec.width), dim=-1)
    cost = model.MethodCost(FeatureRequest(), None, 0, maps=1)
    assert counted(lambda: mutual_scores(features, (0.0, 0.3))) == cost.match_flops(spec, 5)


def test_bytes_of_features(tiny_encoder: ClipEncoder) -> None:
    spec = tiny_encoder.spec
    request = FeatureRequest(taps=TAPS, windows=(2,), views=(0, 1))
    batch = tiny_encoder.encode(torch.randn(1, 3, spec.image_size, spec.image_size), request)
    parts = [batch.class_tokens, *batch.tokens.values(), *batch.windows.values(), batch.views[1]]
    assert model.feature_bytes(spec, request) == 2 * sum(part.numel() for part in parts)


def test_fits_are_exact_on_exact_data_and_never_negative() -> None:
    exact = model.fit(("images", "work"), [(1, 2), (1, 5), (1, 11)], [3.0, 6.0, 12.0])
    assert exact.constants == pytest.approx((1.0, 1.0))
    assert exact.deviation < 1e-9
    falling = model.fit(("images", "work"), [(1, 1), (1, 2), (1, 3)], [3.0, 2.0, 1.0])
    assert min(falling.constants) >= 0
    assert falling.deviation > 0.2


def test_predictions_add_up() -> None:
    one = model.fit(("a", "b"), [(1, 1), (1, 2), (1, 3)], [2.0, 3.0, 4.0])
    score = model.fit(("a", "b", "c"), [(1, 1, 0), (1, 3, 0), (2, 1, 1e9)], [2.0, 4.0, 4.0])
    flop = model.fit(("a", "b"), [(1, 1e9), (1, 2e9), (1, 3e9)], [1.5, 2.0, 2.5])
    window = model.fit(("b",), [(1e9,), (2e9,)], [1.0, 2.0])
    cost = model.MethodCost(FeatureRequest(taps=(Tap(2),)), "winclip", 10, maps=1, score=score)
    constants = model.Constants({"png": one}, flop, window, one, one, one, one, one, 1.0, {"own": cost})
    spec = encoder_spec(str(TINY_MODEL), None, None)
    dataset = model.DatasetSize("d", (40, 40, 20), 50, 1.0, "png")
    here, many = model.Hardware("1"), model.Hardware("many", processes=10)

    def total(size: int | str, hardware: model.Hardware = here, stored: bool = False) -> model.Seconds:
        return model.predict(constants, spec, dataset, "own", size, hardware, stored)

    assert total(8).encode == pytest.approx(100 * flop(1, model.walk_flops(spec, cost.request)))
    assert total(8, many).encode == pytest.approx(total(8).encode * 16 / 100)  # 14 batches, ten processes, two of eight
    assert total("all", many).encode == pytest.approx(total(8).encode * 40 / 100)  # a category cannot be cut
    assert total(8, many).metrics > total(8).metrics * 40 / 100
    assert total(8, many).close == pytest.approx(one(1, 40))
    assert total(8).match < total(20).match < total("all").match
    new = total(8)
    assert total(8, stored=True).total == pytest.approx(new.total - new.load - new.encode - new.text)
    overlapped = total(8, model.Hardware("gpu", encode=1e9, overlap=True))
    assert overlapped.total == pytest.approx(total(8).total - total(8).encode - total(8).text, rel=1e-6)
    both = model.predict_sweep(constants, spec, dataset, [("own", 8), ("own", 20)], here)
    assert both == pytest.approx(total(8).total + total(20, stored=True).total - 1.0)


def test_shares() -> None:
    assert model.longest_share([5, 4, 3, 3], 2) == 8
    assert model.longest_share([5, 4], 64) == 5
    assert model.batch_sizes(20, 8) == [8, 8, 4]
    assert model.batch_sizes(20, "all") == [20]

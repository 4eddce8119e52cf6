"""The parts of a pass that are timed are those that its request declares, for every way to combine requests."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import pytest
import torch

from tests.helpers import registry
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.laps import Cost, charge
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.tower import walk_parts

REQUESTS = {
    "class token": FeatureRequest(),
    "plain taps": FeatureRequest(taps=(Tap(2), Tap(-1), Tap(3, projected=True))),
    "before the last network": FeatureRequest(taps=(Tap(-1, after_attention=True),)),
    "class rows": FeatureRequest(taps=(Tap(-1, class_only=True), Tap(1, class_only=True, normed=True))),
    "streams": FeatureRequest(
        taps=(Tap(-1, Stream(("v",), embedding=True), projected=True), Tap(3, Stream(("v",), 2)))
    ),
    "queries": FeatureRequest(taps=(Tap(-1, Stream(("q", "k"), start=3)),)),
    "restarts": FeatureRequest(taps=(Tap(4, Stream(("v",), restart=2)), Tap(1, Stream(("v",), restart=2)))),
    "windows": FeatureRequest(windows=(2, 3)),
    "views": FeatureRequest(views=(0, 3, 17, 21)),
}


def measured(encoder: ClipEncoder, request: FeatureRequest) -> set[str]:
    encoder.meter.take()
    encoder.encode(torch.zeros(2, 3, encoder.spec.image_size, encoder.spec.image_size), request)
    return set(encoder.meter.take())


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_timed_is_what_a_request_declares(name: str, tiny_encoder: ClipEncoder) -> None:
    assert measured(tiny_encoder, REQUESTS[name]) == tiny_encoder.parts(REQUESTS[name])


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(REQUESTS, 2)])
def test_a_pass_for_several_times_the_parts_of_each(one: str, other: str, tiny_encoder: ClipEncoder) -> None:
    parts = [tiny_encoder.parts(REQUESTS[name]) for name in (one, other)]
    together = measured(tiny_encoder, REQUESTS[one].union(REQUESTS[other]))
    assert together == parts[0] | parts[1]


def test_every_method_is_charged_a_part_of_a_sweep_of_all(tmp_path: Path) -> None:
    encoder, requests = registry.encoder(), {}
    for name in registry.NAMES:
        method = registry.make(registry.config_of(name), tmp_path)
        method.attach(encoder.spec)
        requests[name] = method.request()
    everything = functools.reduce(FeatureRequest.union, requests.values())
    encoder_pass = Cost(dict.fromkeys(measured(encoder, everything), 1.0), "here")
    for name, request in requests.items():
        own = charge([encoder_pass], encoder.parts(request)).seconds
        assert own == len(encoder.parts(request)), name
        assert own < encoder_pass.total, name


def test_a_tap_of_the_last_block_costs_more_than_its_class_row() -> None:
    assert walk_parts([Tap(12, class_only=True)], 12) - walk_parts([], 12) == {"tap.12.class"}
    assert {"last.queries", "last.attention", "last.feed_forward"} <= walk_parts([Tap(12)], 12)
    assert "last.feed_forward" not in walk_parts([Tap(12, after_attention=True)], 12)


def test_class_tokens_do_not_depend_on_the_taps_beside_them(tiny_encoder: ClipEncoder) -> None:
    pixels = torch.randn(3, 3, tiny_encoder.spec.image_size, tiny_encoder.spec.image_size)
    alone = tiny_encoder.encode(pixels, FeatureRequest()).class_tokens
    last = FeatureRequest(taps=(Tap(-1, class_only=True), Tap(-1, Stream(("v",)))))
    rows = tiny_encoder.encode(pixels, last).tokens
    for name, request in REQUESTS.items():
        batch = tiny_encoder.encode(pixels, request.union(last))
        assert torch.equal(batch.class_tokens, alone), name
        for tap in last.taps:
            assert torch.equal(batch.tokens[tap], rows[tap]), name

"""Times of pieces of work: who is charged for what, with clocks that tests set."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import pytest
import torch

from tests.helpers import registry
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.laps import Charge, Cost, Laps, Meter, charge
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.tower import walk_parts

CPU = torch.device("cpu")
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


def test_laps_add_up_and_share() -> None:
    ticks = iter([0.0, 1.0, 3.0, 7.0])
    laps = Laps(CPU, lambda: next(ticks))
    laps.lap("a")
    laps.lap("b", "c")
    laps.lap("a")
    assert laps.seconds() == {"a": 5.0, "b": 1.0, "c": 1.0}


def test_a_meter_is_emptied_by_who_reads_it() -> None:
    meter = Meter()
    meter.add({"a": 1.0})
    meter.add({"a": 2.0, "b": 1.0})
    assert meter.take() == {"a": 3.0, "b": 1.0}
    assert meter.take() == {}


def test_a_charge_is_the_sum_of_the_parts_that_were_asked_for() -> None:
    first, second = Cost({"walk": 1.0, "tap": 2.0}, "A"), Cost({"walk": 10.0, "window": 4.0}, "B")
    assert charge([first], {"walk"}) == Charge(1.0, frozenset({"A"}))
    assert charge([first, second], {"walk", "window"}) == Charge(5.0, frozenset({"A", "B"}))
    assert charge([first], {"walk", "window"}).seconds is None
    assert charge([], {"walk"}).seconds is None


def test_a_cost_survives_a_files_metadata() -> None:
    cost = Cost({"walk": 0.1234567, "window.2": 3.0}, "a processor (2 threads)")
    assert Cost.from_metadata(cost.to_metadata()) == cost
    assert Cost.from_metadata({"keys": "[]"}) is None
    with pytest.raises(ValueError, match="Expecting"):
        Cost.from_metadata({"seconds": "{", "device": "x"})


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

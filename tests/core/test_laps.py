"""Times of pieces of work: who is charged for what, with clocks that tests set."""

from __future__ import annotations

import pytest
import torch

from zsad_bench.core.laps import Charge, Cost, Laps, Meter, charge

CPU = torch.device("cpu")


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

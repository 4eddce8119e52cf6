"""Stages that interrupt each other, and memory that a method adds."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch

from zsad_bench.core.laps import Charge
from zsad_bench.core.memory import MIB, PeakMemory
from zsad_bench.engine.stopwatch import Account, Stopwatch

CPU = torch.device("cpu")


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_inside_another_one_interrupts_it() -> None:
    clock = Clock()
    watch = Stopwatch(CPU, clock=clock)
    with watch.time("score"):
        clock.now += 1
        with watch.time("encode"):
            clock.now += 10
            with watch.time("setup"):
                clock.now += 100
        clock.now += 2
    clock.now += 1000
    with suppress(ValueError), watch.time("score"):
        clock.now += 4
        raise ValueError("stops")
    assert watch.seconds == {"score": 7.0, "encode": 10.0, "setup": 100.0}


def test_an_account_with_an_unknown_charge_is_unknown() -> None:
    account = Account()
    account.add(Charge(1.0, frozenset({"A"})))
    account.add(Charge(2.0, frozenset({"B"})))
    assert (account.seconds, account.devices) == (3.0, {"A", "B"})
    account.add(Charge(None))
    account.add(Charge(1.0))
    assert account.seconds is None


def test_only_what_the_method_adds_counts() -> None:
    held = [1000 * MIB]
    memory = PeakMemory(CPU, lambda: held[0])
    watch = Stopwatch(CPU, memory, Clock())
    with watch.time("score"):
        held[0] += 5 * MIB
        with watch.time("encode"):
            held[0] += 300 * MIB  # the encoder's own: gone when the method goes on
            with watch.time("setup"):
                held[0] += 700 * MIB  # weights: they stay, and do not count
            held[0] -= 300 * MIB
        held[0] += 2 * MIB
    held[0] += 9000 * MIB
    assert memory.host_mib == 7.0
    assert memory.gpu_mib is None


def test_nothing_is_inherited_from_the_work_before() -> None:
    """Real memory: work that takes 256 MiB, then work that takes none."""
    peaks = []
    for count in (256, 0):
        with PeakMemory(CPU) as memory:
            memory.begin()
            held = np.ones(count * MIB // 8)
            assert held.sum() == held.size
            memory.end()
        del held
        peaks.append(memory.host_mib)
    assert 250 < peaks[0] < 400
    assert peaks[1] < 60

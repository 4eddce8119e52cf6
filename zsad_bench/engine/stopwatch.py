"""Seconds of the stages of a job, and what the method among them is charged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from zsad_bench.core.devices import synchronize
from zsad_bench.core.laps import Charge
from zsad_bench.core.memory import PeakMemory

SETUP, SCORE = "setup", "score"


class Stopwatch:
    """Seconds by stage. A stage inside another one interrupts it: no second counts twice.

    A device that is given work and finishes it later is waited for whenever a stage begins or ends. Memory is watched
    while the method works (``score``); what ``setup`` leaves behind, such as weights, does not count.

    Args:
        device: what the work is done on.
        memory: told when stages begin and end.
        clock: in seconds.
    """

    def __init__(
        self,
        device: torch.device,
        memory: PeakMemory | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._memory, self._clock = device, memory, clock
        self._stage: str | None = None
        self._since = 0.0

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        before = self._stage
        self._enter(stage)
        held = self._memory.now() if self._memory and stage == SETUP else None
        try:
            yield
        finally:
            if self._memory and held:
                host, gpu = self._memory.now()
                self._memory.raise_level(host - held[0], gpu - held[1])
            self._enter(before)

    def _enter(self, stage: str | None) -> None:
        synchronize(self._device)
        now = self._clock()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        if self._memory and (self._stage == SCORE) != (stage == SCORE):
            if stage == SCORE:
                self._memory.begin()
            else:
                self._memory.end()
        self._stage, self._since = stage, self._clock()


@dataclass
class Account:
    """What encoding images or text costs a method, as if it were encoded for it alone.

    Attributes:
        seconds: so far; None once something was handed out of which nobody knows what it took.
        devices: what it was encoded on.
    """

    seconds: float | None = 0.0
    devices: set[str] = field(default_factory=set)

    def add(self, charge: Charge) -> None:
        """One more charge."""
        self.seconds = None if self.seconds is None or charge.seconds is None else self.seconds + charge.seconds
        self.devices |= charge.devices

"""How long consecutive pieces of work take on a device, and what encoding took, part by part."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from zsad_bench.core.devices import synchronize


class Lap(Protocol):
    """Told the name of a piece of work when it is done; several names share its time equally."""

    def __call__(self, *names: str) -> None:
        """The work since the last call is done."""


def untimed(*_: str) -> None:
    """Nobody wants to know how long a piece of work took."""


class Laps:
    """Seconds of pieces of work that follow each other, by name; a name may come back.

    On CUDA work is queued. An event is recorded behind every piece, and events are read only when the seconds are asked
    for, so that the host does not wait in between.

    Args:
        device: where the work is done.
        clock: of the host, in seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._queued = device.type == "cuda" and torch.cuda.is_available()
        self._events: list[tuple[tuple[str, ...], torch.cuda.Event]] = []
        self._seconds: dict[str, float] = {}
        if self._queued:
            self._record(())
        else:
            synchronize(device)
            self._since = clock()

    def lap(self, *names: str) -> None:
        """Everything since the last call was this piece of work; several names share its time equally."""
        if self._queued:
            self._record(names)
            return
        synchronize(self._device)
        now = self._clock()
        self._add(names, now - self._since)
        self._since = now

    def _record(self, names: tuple[str, ...]) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._events.append((names, event))

    def _add(self, names: tuple[str, ...], seconds: float) -> None:
        for name in names:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds / len(names)

    def seconds(self) -> dict[str, float]:
        """Seconds by name; waits for the device."""
        if self._queued:
            synchronize(self._device)
            for (_, before), (names, event) in itertools.pairwise(self._events):
                self._add(names, before.elapsed_time(event) / 1000)
            self._events = self._events[-1:]
        return dict(self._seconds)


class Meter:
    """Adds up seconds by name until somebody takes them."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def add(self, seconds: Mapping[str, float]) -> None:
        """So many seconds more."""
        for name, value in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """Everything since it was taken last."""
        taken, self._seconds = self._seconds, {}
        return taken


@dataclass(frozen=True)
class Cost:
    """What encoding took, as it was measured when it was done.

    Attributes:
        seconds: by part of the work: an image's share of its group, or those of one list of prompts.
        device: the name of what it was done on.
    """

    seconds: Mapping[str, float]
    device: str

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    def to_metadata(self) -> dict[str, str]:
        """As the metadata of a safetensors file."""
        return {"seconds": json.dumps(dict(self.seconds)), "device": self.device}

    @staticmethod
    def from_metadata(metadata: Mapping[str, str]) -> Cost | None:
        """What a file says of its cost; None in files of versions that did not time their parts.

        Raises:
            KeyError, ValueError: the metadata are damaged.
        """
        if "seconds" not in metadata:
            return None
        seconds = {str(name): float(value) for name, value in json.loads(metadata["seconds"]).items()}
        return Cost(seconds, metadata["device"])


@dataclass(frozen=True)
class Charge:
    """What one who asked for some parts alone would have paid.

    Attributes:
        seconds: of these parts; None if one of them was never timed.
        devices: the names of what they were done on.
    """

    seconds: float | None
    devices: frozenset[str] = frozenset()


def charge(costs: Sequence[Cost] | None, parts: Iterable[str]) -> Charge:
    """The charge for ``parts`` of work that was done in one pass or in several; the first that timed a part counts.

    Args:
        costs: of all passes; None if one of them was not timed.
        parts: what was asked for.
    """
    total, devices = 0.0, set()
    for part in parts:
        cost = next((cost for cost in costs or () if part in cost.seconds), None)
        if cost is None:
            return Charge(None)
        total += cost.seconds[part]
        devices.add(cost.device)
    return Charge(total, frozenset(devices))

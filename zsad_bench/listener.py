"""How long work tells others of its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from zsad_bench.core.laps import Charge


def _ignore(_: int) -> None: ...


def _free(_: Charge) -> None: ...


def _untimed(_: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Listener:
    """Who wants to know how encoding goes on.

    Attributes:
        starts: hears how many images of a category have to be encoded.
        encoded: hears how many more are done.
        time: context manager around a stage: ``setup`` (weights are read, a GPU wakes up), ``load`` (images are read),
            ``encode``, or ``read`` (stored features). A stage inside another one interrupts it.
        charge: hears what features would have cost one who encodes them alone, whenever some are handed out.
    """

    starts: Callable[[int], None] = _ignore
    encoded: Callable[[int], None] = _ignore
    time: Callable[[str], AbstractContextManager[None]] = _untimed
    charge: Callable[[Charge], None] = _free

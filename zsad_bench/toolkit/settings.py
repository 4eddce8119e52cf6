"""Types of keys that several methods have in common; :mod:`zsad_bench.contract.keys` checks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Interval, MinLen

from zsad_bench.contract.keys import Rule

PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
PositiveInt = Annotated[int, Ge(1)]
OddInt = Annotated[int, Ge(1), Rule(lambda number: number % 2 == 1, "odd")]
Share = Annotated[float, Interval(ge=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]

Layers = Sequence[int] | None
"""Blocks, 1-based; None means the quarter depths (:func:`zsad_bench.toolkit.taps.choose_layers`)."""

Sides = Annotated[Sequence[OddInt], MinLen(1)]
"""Sides of neighbourhoods in patches."""


def _are_bounds(bounds: Sequence[float]) -> bool:
    return len(bounds) == 2 and 0 <= bounds[0] <= bounds[1] and bounds[1] > 0


Bounds = Annotated[Sequence[float], Rule(_are_bounds, "a lower and a higher bound, for example [0.0, 0.3]")]
"""Which of the other images count, nearest first (:func:`zsad_bench.toolkit.matching.ranks`)."""

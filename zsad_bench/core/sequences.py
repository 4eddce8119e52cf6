"""Choosing among the items of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` items in their order, evenly spaced: the first, and of two or more also the last."""
    if count <= 0 or not items:
        return []
    positions = np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))
    return [items[position] for position in positions]

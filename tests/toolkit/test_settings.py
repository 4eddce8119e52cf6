"""Types of keys that methods have in common: what they take and what they say to the rest."""

from __future__ import annotations

import pytest

from zsad_bench.contract.keys import unmet
from zsad_bench.toolkit.settings import Bounds, Layers, OddInt, Share, ShareBelowOne, Sides


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (OddInt, [1, 3]),
        (Share, [0, 0.5, 1.0]),
        (ShareBelowOne, [0, 0.99]),
        (Layers, [None, [3, 6], ()]),
        (Sides, [[1], (3, 5)]),
        (Bounds, [[0.0, 0.3], (0.3, 1), [1, 3], [0.5, 0.5]]),
    ],
)
def test_allowed(hint: object, values: list[object]) -> None:
    assert [unmet(hint, value) for value in values] == [""] * len(values)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (OddInt, 2, "must be at least 1 and odd"),
        (OddInt, -1, "must be at least 1 and odd"),
        (Share, 1.1, "must be at least 0 and at most 1"),
        (ShareBelowOne, 1, "must be at least 0 and below 1"),
        (Layers, [1.5], "each must be a whole number, or null"),
        (Sides, [3, 2], "each must be at least 1 and odd"),
        (Sides, [], "must be a list of 1 or more"),
        (Bounds, [0.3, 0.1], "must be a lower and a higher bound, for example [0.0, 0.3]"),
        (Bounds, [0.3], "must be a lower and a higher bound, for example [0.0, 0.3]"),
        (Bounds, [-1.0, 0.5], "must be a lower and a higher bound, for example [0.0, 0.3]"),
        (Bounds, [0, 0], "must be a lower and a higher bound, for example [0.0, 0.3]"),
    ],
)
def test_refused(hint: object, value: object, said: str) -> None:
    assert unmet(hint, value) == said

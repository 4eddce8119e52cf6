"""Which blocks and streams the common taps name."""

from __future__ import annotations

import pytest

from zsad_bench.contract import Tap
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.taps import block_taps, choose_layers, quarter_depths


def test_block_taps() -> None:
    assert block_taps(None, 8) == (Tap(2), Tap(4), Tap(6), Tap(8))
    assert block_taps([8, 1], 8) == (Tap(8), Tap(1))


def test_quarter_depths_and_layers() -> None:
    assert quarter_depths(12) == (3, 6, 9, 12)
    assert quarter_depths(24) == (6, 12, 18, 24)
    assert quarter_depths(4) == (1, 2, 3, 4)
    assert quarter_depths(2) == (1, 2)
    assert choose_layers(None, 12) == (3, 6, 9, 12)
    assert choose_layers([2, 3], 4) == (2, 3)


@pytest.mark.parametrize("layers", [[], [0], [5]])
def test_layers_outside_the_tower(layers: list[int]) -> None:
    with pytest.raises(UserError, match=r"method\.layers.*1 to 4"):
        choose_layers(layers, 4)

"""Taps that several methods use."""

from __future__ import annotations

from collections.abc import Sequence

from zsad_bench.contract.features import Stream, Tap
from zsad_bench.core.errors import UserError

VALUE_VALUE = Tap(-1, Stream(("v",), start=1, embedding=True), projected=True)
"""AnoVL's value-value tokens (arXiv 2308.15939): the embedded tokens plus the value-value attention of every block,
projected, so that they can be compared with text."""


def block_taps(layers: Sequence[int] | None, n_blocks: int) -> tuple[Tap, ...]:
    """Unprojected tokens after the blocks of the key ``layers``, see :func:`choose_layers`."""
    return tuple(Tap(layer) for layer in choose_layers(layers, n_blocks))


def choose_layers(layers: Sequence[int] | None, n_blocks: int) -> tuple[int, ...]:
    """The 1-based blocks of the key ``layers``; None gives :func:`quarter_depths`.

    Raises:
        UserError: no layer, or one outside the tower.
    """
    if layers is None:
        return quarter_depths(n_blocks)
    if not layers or min(layers) < 1 or max(layers) > n_blocks:
        raise UserError(
            f"method.layers={list(layers)}: name blocks from 1 to {n_blocks}, as the encoder has, or null for "
            f"{list(quarter_depths(n_blocks))}"
        )
    return tuple(layers)


def quarter_depths(n_blocks: int) -> tuple[int, ...]:
    """Blocks at a quarter, half, three quarters and the whole of the depth, 1-based.

    Example:
        >>> quarter_depths(12), quarter_depths(24)
        ((3, 6, 9, 12), (6, 12, 18, 24))
    """
    return tuple(sorted({max(1, n_blocks * quarter // 4) for quarter in (1, 2, 3, 4)}))

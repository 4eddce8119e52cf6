"""Settings of methods that several have in common, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

from zsad_bench.core.errors import UserError


def quarter_depths(n_blocks: int) -> tuple[int, ...]:
    """Blocks at a quarter, half, three quarters and the whole of the depth, 1-based.

    Example:
        >>> quarter_depths(12), quarter_depths(24)
        ((3, 6, 9, 12), (6, 12, 18, 24))
    """
    return tuple(sorted({max(1, n_blocks * quarter // 4) for quarter in (1, 2, 3, 4)}))


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


def check_sides(sides: Sequence[int], key: str) -> tuple[int, ...]:
    """Neighbourhood sides in patches, refused with UserError unless all are odd and positive."""
    if not sides or any(side < 1 or side % 2 == 0 for side in sides):
        raise UserError(f"method.{key}={list(sides)}: needs odd numbers of patches, for example [1, 3, 5]")
    return tuple(sides)


def check_interval(interval: Sequence[float], key: str) -> tuple[float, float]:
    """Bounds for :func:`ranks`, refused with UserError unless there are two, not negative and not descending."""
    low, high = interval if len(interval) == 2 else (0.0, -1.0)
    if low < 0 or high <= 0 or (low > high and not (low < 1 <= high)):
        raise UserError(f"method.{key}={list(interval)}: needs a lower and a higher bound, for example [0.0, 0.3]")
    return low, high

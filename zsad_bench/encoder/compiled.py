"""``encoder.compile=true``: the dense walk through ``torch.compile``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from zsad_bench.contract import Tap
from zsad_bench.contract.features import tap_name
from zsad_bench.core.errors import UserError
from zsad_bench.core.laps import Lap, untimed
from zsad_bench.encoder.tower import Tower, dense_forward

Walked = tuple[Tensor, dict[Tap, Tensor]]


def compiled_parts(taps: Iterable[Tap]) -> frozenset[str]:
    """The one piece of work of a compiled walk with these resolved taps: nobody can look into it."""
    names = ",".join(sorted(map(tap_name, taps)))
    return frozenset({f"compiled.{hashlib.sha256(names.encode()).hexdigest()[:16]}"})


class CompiledWalk:
    """:func:`~zsad_bench.encoder.tower.dense_forward`, compiled once for every set of taps.

    Args:
        tower: an image tower without packed matrices, which the compiler cannot see through.
    """

    def __init__(self, tower: Tower) -> None:
        self._tower = tower
        self._walks: dict[tuple[Tap, ...], Callable[[Tensor], Walked]] = {}

    def __call__(self, images: Tensor, taps: tuple[Tap, ...] = (), lap: Lap = untimed) -> Walked:
        """Class token and every tap of images (B, 3, H, W); ``lap`` hears of the whole walk.

        Raises:
            UserError: this machine has no working compiler.
        """
        if taps not in self._walks:
            self._walks[taps] = torch.compile(lambda pixels: dense_forward(self._tower, pixels, taps))
        try:
            walked = self._walks[taps](images)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines()[0][:150]
            raise UserError(
                f"encoder.compile=true: torch.compile failed ({reason}); it needs a C++ compiler, and on a GPU Triton; "
                "or use encoder.compile=false"
            ) from None
        for part in compiled_parts(taps):
            lap(part)
        return walked

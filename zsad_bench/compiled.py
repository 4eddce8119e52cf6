"""``encoder.compile=true``: the dense walk through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zsad_bench.dense import Tower, dense_forward
from zsad_bench.errors import UserError
from zsad_bench.features import Tap

Walked = tuple[Tensor, dict[Tap, Tensor]]


class CompiledWalk:
    """:func:`~zsad_bench.dense.dense_forward`, compiled once for every set of taps.

    Args:
        tower: an image tower without packed matrices, which the compiler cannot see through.
    """

    def __init__(self, tower: Tower) -> None:
        self._tower = tower
        self._walks: dict[tuple[Tap, ...], Callable[[Tensor], Walked]] = {}

    def __call__(self, images: Tensor, taps: tuple[Tap, ...] = ()) -> Walked:
        """Class token and every tap of images (B, 3, H, W).

        Raises:
            UserError: this machine has no working compiler.
        """
        if taps not in self._walks:
            self._walks[taps] = torch.compile(lambda pixels: dense_forward(self._tower, pixels, taps))
        try:
            return self._walks[taps](images)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines()[0][:150]
            raise UserError(
                f"encoder.compile=true: torch.compile failed ({reason}); it needs a C++ compiler, and on a GPU Triton; "
                "or use encoder.compile=false"
            ) from None

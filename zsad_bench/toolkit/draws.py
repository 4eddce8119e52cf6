"""Random numbers that do not depend on the device: drawn on the CPU in float32, then moved.

Decisions of the host (which image, how many, in what order) come from :meth:`zsad_bench.contract.Method.random`
instead, a numpy generator: a number that is read back from a device would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normal(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal float32 numbers.

    Args:
        shape: of the result.
        generator: of the CPU; it moves on, whatever the device.
        device: where the result lies.
    """
    return torch.randn(tuple(shape), generator=generator).to(device)


def uniform(
    shape: Sequence[int], generator: torch.Generator, device: torch.device, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Float32 numbers from [low, high); arguments as in :func:`normal`."""
    return torch.empty(tuple(shape)).uniform_(low, high, generator=generator).to(device)

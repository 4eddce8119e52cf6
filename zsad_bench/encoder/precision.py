"""``encoder.precision=auto``: the number format that the device computes in by hardware.

The choice is a rule over what the device can do, never a measurement: the same machine always decides the same, and
machines of one kind agree. Results are filed under the precision that was chosen, never under ``auto``.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from zsad_bench.core.errors import UserError
from zsad_bench.core.machine import device_name

AUTO = "auto"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``: the one given, or for ``auto`` the one that suits the device.

    Raises:
        UserError: no such precision.
    """
    if precision in PRECISIONS:
        return precision
    if precision != AUTO:
        raise UserError(f"encoder.precision={precision}: choose from {', '.join((*PRECISIONS, AUTO))}")
    return _chosen(device)


@lru_cache(maxsize=4)
def _chosen(device: torch.device) -> str:
    from zsad_bench.core import console

    chosen = _suited(device)
    line = f"encoder.precision=auto: {chosen} on {device_name(device)}"
    console.err.print(line, style="dim", soft_wrap=True)
    return chosen


def _suited(device: torch.device) -> str:
    if device.type == "cuda":
        return for_compute_capability(*torch.cuda.get_device_capability(device))
    # oneDNN has the products; without it bfloat16 is imitated, many times slower than float32.
    bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    if device.type == "cpu" and bfloat16 and torch.backends.mkldnn.is_available():
        return "bf16"
    # Also on Apple's GPUs: they are said to multiply float16 about as fast as float32, and nothing was measured on one,
    # so no digits are given up.
    return "fp32"


def for_compute_capability(major: int, minor: int) -> str:
    """The 16-bit format whose matrix products a CUDA device has in hardware, else ``fp32``.

    bfloat16 (from 8.0, Ampere) comes before float16 (from 7.0, Volta), whose range a model must be trained for.
    """
    if (major, minor) >= (8, 0):
        return "bf16"
    return "fp16" if (major, minor) >= (7, 0) else "fp32"

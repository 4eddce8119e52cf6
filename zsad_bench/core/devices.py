"""What depends on the kind of device: how much is computed at a time, and waiting for what was asked of it.

The limits change speed and memory only, never what is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

# What blocks of matching may take of a GPU's memory: the encoder, its features and the tables of distances lie there
# as well, and another process may.
MEMORY_SHARE = 16
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Blocks:
    """Float32 numbers that matching holds at a time.

    Attributes:
        similarities: of query patches with reference patches, each read once.
        products: of the patches of image pairs, read and written many times; about three copies exist at once.
    """

    similarities: int
    products: int


# 16 MB, and 2 MB that stay in the cache of a CPU core.
CPU_BLOCKS = Blocks(similarities=1 << 22, products=1 << 19)
# 256 MB and 128 MB: every call must be worth its launch.
ELSEWHERE = Blocks(similarities=1 << 26, products=1 << 25)


@lru_cache(maxsize=8)
def blocks_for(device: torch.device) -> Blocks:
    """The blocks of a device; on a CUDA device no more than a share of its memory, on every run the same."""
    if device.type == "cpu":
        return CPU_BLOCKS
    if device.type != "cuda" or not torch.cuda.is_available():
        return ELSEWHERE
    fitting = torch.cuda.get_device_properties(device).total_memory // MEMORY_SHARE // _FLOAT_BYTES
    return replace(
        ELSEWHERE,
        similarities=min(ELSEWHERE.similarities, fitting),
        products=min(ELSEWHERE.products, fitting // 3),
    )


def synchronize(device: torch.device) -> None:
    """Wait until everything that was asked of a device is computed; needed before a clock of the host is read."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""How many images go through the encoder at once: chosen for the machine, and halved when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from zsad_bench.core.errors import UserError

Part = TypeVar("Part")

# Tokens of a chunk. A CPU is as fast as it gets with about 2000, and more only fall out of its caches; a GPU wants many
# more, as long as they fit.
CPU_TOKENS = 2048
GPU_TOKENS = 65_536
# Bytes of activations per token and channel: the inner layer of the feed-forward network, its input and output, the
# attention's projections and the taps, generously. A quarter of the memory is left to them.
BYTES_PER_CHANNEL = 64
MEMORY_SHARE = 4
LARGEST = 256

# timm's check_batch_size_retry tells nothing from want of memory but two kinds of errors, so a bug would be named so.
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "cannot allocate memory")


def automatic_chunk_size(n_tokens: int, width: int, device: torch.device) -> int:
    """Images per chunk, a power of two: the same on every run of the same machine.

    Args:
        n_tokens: tokens an image.
        width: channels of a token.
        device: where the encoder runs.
    """
    if device.type == "cuda":
        fitting = torch.cuda.get_device_properties(device).total_memory // MEMORY_SHARE // (width * BYTES_PER_CHANNEL)
        tokens = min(GPU_TOKENS, fitting)
    else:
        tokens = CPU_TOKENS if device.type == "cpu" else 4 * CPU_TOKENS
    images = max(1, min(LARGEST, tokens // n_tokens))
    return 1 << (images.bit_length() - 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, on a CPU or on a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class Chunks:
    """Runs work on many images chunk by chunk.

    Args:
        size: images per chunk to begin with.

    Attributes:
        size: images per chunk; halved for good whenever memory runs out.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[slice], Part], count: int) -> list[Part]:
        """The results of ``work`` on slices that cover ``count`` images in order.

        Raises:
            UserError: there is too little memory for a single image.
        """
        parts: list[Part] = []
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                parts.append(work(part))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            else:
                start = part.stop
                continue
            # Not inside the handler: while it runs, the traceback keeps the failed chunk's tensors alive.
            self._halve(part.stop - part.start, reason)
        return parts

    def _halve(self, failed: int, reason: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if failed == 1:
            raise UserError(
                f"the encoder ran out of memory with one image at a time ({reason}); use encoder.precision=bf16, a "
                "smaller encoder.image_size or encoder.model, or a machine with more memory"
            )
        from zsad_bench.core import console

        self.size = failed // 2
        console.warn(f"out of memory with {failed} images at a time; going on with encoder.chunk_size={self.size}")

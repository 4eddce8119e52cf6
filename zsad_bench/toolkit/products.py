"""Products of the tokens of two images, with packed and bfloat16 factors where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from zsad_bench.core.devices import blocks_for
from zsad_bench.core.packed import Linear, can_pack


class Products:
    """Products of all tokens of two images, in float32.

    A bfloat16 product has bfloat16 results on most devices, and rounding similarities near 1 to 8 binary digits would
    leave little of their distance 1 - s. So with l the lengths of the tokens, rounded, the product is made of
    a . b - l_a l_b, which is small where a and b are alike, and l_a l_b is added in float32.

    Args:
        tokens: (B, N, C) float32.
        dtype: of the factors.

    Attributes:
        tokens: the same as float32, with the values that take part in the products.
    """

    def __init__(self, tokens: Tensor, dtype: torch.dtype) -> None:
        factors = tokens.to(dtype)
        self.tokens = factors.to(tokens.dtype)
        self._pack = tokens.device.type == "cpu" and can_pack(dtype)
        self._left = self._right = factors
        self._lengths: Tensor | None = None
        if dtype != tokens.dtype:
            lengths = self.tokens.norm(dim=-1, keepdim=True).to(dtype)
            self._left, self._right = torch.cat([factors, lengths], dim=-1), torch.cat([factors, -lengths], dim=-1)
            self._lengths = lengths[..., 0].to(tokens.dtype)

    def pairs(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Every pair of images once: an image, later images, and its products (N, N * n_others) with their patches.

        The products come patch by patch: those of patch q with all others, then those of patch q + 1.
        """
        count, patches = self.tokens.shape[:2]
        per_block = max(1, blocks_for(self.tokens.device).products // patches**2)
        for start in range(0, count, per_block):
            block = slice(start, min(start + per_block, count))
            if start:
                multiply = self._with_images(block, self._pack)
                for image in range(start):
                    yield image, block, multiply(image)
            for image in range(start, block.stop - 1):
                later = slice(image + 1, block.stop)
                yield image, later, self._with_images(later, pack=False)(image)

    def _with_images(self, others: slice, pack: bool) -> Callable[[int], Tensor]:
        """A function from an image to its products with the patches of others."""
        linear = Linear(_interleaved(self._right[others]), None, pack)
        if self._lengths is None:
            return lambda image: linear(self._left[image])
        lengths = self._lengths
        flat = lengths[others].T.flatten()
        return lambda image: (lengths[image][:, None] * flat).add_(linear(self._left[image]))


def _interleaved(block: Tensor) -> Tensor:
    """Tokens (n, N, C) as rows (N * n, C), patch by patch: neighbours then lie n columns of G apart, in one piece."""
    return block.transpose(0, 1).flatten(0, 1)

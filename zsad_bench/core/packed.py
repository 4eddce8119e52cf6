"""Matrix products with a packed copy of the matrix, for CPUs that have them."""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

# The number of rows for which the packed layout is chosen; products of any other number work as well.
_ROWS = 2048


class Linear:
    """x W^T + b.

    Args:
        weight: (n_out, n_in).
        bias: (n_out,) or None.
        pack: compute with a packed copy of the weight, see :func:`can_pack`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, pack: bool) -> None:
        self.weight, self.bias = weight, bias
        self._packed: Tensor | None = None
        if pack:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)

    def __call__(self, x: Tensor, *, residual: Tensor | None = None, gelu: bool = False) -> Tensor:
        """(..., n_in) -> (..., n_out): the product, its exact GELU, or its sum with a residual of the same shape."""
        if self._packed is None:
            product = F.linear(x, self.weight, self.bias)
            product = F.gelu(product) if gelu else product
            return product if residual is None else residual + product
        operator = torch.ops.mkldnn._linear_pointwise
        if residual is not None:
            return cast(Tensor, operator.binary(x, residual.contiguous(), self._packed, self.bias, "add"))
        activation, variant = ("gelu", "none") if gelu else ("none", "")
        return cast(Tensor, operator(x, self._packed, self.bias, activation, [], variant))


@lru_cache(maxsize=4)
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this CPU and this torch have the packed operators for a type, and they compute the right product."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, residual = (torch.randn(32, 32, generator=generator).to(dtype) for _ in range(3))
    try:
        linear = Linear(weight, residual[0], pack=True)
        results = linear(x), linear(x, residual=residual), linear(x, gelu=True)
    except (AttributeError, RuntimeError):
        return False
    product = F.linear(x.float(), weight.float(), residual[0].float())
    expected = product, product + residual.float(), F.gelu(product)
    pairs = zip(results, expected, strict=True)
    return all(torch.allclose(ours.float(), right, atol=0.05, rtol=0.02) for ours, right in pairs)

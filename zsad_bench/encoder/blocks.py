"""Transformer blocks of open_clip, read once into the form that runs fastest on the device.

Nothing of the model is changed. A :class:`Block` keeps references to the weights of a ``ResidualAttentionBlock`` and,
on x86 CPUs, packed copies of its matrices: a matrix is put once into the memory layout of the CPU's matrix kernels,
which is otherwise made again in every call, and the GELU and the residual sum are computed while the product is still
in the cache. The operators are those of ``torch.compile`` for frozen weights. ``docs/performance.md`` has the gains.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from zsad_bench.core.packed import Linear

# With 16-bit numbers on CPUs, two plain products and a softmax beat the fused kernel up to about this many keys.
_EXPLICIT_KEYS = 512


class Heads(NamedTuple):
    """Queries, keys and values, each (B, heads, tokens, d_head)."""

    q: Tensor
    k: Tensor
    v: Tensor


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A layer norm with float32 statistics. CPU kernels take 16-bit tokens as they are; others need a float32 copy."""
    if x.device.type == "cpu":
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return cast(Tensor, norm(x))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention softmax(q k^T / sqrt(d) + mask) v.

    Args:
        query: (B, heads, n, d).
        key: (B, heads, m, d).
        value: (B, heads, m, d).
        mask: (n, m) or (B, 1, n, m), added to the logits.

    Returns:
        (B, n, heads * d).
    """
    short = key.shape[-2] <= _EXPLICIT_KEYS and query.device.type == "cpu" and query.dtype != torch.float32
    if short and (mask is None or mask.ndim == 2):
        heads = query.shape[1]
        q, k, v = (part.contiguous().flatten(0, 1) for part in (query, key, value))
        start = q.new_empty(()) if mask is None else mask
        logits = torch.baddbmm(start, q, k.transpose(1, 2), beta=0 if mask is None else 1, alpha=q.shape[-1] ** -0.5)
        mixed = torch.bmm(logits.softmax(dim=-1), v).unflatten(0, (-1, heads))
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


class Block:
    """One residual attention block: h + O(attention(ln_1 h)), then h + FFN(ln_2 h), with layer scale if it has one.

    Args:
        block: of an open_clip transformer with plain blocks.
        pack: see :class:`Linear`.
    """

    def __init__(self, block: ResidualAttentionBlock, pack: bool) -> None:
        attention = block.attn
        self.n_heads: int = attention.num_heads
        self.norm_1, self.norm_2 = block.ln_1, block.ln_2
        self._scales = [None if isinstance(scale, nn.Identity) else scale for scale in (block.ls_1, block.ls_2)]
        self._activation: nn.Module = block.mlp.gelu
        self._exact_gelu = isinstance(self._activation, nn.GELU) and self._activation.approximate == "none"
        self._in_weight, self._in_bias = attention.in_proj_weight, attention.in_proj_bias
        self._pack = pack
        self._in = Linear(self._in_weight, self._in_bias, pack)
        self._out = Linear(attention.out_proj.weight, attention.out_proj.bias, pack)
        self._expand = Linear(block.mlp.c_fc.weight, block.mlp.c_fc.bias, pack)
        self._contract = Linear(block.mlp.c_proj.weight, block.mlp.c_proj.bias, pack)

    @cached_property
    def _in_parts(self) -> tuple[Linear, Linear]:
        """Queries alone; keys and values."""
        width = self._in_weight.shape[1]
        weights = self._in_weight.split([width, 2 * width])
        biases = self._in_bias.split([width, 2 * width])
        query, key_value = (Linear(*part, self._pack) for part in zip(weights, biases, strict=True))
        return query, key_value

    def _split(self, joint: Tensor, parts: int) -> tuple[Tensor, ...]:
        return joint.unflatten(-1, (parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def joint(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values side by side (..., 3 * width), from the block's input (..., width)."""
        return self._in(layer_norm(self.norm_1, hidden))

    def split(self, joint: Tensor) -> Heads:
        """The heads of joint projections (B, tokens, 3 * width)."""
        return Heads(*self._split(joint, 3))

    def class_heads(self, hidden: Tensor) -> Heads:
        """Heads with the query of the first token only, from the block's input (B, tokens, width).

        That query is always a product of its own, and keys and values are one without the queries: what becomes of the
        first token has the same bits whether the other queries are wanted or not. As a part of larger products it could
        differ in its last bits.
        """
        query, key_value = self._in_parts
        normed = layer_norm(self.norm_1, hidden)
        key, value = self._split(key_value(normed), 2)
        return Heads(self._split(query(normed[:, :1]), 1)[0], key, value)

    def queries(self, hidden: Tensor) -> Tensor:
        """The queries of all tokens (B, heads, tokens, d_head), for keys and values of :meth:`class_heads`."""
        return self._split(self._in_parts[0](layer_norm(self.norm_1, hidden)), 1)[0]

    def output(self, mixed: Tensor, residual: Tensor | None = None) -> Tensor:
        """The attention's output projection (..., width), added to a residual if there is one."""
        return self._scaled(self._out, mixed, residual, self._scales[0])

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """The second half of a block, h + FFN(ln_2 h), for tokens (..., width)."""
        normed = layer_norm(self.norm_2, hidden)
        if self._exact_gelu:
            inner = self._expand(normed, gelu=True)
        elif isinstance(self._activation, QuickGELU):
            inner = self._expand(normed)
            inner = (1.702 * inner).sigmoid_().mul_(inner)
        else:
            inner = self._activation(self._expand(normed))
        return self._scaled(self._contract, inner, hidden, self._scales[1])

    def __call__(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """The whole block, (B, tokens, width) -> (B, tokens, width)."""
        return self.feed_forward(self.output(attend(*self.split(self.joint(hidden)), mask), hidden))

    def class_row(self, hidden: Tensor) -> Tensor:
        """The first token (B, width) after the block; what the others would become is not computed."""
        return self.feed_forward(self.output(attend(*self.class_heads(hidden)), hidden[:, :1]))[:, 0]

    @staticmethod
    def _scaled(linear: Linear, x: Tensor, residual: Tensor | None, scale: nn.Module | None) -> Tensor:
        if scale is None:
            return linear(x, residual=residual)
        product = scale(linear(x))
        return product if residual is None else residual + product


def unsupported_block(block: nn.Module) -> bool:
    """Whether a block is none that :class:`Block` can read."""
    return not isinstance(block, ResidualAttentionBlock) or not isinstance(block.attn, nn.MultiheadAttention)

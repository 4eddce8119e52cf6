"""Prompts through CLIP's text tower, each distinct beginning only once.

The text tower is causal: what it computes for a token depends on the tokens before it and on nothing else. Prompts of
an ensemble begin alike ("a photo of a ..."), so the tokens of all prompts form a tree of beginnings, and one row per
node of that tree is enough. Nothing behind the end token, whose row is the embedding, is computed. Both are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from zsad_bench.core.packed import can_pack
from zsad_bench.encoder.blocks import Block, Heads, attend, layer_norm, unsupported_block

# Prompts at a time; in sorted order, so that neighbours share most of their tokens.
PROMPTS_PER_CHUNK = 256


@dataclass(frozen=True)
class Beginnings:
    """The distinct beginnings of n prompts, M of them in all.

    Attributes:
        tokens: (M,) last token of each beginning.
        positions: (M,) its position in the prompt.
        members: (n, L) beginning that ends at each position of a prompt; any where the prompt is over.
        first: (M,) flat index into ``members`` where a beginning occurs.
        ends: (n,) position of the end token.
    """

    tokens: Tensor
    positions: Tensor
    members: Tensor
    first: Tensor
    ends: Tensor


def find_beginnings(tokens: Tensor, ends: Tensor) -> Beginnings:
    """Beginnings of token rows (n, length) that end at the positions ``ends`` (n,)."""
    length = int(ends.max()) + 1
    members = torch.zeros(len(tokens), length, dtype=torch.long)
    parents = torch.zeros(len(tokens), dtype=torch.long)
    found: list[Tensor] = []
    first: list[Tensor] = []
    count = 0
    for position in range(length):
        rows = (ends >= position).nonzero()[:, 0]
        pairs, inverse = torch.stack([parents[rows], tokens[rows, position]], dim=1).unique(dim=0, return_inverse=True)
        members[rows, position] = parents[rows] = inverse + count
        owners = torch.empty(len(pairs), dtype=torch.long).scatter_(0, inverse, rows)
        found.append(pairs[:, 1])
        first.append(owners * length + position)
        count += len(pairs)
    where = torch.cat(first)
    return Beginnings(torch.cat(found), where % length, members, where, ends)


def supported(model: nn.Module) -> bool:
    """Whether the text tower is causal, pools its end token and has plain blocks."""
    tower = model.text if isinstance(model, CustomTextCLIP) else model
    if isinstance(tower, TextTransformer):
        pool, plain = tower.pool_type, tower.cls_emb is None and not tower.use_pad_mask
    elif isinstance(tower, CLIP):
        pool, plain = tower.text_pool_type, True
    else:
        return False
    causal = tower.attn_mask is not None
    return causal and plain and pool in ("argmax", "eos") and not unsupported_block(tower.transformer.resblocks[0])


class TextTower:
    """The text tower of a model for which :func:`supported` holds."""

    def __init__(self, model: nn.Module) -> None:
        self._tower = tower = cast(CLIP, model.text if isinstance(model, CustomTextCLIP) else model)
        weight = tower.transformer.resblocks[0].mlp.c_fc.weight
        self._dtype = weight.dtype
        pack = weight.device.type == "cpu" and can_pack(weight.dtype)
        self._blocks = [Block(block, pack) for block in tower.transformer.resblocks]
        pool = tower.pool_type if isinstance(tower, TextTransformer) else tower.text_pool_type
        end = tower.eos_id if isinstance(tower, TextTransformer) else tower.text_eos_id
        self._pooling: tuple[str, int] = (pool, end)

    def encode(self, tokens: Tensor) -> Tensor:
        """Token ids (n, context) on the CPU to embeddings (n, D), as ``encode_text`` gives them."""
        pool, end = self._pooling
        places = torch.arange(tokens.shape[1]).expand_as(tokens)[..., None]
        ends = text_global_pool(places, tokens, pool, eos_token_id=end)[:, 0]
        order = sorted(range(len(tokens)), key=lambda row: tokens[row].tolist())
        parts = [self._encode(tokens[part], ends[part]) for part in torch.tensor(order).split(PROMPTS_PER_CHUNK)]
        return torch.cat(parts)[torch.tensor(order, device=parts[0].device).argsort()]

    def _encode(self, tokens: Tensor, ends: Tensor) -> Tensor:
        tower, tree = self._tower, find_beginnings(tokens, ends)
        device = tower.positional_embedding.device
        members, first = tree.members.to(device), tree.first.to(device)
        hidden = tower.token_embedding(tree.tokens.to(device)).to(self._dtype)
        hidden = hidden + tower.positional_embedding[tree.positions.to(device)].to(self._dtype)
        mask = torch.full((members.shape[1],) * 2, float("-inf"), dtype=self._dtype, device=device).triu_(1)
        *blocks, last = self._blocks
        for block in blocks:
            mixed = attend(*block.split(block.joint(hidden)[members]), mask)
            hidden = block.feed_forward(block.output(mixed.flatten(0, 1)[first], hidden))
        ended = tree.members[torch.arange(len(ends)), ends].to(device)
        heads = last.split(last.joint(hidden)[members])
        own = heads.q[torch.arange(len(ends), device=device), :, ends.to(device)][:, :, None]
        visible = mask[ends.to(device)][:, None, None]
        mixed = attend(*Heads(own, heads.k, heads.v), visible)[:, 0]
        pooled = layer_norm(tower.ln_final, last.feed_forward(last.output(mixed, hidden[ended])))
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

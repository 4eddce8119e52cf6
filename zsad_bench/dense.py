"""The dense forward: ONE functional walk over the residual stream of a CLIP image tower.

The walk reads the weights of an unmodified open_clip ``VisionTransformer``. It patches no module, registers no hook
and never writes into a tensor that was handed out, so every tap is a tensor of its own. In the public code of the
field such in-place additions made "different layers" one tensor.

Nothing is computed that nobody reads: surgery outputs of blocks between a stream's restart and its next tap only, and
in the last block, unless a tap wants more, the ordinary stream's class token only. What a tap gets has the same bits
whatever else is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from zsad_bench.blocks import Block, Heads, attend, can_pack, layer_norm, unsupported_block
from zsad_bench.features import Stream, Tap

# Window sequences are cut into batches of about this many tokens, whose activations stay in the cache of a CPU.
WINDOW_TOKENS = {"cpu": 4096}
WINDOW_TOKENS_ELSEWHERE = 65_536


def unsupported_reason(visual: torch.nn.Module) -> str | None:
    """Why the walk cannot read this image tower, or None if it can."""
    if not isinstance(visual, VisionTransformer):
        return f"its image tower is a {type(visual).__name__}, not open_clip's own ViT"
    if visual.attn_pool is not None or visual.pool_type != "tok":
        return "it pools its tokens instead of using a class token"
    if unsupported_block(visual.transformer.resblocks[0]):
        return "its blocks are not plain residual attention blocks"
    return None


class Tower:
    """An image tower ready to be walked.

    Args:
        visual: an open_clip ViT with a class token; its parameters decide dtype and device.
        pack: pack its matrices; None does so where it helps, see :func:`~zsad_bench.blocks.can_pack`.
    """

    def __init__(self, visual: VisionTransformer, pack: bool | None = None) -> None:
        weight = visual.conv1.weight
        self.visual = visual
        self.packed = (weight.device.type == "cpu" and can_pack(weight.dtype)) if pack is None else pack
        self.blocks = [Block(block, self.packed) for block in visual.transformer.resblocks]

    def embed(self, images: Tensor) -> Tensor:
        """Tokens h_0 = ln_pre([class; patches] + positions): (B, 3, H, W) -> (B, 1 + N, width)."""
        visual = self.visual
        patches = embed_patches(visual.conv1, images)
        class_token = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        return visual.ln_pre(tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """``ln_post`` and the visual projection: (..., width) -> (..., D)."""
        tokens = layer_norm(self.visual.ln_post, tokens)
        return tokens if self.visual.proj is None else tokens @ self.visual.proj

    def finish(self, tokens: Tensor, tap: Tap) -> Tensor:
        """Tokens as a tap wants them: raw, through ``ln_post``, or projected."""
        if tap.projected:
            return self.project(tokens)
        return layer_norm(self.visual.ln_post, tokens) if tap.normed else tokens


def embed_patches(conv: torch.nn.Conv2d, images: Tensor) -> Tensor:
    """Patch embedding of images (B, 3, H, W): (B, N, width), row-major."""
    if images.device.type == "cuda" and images.dtype == torch.float32:
        return patch_products(conv, images)
    return conv(images).flatten(2).transpose(1, 2)


def patch_products(conv: torch.nn.Conv2d, images: Tensor) -> Tensor:
    """The same as a matrix product.

    CUDA rounds the factors of float32 convolutions to TF32 (10 bits of mantissa) unless a global switch forbids it,
    those of products it does not; and where kernel and stride are equal the two are one sum.
    """
    height, width = conv.weight.shape[2:]
    rows, columns = images.shape[2] // height, images.shape[3] // width
    cut = images[:, :, : rows * height, : columns * width].unflatten(3, (columns, width)).unflatten(2, (rows, height))
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return torch.nn.functional.linear(patches, conv.weight.flatten(1), conv.bias)


def _origin(tap: Tap, stream: Stream) -> int:
    """First block whose output is in the sum that a tap takes; above ``tap.block`` before the stream starts."""
    if not stream.restart or tap.block < stream.start:
        return stream.start
    return tap.block - (tap.block - stream.start) % stream.restart


def _surgery(block: Block, heads: Heads, attention: tuple[str, ...], residual: Tensor | None = None) -> Tensor:
    """Self-self attention output of one block: mean over ``attention`` of softmax(z z^T / sqrt(d)) v, projected."""
    mixed = [attend(getattr(heads, name), getattr(heads, name), heads.v) for name in attention]
    mean = mixed[0] if len(mixed) == 1 else torch.stack(mixed).mean(dim=0)
    return block.output(mean, residual)


def dense_forward(tower: Tower, images: Tensor, taps: Sequence[Tap] = ()) -> tuple[Tensor, dict[Tap, Tensor]]:
    """Class token and every tap in one pass.

    Args:
        tower: the image tower.
        images: (B, 3, H, W) normalised pixels.
        taps: resolved taps (positive block numbers).

    Returns:
        The projected class token (B, D), equal to ``encode_image``, and per tap the tokens (B, 1 + N, C), or (B, 1, C)
        of taps that want the class token only. In a surgery stream the class row is the stream's own, not the ordinary
        class token.

    Raises:
        ValueError: taps outside the tower or before their stream starts.
    """
    wanted = set(taps)
    spans = {tap: (_origin(tap, tap.stream), tap.block) for tap in wanted if tap.stream is not None}
    n_blocks = len(tower.blocks)
    missing = [tap for tap in wanted if tap.block > n_blocks or (tap in spans and spans[tap][0] > tap.block)]
    if missing:
        raise ValueError(f"taps outside the tower or before their stream starts: {sorted(map(str, missing))}")
    plain_at_the_end = [tap for tap in wanted if tap.block == n_blocks and tap.stream is None and not tap.class_only]
    embedding = hidden = tower.embed(images)
    sums: dict[Stream, Tensor] = {}
    taken: dict[Tap, Tensor] = {}

    def take(tokens: Tensor, block: int, stream: Stream | None = None, after_attention: bool = False) -> None:
        for tap in wanted:
            if (tap.block, tap.stream, tap.after_attention) == (block, stream, after_attention):
                rows = tokens[:, :1].clone() if tap.class_only else tokens
                taken[tap] = tower.finish(rows, tap)

    for number, block in enumerate(tower.blocks, start=1):
        active = {tap.stream for tap, (first, last) in spans.items() if first <= number <= last and tap.stream}
        if number < n_blocks:
            first, heads = None, block.split(block.joint(hidden))
        else:
            queries = bool(plain_at_the_end) or any("q" in stream.attention for stream in active)
            first, heads = block.class_heads(hidden, queries)
        outputs = {kind: _surgery(block, heads, kind) for kind in {stream.attention for stream in active}}
        for stream in active:
            output = outputs[stream.attention]
            done = number - stream.start
            if done == 0:
                sums[stream] = embedding + output if stream.embedding else output
            elif stream.restart and done % stream.restart == 0:
                sums[stream] = output
            else:
                sums[stream] = sums[stream] + output
            take(sums[stream], number, stream)
        if first is None:
            hidden = block.output(attend(*heads), hidden)
            take(hidden, number, after_attention=True)
            hidden = block.feed_forward(hidden)
        else:
            # Class token and patches apart, so that the class token does not depend on who wants the patches.
            parts = [block.output(attend(first, heads.k, heads.v), hidden[:, :1])]
            if plain_at_the_end:
                parts.append(block.output(attend(heads.q[:, :, 1:], heads.k, heads.v), hidden[:, 1:]))
            take(torch.cat(parts, dim=1), number, after_attention=True)
            if all(tap.after_attention for tap in plain_at_the_end):
                del parts[1:]
            hidden = torch.cat([block.feed_forward(part) for part in parts], dim=1)
        take(hidden, number)
    return tower.project(hidden[:, 0]), taken


def window_indices(grid: tuple[int, int], side: int) -> Tensor:
    """Patch indices (n_windows, side * side), 0-based and row-major, of all square windows with stride 1."""
    patches = torch.arange(grid[0] * grid[1]).view(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def window_forward(
    tower: Tower, images: Tensor, grid: tuple[int, int], sides: Sequence[int]
) -> dict[int, Tensor]:
    """Class-token embedding of every window, the other patches dropped from the sequence (WinCLIP, section 4.2).

    Kept patches have their original positions. The sequence is [class; patches of the window], so one window costs
    1 + side * side tokens and all windows of all images form large batches. A token enters the first block as the same
    vector in every window, so that block's projections are computed once a token and gathered.

    Returns:
        Per side (B, n_windows, D), projected, not normalised.
    """
    tokens = tower.embed(images)
    joint = tower.blocks[0].joint(tokens).flatten(0, 1)
    starts = torch.arange(len(images), device=tokens.device)[:, None, None] * tokens.shape[1]
    tokens = tokens.flatten(0, 1)
    embeddings = {}
    for side in sides:
        indices = window_indices(grid, side).to(tokens.device)
        rows = torch.cat([torch.zeros_like(indices[:, :1]), indices + 1], dim=1)
        sequences = (starts + rows).flatten(0, 1)
        limit = WINDOW_TOKENS.get(tokens.device.type, WINDOW_TOKENS_ELSEWHERE)
        parts = sequences.split(max(1, limit // rows.shape[1]))
        embeddings[side] = torch.cat([_windows(tower, tokens[part], joint[part]) for part in parts])
        embeddings[side] = embeddings[side].unflatten(0, (len(images), -1))
    return embeddings


def _windows(tower: Tower, hidden: Tensor, joint: Tensor) -> Tensor:
    """Projected class token (n, D) of embedded sequences (n, tokens, width) with the first block's projections."""
    first, *others = tower.blocks
    if not others:
        return tower.project(first.class_row(hidden))
    hidden = first.feed_forward(first.output(attend(*first.split(joint)), hidden))
    for block in others[:-1]:
        hidden = block(hidden)
    return tower.project(others[-1].class_row(hidden))

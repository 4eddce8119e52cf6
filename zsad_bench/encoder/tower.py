"""The dense forward: ONE functional walk over the residual stream of a CLIP image tower.

The walk reads the weights of an unmodified open_clip ``VisionTransformer``. It patches no module, registers no hook
and never writes into a tensor that was handed out, so every tap is a tensor of its own. In the public code of the
field such in-place additions made "different layers" one tensor.

Nothing is computed that nobody reads: surgery outputs of blocks between a stream's restart and its next tap only, and
in the last block, unless a tap wants more, the ordinary stream's class token only. The class token takes this way
whatever else is wanted, so that its last bits do not depend on the taps beside it.

The work of a walk has named parts (:func:`walk_parts`), which are timed one by one: a walk for several methods tells
what each of them would have paid alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from zsad_bench.contract import Stream, Tap
from zsad_bench.contract.features import tap_name, window_name
from zsad_bench.core.laps import Lap, untimed
from zsad_bench.core.packed import can_pack
from zsad_bench.encoder.blocks import Block, Heads, attend, layer_norm, unsupported_block

# What every walk does: patches, all blocks but the last one, the last one for the class token, its projection.
WALK = "walk"
# The last block's queries of all tokens, its attention for them, and its feed-forward network for them.
LAST_QUERIES, LAST_ATTENTION, LAST_FEED_FORWARD = "last.queries", "last.attention", "last.feed_forward"
# What windows of all sides share.
WINDOWS = "windows"

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
        pack: pack its matrices; None does so where it helps, see :func:`~zsad_bench.core.packed.can_pack`.
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

    CUDA rounds the factors of float32 convolutions to TF32 (10 digits after the point) unless a global switch forbids
    it, those of products it does not; and where kernel and stride are equal the two are one sum.
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


def _surgery_name(attention: tuple[str, ...], block: int) -> str:
    return f"surgery.{''.join(attention)}.{block}"


def _of_last_patches(taps: Iterable[Tap], n_blocks: int) -> list[Tap]:
    """Taps of the ordinary stream's patches in the last block."""
    return [tap for tap in taps if tap.block == n_blocks and tap.stream is None and not tap.class_only]


def _active(taps: Iterable[Tap], block: int) -> set[Stream]:
    """Streams that need a block's surgery output."""
    spans = ((tap, tap.stream) for tap in taps)
    return {stream for tap, stream in spans if stream and _origin(tap, stream) <= block <= tap.block}


def walk_parts(taps: Iterable[Tap], n_blocks: int) -> frozenset[str]:
    """Names of the pieces of work that a walk with these resolved taps consists of."""
    wanted = set(taps)
    patches = _of_last_patches(wanted, n_blocks)
    parts = {WALK, *map(tap_name, wanted)}
    for block in range(1, n_blocks + 1):
        parts |= {_surgery_name(stream.attention, block) for stream in _active(wanted, block)}
    if patches or any("q" in stream.attention for stream in _active(wanted, n_blocks)):
        parts.add(LAST_QUERIES)
    if patches:
        parts.add(LAST_ATTENTION)
    if not all(tap.after_attention for tap in patches):
        parts.add(LAST_FEED_FORWARD)
    return frozenset(parts)


def dense_forward(
    tower: Tower, images: Tensor, taps: Sequence[Tap] = (), lap: Lap = untimed
) -> tuple[Tensor, dict[Tap, Tensor]]:
    """Class token and every tap in one pass.

    Args:
        tower: the image tower.
        images: (B, 3, H, W) normalised pixels.
        taps: resolved taps (positive block numbers).
        lap: hears of each of :func:`walk_parts` when it is done, of some more than once.

    Returns:
        The projected class token (B, D), equal to ``encode_image``, and per tap the tokens (B, 1 + N, C), or (B, 1, C)
        of taps that want the class token only. In a surgery stream the class row is the stream's own, not the ordinary
        class token.

    Raises:
        ValueError: taps outside the tower or before their stream starts.
    """
    wanted = set(taps)
    n_blocks = len(tower.blocks)
    missing = [tap for tap in wanted if tap.block > n_blocks or (tap.stream and _origin(tap, tap.stream) > tap.block)]
    if missing:
        raise ValueError(f"taps outside the tower or before their stream starts: {sorted(map(str, missing))}")
    patches = _of_last_patches(wanted, n_blocks)
    embedding = hidden = tower.embed(images)
    sums: dict[Stream, Tensor] = {}
    taken: dict[Tap, Tensor] = {}

    def take(tokens: Tensor, found: Iterable[Tap]) -> None:
        for tap in found:
            rows = tokens[:, :1].clone() if tap.class_only else tokens
            taken[tap] = tower.finish(rows, tap)
            lap(tap_name(tap))

    def plain(block: int, after_attention: bool, class_only: bool | None = None) -> list[Tap]:
        return [
            tap
            for tap in wanted
            if (tap.block, tap.stream, tap.after_attention) == (block, None, after_attention)
            and class_only in (None, tap.class_only)
        ]

    def surgery(number: int, block: Block, heads: Heads) -> None:
        active = _active(wanted, number)
        lap(WALK)
        outputs = {}
        for kind in sorted({stream.attention for stream in active}):
            outputs[kind] = _surgery(block, heads, kind)
            lap(_surgery_name(kind, number))
        for stream in sorted(active):
            output = outputs[stream.attention]
            done = number - stream.start
            if done == 0:
                sums[stream] = embedding + output if stream.embedding else output
            elif stream.restart and done % stream.restart == 0:
                sums[stream] = output
            else:
                sums[stream] = sums[stream] + output
            lap(_surgery_name(stream.attention, number))
            take(sums[stream], [tap for tap in wanted if (tap.block, tap.stream) == (number, stream)])

    *blocks, last = tower.blocks
    for number, block in enumerate(blocks, start=1):
        heads = block.split(block.joint(hidden))
        surgery(number, block, heads)
        hidden = block.output(attend(*heads), hidden)
        lap(WALK)
        take(hidden, plain(number, after_attention=True))
        hidden = block.feed_forward(hidden)
        lap(WALK)
        take(hidden, plain(number, after_attention=False))

    own = last.class_heads(hidden)
    lap(WALK)
    heads = own
    if LAST_QUERIES in walk_parts(wanted, n_blocks):
        heads = Heads(last.queries(hidden), own.k, own.v)
        lap(LAST_QUERIES)
    surgery(n_blocks, last, heads)
    # Class token and patches apart, so that the class token does not depend on who wants the patches.
    attended = last.output(attend(*own), hidden[:, :1])
    class_row = last.feed_forward(attended)
    lap(WALK)
    take(attended, plain(n_blocks, after_attention=True, class_only=True))
    take(class_row, plain(n_blocks, after_attention=False, class_only=True))
    if patches:
        tokens = last.output(attend(heads.q[:, :, 1:], heads.k, heads.v), hidden[:, 1:])
        lap(LAST_ATTENTION)
        take(torch.cat([attended, tokens], dim=1), plain(n_blocks, after_attention=True, class_only=False))
        if not all(tap.after_attention for tap in patches):
            tokens = last.feed_forward(tokens)
            lap(LAST_FEED_FORWARD)
            take(torch.cat([class_row, tokens], dim=1), plain(n_blocks, after_attention=False, class_only=False))
    class_token = tower.project(class_row[:, 0])
    lap(WALK)
    return class_token, taken


def window_indices(grid: tuple[int, int], side: int) -> Tensor:
    """Patch indices (n_windows, side * side), 0-based and row-major, of all square windows with stride 1."""
    patches = torch.arange(grid[0] * grid[1]).view(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def window_forward(
    tower: Tower, images: Tensor, grid: tuple[int, int], sides: Sequence[int], lap: Lap = untimed
) -> dict[int, Tensor]:
    """Class-token embedding of every window, the other patches dropped from the sequence (WinCLIP, section 4.2).

    Kept patches have their original positions. The sequence is [class; patches of the window], so one window costs
    1 + side * side tokens and all windows of all images form large batches. A token enters the first block as the same
    vector in every window, so that block's projections are computed once a token and gathered.

    ``lap`` hears of what all sides share, and of each side.

    Returns:
        Per side (B, n_windows, D), projected, not normalised.
    """
    tokens = tower.embed(images)
    joint = tower.blocks[0].joint(tokens).flatten(0, 1)
    starts = torch.arange(len(images), device=tokens.device)[:, None, None] * tokens.shape[1]
    tokens = tokens.flatten(0, 1)
    lap(WINDOWS)
    embeddings = {}
    for side in sides:
        indices = window_indices(grid, side).to(tokens.device)
        rows = torch.cat([torch.zeros_like(indices[:, :1]), indices + 1], dim=1)
        sequences = (starts + rows).flatten(0, 1)
        limit = WINDOW_TOKENS.get(tokens.device.type, WINDOW_TOKENS_ELSEWHERE)
        parts = sequences.split(max(1, limit // rows.shape[1]))
        embeddings[side] = torch.cat([_windows(tower, tokens[part], joint[part]) for part in parts])
        embeddings[side] = embeddings[side].unflatten(0, (len(images), -1))
        lap(window_name(side))
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

"""The dense forward: ONE functional walk over the residual stream of a CLIP image tower.

The walk reads the weights of an unmodified open_clip ``VisionTransformer``. It patches no module, registers no hook
and never writes into a tensor that was handed out, so every tap is a tensor of its own. In the public code of the
field such in-place additions made "different layers" one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from zsad_bench.features import Stream, Tap

# Sequences of a few tokens are cheap one by one but not 10 000 at once: this bounds the activations of a window chunk.
WINDOW_TOKENS_PER_CHUNK = 32_768


def unsupported_reason(visual: torch.nn.Module) -> str | None:
    """Why the walk cannot read this image tower, or None if it can."""
    if not isinstance(visual, VisionTransformer):
        return f"its image tower is a {type(visual).__name__}, not open_clip's own ViT"
    if visual.attn_pool is not None or visual.pool_type != "tok":
        return "it pools its tokens instead of using a class token"
    block = visual.transformer.resblocks[0]
    if not isinstance(block, ResidualAttentionBlock) or not isinstance(block.attn, torch.nn.MultiheadAttention):
        return "its blocks are not plain residual attention blocks"
    return None


def embed(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Tokens h_0 = ln_pre([class; patches] + positions): (B, 3, H, W) -> (B, 1 + N, width)."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
    tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    return visual.ln_pre(tokens)


def project(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """``ln_post`` and the visual projection: (..., width) -> (..., D)."""
    tokens = visual.ln_post(tokens)
    return tokens if visual.proj is None else tokens @ visual.proj


def _finish(visual: VisionTransformer, tokens: Tensor, tap: Tap) -> Tensor:
    if tap.projected:
        return project(visual, tokens)
    return visual.ln_post(tokens) if tap.normed else tokens


def _heads(block: ResidualAttentionBlock, normed: Tensor) -> dict[str, Tensor]:
    """Queries, keys and values (B, heads, tokens, d_head) that a block computes from its normalised input."""
    attention = block.attn
    joint = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    split = joint.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
    return {"q": split[0], "k": split[1], "v": split[2]}


def _attend(block: ResidualAttentionBlock, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Output-projected attention (B, tokens, width), with the block's layer scale if it has one."""
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return block.ls_1(block.attn.out_proj(mixed))


def _feed_forward(block: ResidualAttentionBlock, hidden: Tensor) -> Tensor:
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))


def _surgery(block: ResidualAttentionBlock, heads: dict[str, Tensor], attention: tuple[str, ...]) -> Tensor:
    """Self-self attention output of one block: mean over ``attention`` of softmax(z z^T / sqrt(d)) v, projected."""
    outputs = [_attend(block, heads[name], heads[name], heads["v"]) for name in attention]
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(dim=0)


def dense_forward(
    visual: VisionTransformer, images: Tensor, taps: Sequence[Tap] = ()
) -> tuple[Tensor, dict[Tap, Tensor]]:
    """Class token and every tap in one pass.

    Args:
        visual: an open_clip ViT with a class token; its parameters decide dtype and device.
        images: (B, 3, H, W) normalised pixels.
        taps: resolved taps (positive block numbers).

    Returns:
        The projected class token (B, D), equal to ``encode_image``, and per tap the tokens (B, 1 + N, C).
        In a surgery stream the class row is the stream's own, not the ordinary class token.
    """
    embedding = hidden = embed(visual, images)
    wanted = set(taps)
    streams = sorted({tap.stream for tap in wanted if tap.stream is not None})
    last_use = {stream: max(tap.block for tap in wanted if tap.stream == stream) for stream in streams}
    sums: dict[Stream, Tensor] = {}
    taken: dict[Tap, Tensor] = {}

    def take(tokens: Tensor, block: int, stream: Stream | None = None, after_attention: bool = False) -> None:
        for tap in wanted:
            if (tap.block, tap.stream, tap.after_attention) == (block, stream, after_attention):
                taken[tap] = _finish(visual, tokens, tap)

    for number, block in enumerate(visual.transformer.resblocks, start=1):
        heads = _heads(block, block.ln_1(hidden))
        active = [stream for stream in streams if stream.start <= number <= last_use[stream]]
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
        hidden = hidden + _attend(block, heads["q"], heads["k"], heads["v"])
        take(hidden, number, after_attention=True)
        hidden = _feed_forward(block, hidden)
        take(hidden, number)

    missing = wanted - set(taken)
    if missing:
        raise ValueError(f"taps outside the tower or before their stream starts: {sorted(map(str, missing))}")
    return project(visual, hidden[:, 0]), taken


def window_indices(grid: tuple[int, int], side: int) -> Tensor:
    """Patch indices (n_windows, side * side), 0-based and row-major, of all square windows with stride 1."""
    patches = torch.arange(grid[0] * grid[1]).view(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def window_forward(visual: VisionTransformer, images: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Class-token embedding of every window, the other patches dropped from the sequence (WinCLIP, section 4.2).

    Kept patches have their original positions. The sequence is [class; patches of the window], so one window costs
    1 + side * side tokens and all windows of all images form one batch.

    Returns:
        (B, n_windows, D), projected, not normalised.
    """
    tokens = embed(visual, images)
    indices = window_indices(grid, side).to(tokens.device)
    rows = torch.cat([torch.zeros(len(indices), 1, dtype=indices.dtype, device=indices.device), indices + 1], dim=1)
    sequences = tokens[:, rows].flatten(0, 1)
    chunk = max(1, WINDOW_TOKENS_PER_CHUNK // rows.shape[1])
    outputs = [_class_token(visual, part) for part in sequences.split(chunk)]
    return torch.cat(outputs).unflatten(0, (len(images), len(indices)))


def _class_token(visual: VisionTransformer, hidden: Tensor) -> Tensor:
    """Projected class token (n, D) of embedded sequences (n, tokens, width)."""
    for block in visual.transformer.resblocks:
        heads = _heads(block, block.ln_1(hidden))
        hidden = _feed_forward(block, hidden + _attend(block, heads["q"], heads["k"], heads["v"]))
    return project(visual, hidden[:, 0])

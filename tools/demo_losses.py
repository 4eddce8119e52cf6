"""Batches and losses of the demo encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from demo_model import GRID, AuxiliaryHeads, Forward, patchify
from demo_pool import IMAGE_SIZE, Pool
from demo_text import ABNORMAL, DEFECT_PHRASES, NORMAL, CaptionWriter, padded
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from zsad_bench.datasets.demo.procedural.categories import TRAINED_DEFECTS

_GROUPS, _GROUP_PAIRS = 4, 4


@dataclass
class Batch:
    """p pairs = 2 p images, all normal ones first: patches (2p, 196, 192), coverage (p, 196) in [0, 1], bits
    (p, 196, 64) the mask inside each patch, keep (2p, t) or None, source (p,), defects (p, kinds)."""

    patches: Tensor
    coverage: Tensor
    bits: Tensor
    keep: Tensor | None
    source: NDArray[np.int64]
    defects: NDArray[np.bool_]


def draw_batch(pool: Pool, rng: Generator, chosen: NDArray[np.int64], kept: int | None) -> Batch:
    """Pairs number `chosen`, flipped, turned and recoloured at random; both images of a pair in the same way."""
    p = len(chosen)
    pixels = np.empty((2, p, *pool.images.shape[2:]), np.float32)
    masks = np.empty((p, IMAGE_SIZE, IMAGE_SIZE), np.bool_)
    for k, number in enumerate(chosen):
        turns, flip, order = int(rng.integers(4)), rng.random() < 0.5, rng.permutation(3)
        mask = np.unpackbits(pool.masks[number], axis=1).astype(np.bool_)
        views, mask = np.rot90(pool.images[number], turns, (1, 2)), np.rot90(mask, turns)
        pixels[:, k] = (views[:, :, ::-1] if flip else views)[..., order]
        masks[k] = mask[:, ::-1] if flip else mask
    gain = (rng.uniform(0.85, 1.15, (2, p, 1, 1, 1)) * rng.uniform(0.93, 1.07, (1, p, 1, 1, 3)) / 255).astype(
        np.float32
    )
    pixels *= gain
    pixels += rng.uniform(-0.05, 0.05, (2, p, 1, 1, 1)).astype(np.float32)
    pixels = np.clip(pixels, 0, 1, out=pixels).reshape(2 * p, *pixels.shape[2:])
    side = IMAGE_SIZE // GRID
    bits = masks.reshape(p, GRID, side, GRID, side).transpose(0, 1, 3, 2, 4).reshape(p, GRID * GRID, side * side)
    coverage = bits.mean(axis=2, dtype=np.float32)
    keep = None
    if kept is not None:
        keep = torch.from_numpy(_kept_tokens(rng, coverage.reshape(p, GRID, GRID), kept)).repeat(2, 1)
    return Batch(
        patchify(torch.from_numpy(pixels)),
        torch.from_numpy(coverage),
        torch.from_numpy(bits),
        keep,
        pool.source[chosen],
        pool.defects[chosen],
    )


def _kept_tokens(rng: Generator, coverage: NDArray[np.float32], kept: int) -> NDArray[np.int64]:
    """Patch numbers (p, kept): the defect with a margin and smooth random areas, the same for both images of a pair."""
    noise = ndimage.gaussian_filter(rng.standard_normal(coverage.shape), (0, 1.2, 1.2), mode="wrap")
    near = ndimage.maximum_filter(coverage, (1, 3, 3)) > 0
    # A defect larger than the budget must not crowd out its surroundings altogether.
    score = noise + 0.9 * near + 5 * (near & (near.sum((1, 2), keepdims=True) < kept // 2))
    return np.argsort(-score.reshape(len(coverage), -1), axis=1, kind="stable")[:, :kept]


def state_directions(forward: Forward, writer: CaptionWriter, rng: Generator, batch: Batch) -> Tensor:
    """Directions (groups, e) from the mean normal to the mean abnormal text, one per random small prompt ensemble."""
    captions: list[list[int]] = []
    for _ in range(_GROUPS):
        captions += writer.state_group(rng, int(rng.choice(batch.source)), _GROUP_PAIRS)
    texts = forward.texts(torch.from_numpy(padded(captions))).view(_GROUPS, 2, _GROUP_PAIRS, -1)
    means = F.normalize(texts.mean(dim=2), dim=-1)
    return means[:, 1] - means[:, 0]


def caption_loss(
    forward: Forward, writer: CaptionWriter, rng: Generator, batch: Batch, image: Tensor, bias: Tensor
) -> Tensor:
    """Sigmoid loss of all image-caption pairs; a caption fits iff everything it says holds for the image."""
    p = len(batch.source)
    captions, named, state, kind = [], np.zeros(2 * p, bool), np.full(2 * p, -1), np.full(2 * p, -1)
    for k in range(2 * p):
        source, bad = int(batch.source[k % p]), k >= p
        draw = rng.random()
        if draw < 0.15:
            phrase = "{}"
        elif not bad:
            phrase, state[k] = str(rng.choice(NORMAL[1:])), 0
        elif draw < 0.6:
            kind[k] = rng.choice(np.flatnonzero(batch.defects[k - p]))
            phrase, state[k] = str(rng.choice(DEFECT_PHRASES[TRAINED_DEFECTS[kind[k]]])), 1
        else:
            phrase, state[k] = str(rng.choice(ABNORMAL)), 1
        ids, named[k] = writer.caption(rng, source, phrase)
        captions.append(ids)
    texts = forward.texts(torch.from_numpy(padded(captions)))
    sources, bad_image = np.tile(batch.source, 2), np.arange(2 * p) >= p
    has = np.concatenate([np.zeros_like(batch.defects), batch.defects])
    fits = (~named[None, :] | (sources[:, None] == sources[None, :])) & (
        (state[None, :] < 0) | (state == bad_image[:, None])
    )
    fits &= (kind[None, :] < 0) | has[:, np.maximum(kind, 0)]
    target = torch.from_numpy(fits).float()
    logits = forward.model.logit_scale.exp() * image @ texts.T + bias
    balance = ((1 - target).sum() / target.sum().clamp(min=1)).clamp(max=20)
    weight = 1 + (balance - 1) * target
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum() / weight.sum()


def state_loss(scale: Tensor, image: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """BCE of normal (first half) against defective images for all directions, and the accuracy.

    Half the weight of a second term compares the two images of a pair: their scene cancels out, which helps early on.
    """
    logits = scale * image @ directions.T
    target = (torch.arange(len(image)) >= len(image) // 2).float()[:, None].expand_as(logits)
    accuracy = ((logits > 0) == (target > 0.5)).float().mean()
    good, bad = logits.chunk(2)
    return F.binary_cross_entropy_with_logits(logits, target) + 0.5 * F.softplus(good - bad).mean(), accuracy


def dense_loss(scale: Tensor, patches: Tensor, direction: Tensor, target: Tensor) -> Tensor:
    """BCE (defective patches count threefold) plus half a dice loss; patches (n, t, e), target (n, t) in [0, 1]."""
    logits = scale * patches @ direction
    weight = torch.full((), 3.0)
    bce = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    probability = logits.sigmoid()
    dice = 1 - 2 * (probability * target).sum() / ((probability + target).sum() + 1e-6)
    return bce + 0.5 * dice


def auxiliary_losses(heads: AuxiliaryHeads, tokens: Tensor, bits: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """BCE of the mask inside each patch, and of the defect type of each patch.

    tokens (n, t, width); bits (n, t, 64) bool; kinds (n, k) bool. An image with two defects does not say which patch
    shows which, so it counts for the mask only.
    """
    mask_logits, kind_logits = heads(tokens)
    mask = F.binary_cross_entropy_with_logits(mask_logits, bits.float(), pos_weight=torch.tensor(3.0))
    shown = (bits.float().mean(-1, keepdim=True) > 0.1) & kinds[:, None]
    one = (kinds.sum(1) <= 1).float()[:, None, None]
    kind = F.binary_cross_entropy_with_logits(
        kind_logits, shown.float(), weight=one, pos_weight=torch.tensor(5.0), reduction="sum"
    )
    return mask, kind / (one.sum() * kind_logits[0].numel() + 1)


def total_loss(
    forward: Forward, heads: AuxiliaryHeads, writer: CaptionWriter, rng: Generator, batch: Batch, bias: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum and its parts by name."""
    p = len(batch.source)
    # Side by side, the first images are whole pairs. Only these go through the v-v path, costly with all tokens.
    order = torch.stack([torch.arange(p), torch.arange(p) + p], dim=1).flatten()
    dual = p // 2 if batch.keep is None else p
    keep = None if batch.keep is None else batch.keep[order]
    features = forward.images(batch.patches[order], keep, dual)
    back = order.argsort()
    scale = forward.model.logit_scale.exp()
    directions = state_directions(forward, writer, rng, batch)
    target = (batch.coverage / 0.15).clamp(max=1)
    target = torch.cat([torch.zeros_like(target), target])[order]
    if keep is not None:
        target = target.gather(1, keep)
    one = directions[int(rng.integers(len(directions)))]
    captions = caption_loss(forward, writer, rng, batch, features.image[back], bias)
    state, accuracy = state_loss(scale, features.image[back], directions)
    dense = dense_loss(scale, features.patches, one, target)
    assert features.dual is not None
    vv = dense_loss(scale, features.dual, one, target[:dual])
    bits = torch.cat([torch.zeros_like(batch.bits), batch.bits])[order]
    if keep is not None:
        bits = bits.gather(1, keep[..., None].expand(-1, -1, bits.shape[2]))
    kinds = torch.from_numpy(np.concatenate([np.zeros_like(batch.defects), batch.defects]))[order]
    mask, kind = auxiliary_losses(heads, features.tokens, bits, kinds)
    total = 0.5 * captions + state + 2 * dense + vv + 2 * mask + 4 * kind
    parts = {"total": total, "captions": captions, "state": state, "dense": dense, "vv": vv}
    parts |= {"mask": mask, "kind": kind, "accuracy": accuracy}
    return total, {name: float(value.detach()) for name, value in parts.items()}

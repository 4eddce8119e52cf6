"""Mutual scoring over neighbourhoods of several sizes, all from one product per pair of images.

MuSc and FiSeCLIP average patch tokens over r x r neighbourhoods for several r and score every size anew. But a product
of two averages is an average of products: with G = T_i T_j^T the products of all standardised tokens of two images, the
similarity of the r x r averages around patch p of image i and patch q of image j is

    sum of G over both neighbourhoods / (|sum of T_i around p| |sum of T_j around q|).

So the matrix product, which is nearly all the work, is needed once instead of once a size, and the sums over
neighbourhoods are a few additions along the four axes of G. The result is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zsad_bench.toolkit.matching import (
    TABLE,
    aggregate,
    distance_of,
    lowest_mean,
    means_of,
    mutual_scores,
    standardised,
)
from zsad_bench.toolkit.products import Products


def neighbourhood_scores(
    patches: Tensor,
    grid: tuple[int, int],
    sides: Sequence[int],
    interval: Sequence[float],
    penalty: Tensor | None = None,
    convert: Callable[[Tensor], Tensor] = torch.clone,
    factors: torch.dtype = torch.float32,
) -> Tensor:
    """How far every patch is from the other images, as a mean over neighbourhood sides.

    Equal to the mean over ``sides`` of :func:`~zsad_bench.toolkit.matching.mutual_scores` of the
    :func:`~zsad_bench.toolkit.matching.aggregate` features.

    Args:
        patches: (B, N, C) tokens as they come from the encoder, B >= 2.
        grid: (h, w), N = h * w.
        sides: odd sides of neighbourhoods, in patches.
        interval: which of the other images count, see :func:`~zsad_bench.toolkit.matching.ranks`.
        penalty: (B, N) added to the distance of a patch that serves as a reference; infinity excludes it.
        convert: applied to cosine distances before they are averaged, for example
            :func:`~zsad_bench.toolkit.matching.euclidean`.
        factors: type of the factors of the products. With bfloat16 distances are wrong by less than 1 %, and identical
            patches come out near 0, not at 0.

    Returns:
        (B, N).
    """
    count, n_patches = patches.shape[:2]
    at_once = TABLE // (count * count * n_patches)
    scores = []
    if at_once == 0:
        scores += [mutual_scores(aggregate(patches, grid, side), interval, penalty, convert) for side in sides]
    else:
        for group in (sides[start : start + at_once] for start in range(0, len(sides), at_once)):
            tables = _similarities(patches, grid, group, penalty, factors)
            scores += [lowest_mean(convert(distance_of(table)), interval, count - 1) for table in tables]
    return torch.stack(scores).mean(dim=0)


def _similarities(
    patches: Tensor, grid: tuple[int, int], sides: Sequence[int], penalty: Tensor | None, factors: torch.dtype
) -> list[Tensor]:
    """Per side the similarity (B, N, B) of every patch to the nearest one of every image; -inf to its own image."""
    count, n_patches = patches.shape[:2]
    multiply = Products(standardised(patches), factors)
    tokens = multiply.tokens
    # Lengths of the sums, not of the means, because G is summed and not averaged.
    lengths = {side: side * side * means_of(tokens, grid, side).norm(dim=-1) for side in sides}
    inverse = {side: length.clamp(min=1e-12).reciprocal() for side, length in lengths.items()}
    tables = {side: tokens.new_full((count, n_patches, count), -torch.inf) for side in sides}

    for image, others, products in multiply.pairs():
        gram = products.unflatten(1, (*grid, -1)).unflatten(0, grid)
        for side, table in sorted(tables.items(), reverse=True):  # side 1 works in place, so it comes last
            sums = neighbourhood_sums(gram, side).view(n_patches, n_patches, -1)
            similarity = sums.mul_(inverse[side][image][:, None, None]).mul_(inverse[side][others].T)
            to_others = similarity if penalty is None else similarity - 2 * penalty[others].T
            to_image = similarity if penalty is None else similarity - 2 * penalty[image][:, None, None]
            table[image, :, others] = _maximum(to_others)
            table[others, :, image] = to_image.amax(dim=0).T
    return [tables[side] for side in sides]


def neighbourhood_sums(gram: Tensor, side: int) -> Tensor:
    """Sums of G (h, w, h, w, n) over side x side neighbourhoods in both images; nothing lies beyond the border.

    For side 1 this is G itself, not a copy.
    """
    for axis in range(4):
        length = gram.shape[axis]
        sums = gram
        for step in range(1, min(side // 2, length - 1) + 1):
            near, far = gram.narrow(axis, 0, length - step), gram.narrow(axis, step, length - step)
            if step == 1:
                sums = torch.empty_like(gram)
                sums.select(axis, 0).copy_(gram.select(axis, 0))
                torch.add(far, near, out=sums.narrow(axis, 1, length - 1))
            else:
                sums.narrow(axis, step, length - step).add_(near)
            sums.narrow(axis, 0, length - step).add_(far)
        gram = sums
    return gram


def _maximum(table: Tensor) -> Tensor:
    """Maximum over the middle axis of (N, M, n), by halves: much faster on CPUs than a reduction over short rows."""
    while (rows := table.shape[1]) > 1:
        half = rows // 2
        larger = torch.maximum(table[:, :half], table[:, half : 2 * half])
        if rows % 2:
            torch.maximum(larger[:, :1], table[:, -1:], out=larger[:, :1])
        table = larger
    return table[:, 0]

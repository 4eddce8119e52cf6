"""Nearest-patch matching between images: the core that MuSc, FiSeCLIP, Dual-Image and few-shot WinCLIP share.

All features are unit vectors and all distances are cosine distances d(a, b) = (1 - a . b) / 2 in [0, 1]. For unit
vectors the Euclidean distance is 2 sqrt(d), so both order neighbours alike (:func:`euclidean` converts).

The distances of all patches of all images to each other would be 300 GB for 200 images of 37 x 37 patches. They are
never held: similarities are computed block by block and each block is reduced at once to one number per query patch and
reference image. Everything is computed where the features lie; how large a block is there, ``core/devices.py`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.core.devices import blocks_for
from zsad_bench.errors import UserError

# Distances to reference images held at a time (256 MB), the same on every device, because it decides in what type they
# are computed.
TABLE = 1 << 26
# A dot product of unit vectors in float32 is wrong by up to 5e-7: below it two patches count as identical, otherwise
# the square root in the Euclidean distance would blow rounding up to 1e-3.
RESOLUTION = 5e-7


def quarter_depths(n_blocks: int) -> tuple[int, ...]:
    """Blocks at a quarter, half, three quarters and the whole of the depth, 1-based: 3, 6, 9, 12 of 12."""
    return tuple(sorted({max(1, n_blocks * quarter // 4) for quarter in (1, 2, 3, 4)}))


def choose_layers(layers: Sequence[int] | None, n_blocks: int) -> tuple[int, ...]:
    """The 1-based blocks of the key ``layers``; None gives :func:`quarter_depths`.

    Raises:
        UserError: no layer, or one outside the tower.
    """
    if layers is None:
        return quarter_depths(n_blocks)
    if not layers or min(layers) < 1 or max(layers) > n_blocks:
        raise UserError(
            f"method.layers={list(layers)}: name blocks from 1 to {n_blocks}, as the encoder has, or null for "
            f"{list(quarter_depths(n_blocks))}"
        )
    return tuple(layers)


def check_sides(sides: Sequence[int], key: str) -> tuple[int, ...]:
    """Neighbourhood sides in patches, refused with UserError unless all are odd and positive."""
    if not sides or any(side < 1 or side % 2 == 0 for side in sides):
        raise UserError(f"method.{key}={list(sides)}: needs odd numbers of patches, for example [1, 3, 5]")
    return tuple(sides)


def neighbourhood_means(patches: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Local neighbourhood aggregation (LNAMD of MuSc, arXiv 2401.16753) before its L2 normalisation: (B, N, C).

    The tokens of an image are standardised together, one mean and one variance over all patches and channels; every
    patch becomes the mean of the side x side patches around it; zeros beyond the border count.
    """
    return means_of(standardised(patches), grid, side)


def standardised(patches: Tensor) -> Tensor:
    """Tokens (B, N, C) minus the mean over all patches and channels of their image, by the standard deviation."""
    return F.layer_norm(patches, patches.shape[1:])


def means_of(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Every token (B, N, C) as the mean of the side x side tokens around it; zeros beyond the border count."""
    if side == 1:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, grid)
    return F.avg_pool2d(maps, side, stride=1, padding=side // 2).flatten(2).transpose(1, 2)


def aggregate(patches: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Local neighbourhood aggregation, see :func:`neighbourhood_means`: (B, N, C) -> unit vectors (B, N, C)."""
    return F.normalize(neighbourhood_means(patches, grid, side), dim=-1)


def nearest(queries: Tensor, references: Tensor, penalty: Tensor | None = None) -> Tensor:
    """Distance of every query vector to the nearest patch of every reference image.

    Args:
        queries: (..., C) unit vectors.
        references: (R, M, C) unit vectors of R images.
        penalty: (R, M) added to the distance of a reference patch; infinity excludes it.

    Returns:
        (..., R) cosine distances, plus the penalty of the patch that won; infinite where all patches are excluded.
    """
    flat, patches = queries.flatten(0, -2), references.flatten(0, 1).T
    bias = None if penalty is None else -2 * penalty.flatten()
    nearest_similarity = [
        _similarity(rows, patches, bias).unflatten(1, references.shape[:2]).amax(dim=-1)
        for rows in flat.split(max(1, blocks_for(flat.device).similarities // patches.shape[1]))
    ]
    return distance_of(torch.cat(nearest_similarity)).unflatten(0, queries.shape[:-1])


def nearest_mutual(features: Tensor, penalty: Tensor | None = None) -> Tensor:
    """As :func:`nearest` between all images of one set, in half the time: a pair of images is multiplied only once.

    Args:
        features: (B, N, C) unit vectors.
        penalty: (B, N) added to the distance when a patch serves as a reference.

    Returns:
        (B, N, B); an image's distance to itself is infinite.
    """
    count, patches = features.shape[:2]
    similarity = features.new_full((count, patches, count), -torch.inf)
    images_per_block = max(1, blocks_for(features.device).similarities // patches**2)
    for image in range(count - 1):
        for start in range(image + 1, count, images_per_block):
            others = slice(start, min(start + images_per_block, count))
            block = (features[image] @ features[others].flatten(0, 1).T).unflatten(1, (-1, patches))
            if penalty is None:
                similarity[image][:, others] = block.amax(dim=2)
                similarity[others, :, image] = block.amax(dim=0)
            else:
                similarity[image][:, others] = (block - 2 * penalty[others]).amax(dim=2)
                similarity[others, :, image] = (block - 2 * penalty[image][:, None, None]).amax(dim=0)
    return distance_of(similarity)


def _similarity(rows: Tensor, patches: Tensor, bias: Tensor | None) -> Tensor:
    return rows @ patches if bias is None else torch.addmm(bias, rows, patches)


def distance_of(similarity: Tensor) -> Tensor:
    """Cosine distance (1 - s) / 2 of similarities, 0 where it is below what float32 resolves."""
    distance = (1 - similarity) / 2
    return torch.where(distance < RESOLUTION, 0.0, distance)


def euclidean(distance: Tensor) -> Tensor:
    """Euclidean distance of unit vectors from their cosine distance: |a - b| = sqrt(2 - 2 a . b) = 2 sqrt(d)."""
    return 2 * distance.sqrt()


def check_interval(interval: Sequence[float], key: str) -> tuple[float, float]:
    """Bounds for :func:`ranks`, refused with UserError unless there are two, not negative and not descending."""
    low, high = interval if len(interval) == 2 else (0.0, -1.0)
    if low < 0 or high <= 0 or (low > high and not (low < 1 <= high)):
        raise UserError(f"method.{key}={list(interval)}: needs a lower and a higher bound, for example [0.0, 0.3]")
    return low, high


def ranks(interval: Sequence[float], n_references: int) -> tuple[int, int]:
    """First rank and end rank (exclusive) of the reference images that count, nearest first.

    As in MuSc's code, a bound below 1 is a share of the references, rounded down, and any other a number of images: 0.3
    of 7 references is 2, and 1.0 is ONE image. Unlike there, at least one image always counts.
    """
    low, high = (int(bound * n_references) if bound < 1 else int(bound) for bound in interval)
    low = min(low, n_references - 1)
    return low, min(max(high, low + 1), n_references)


def lowest_mean(distances: Tensor, interval: Sequence[float], n_references: int) -> Tensor:
    """Mean over the nearest reference images: (..., R) -> (...), of which ``n_references`` have finite distances."""
    low, high = ranks(interval, n_references)
    nearest_ones = distances.topk(high, dim=-1, largest=False, sorted=low > 0).values
    return nearest_ones[..., low:].mean(dim=-1)


def mutual_scores(
    features: Tensor,
    interval: Sequence[float],
    penalty: Tensor | None = None,
    convert: Callable[[Tensor], Tensor] = torch.clone,
) -> Tensor:
    """Mutual scoring of MuSc (MSM, section 3.2) in cosine distances: how far a patch is from the other images.

    Args:
        features: (B, N, C) unit vectors, B >= 2; every image is compared with the B - 1 others.
        interval: which of the others count, see :func:`ranks`.
        penalty: (B, N), see :func:`nearest`.
        convert: applied to the distances before they are averaged.

    Returns:
        (B, N).
    """
    count, patches = features.shape[:2]
    if count * count * patches <= TABLE:
        return lowest_mean(convert(nearest_mutual(features, penalty)), interval, count - 1)
    rows = []
    for image in range(count):
        distances = nearest(features[image], features, penalty)
        distances[:, image] = torch.inf
        rows.append(lowest_mean(convert(distances), interval, count - 1))
    return torch.stack(rows)

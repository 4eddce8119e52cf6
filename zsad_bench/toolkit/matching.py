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
from zsad_bench.toolkit.products import Products

# Distances to reference images held at a time (256 MB), the same on every device, because it decides in what type they
# are computed.
TABLE = 1 << 26
# A dot product of unit vectors in float32 is wrong by up to 5e-7: below it two patches count as identical, otherwise
# the square root in the Euclidean distance would blow rounding up to 1e-3.
RESOLUTION = 5e-7


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

    Example:
        Two query patches; one reference image has both of them, the other only the first and its opposite:

        >>> queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> references = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-1.0, 0.0]]])
        >>> nearest(queries, references)
        tensor([[0.0000, 0.0000],
                [0.0000, 0.5000]])
    """
    flat, patches = queries.flatten(0, -2), references.flatten(0, 1).T
    bias = None if penalty is None else -2 * penalty.flatten()
    nearest_similarity = [
        _similarity(rows, patches, bias).unflatten(1, references.shape[:2]).amax(dim=-1)
        for rows in flat.split(max(1, blocks_for(flat.device).similarities // patches.shape[1]))
    ]
    return distance_of(torch.cat(nearest_similarity)).reshape(*queries.shape[:-1], len(references))


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
    """Euclidean distance of unit vectors from their cosine distance: |a - b| = sqrt(2 - 2 a . b) = 2 sqrt(d).

    Example:
        >>> euclidean(torch.tensor([0.0, 0.25, 1.0]))
        tensor([0., 1., 2.])
    """
    return 2 * distance.sqrt()


def ranks(interval: Sequence[float], n_references: int) -> tuple[int, int]:
    """First rank and end rank (exclusive) of the reference images that count, nearest first.

    As in MuSc's code, a bound below 1 is a share of the references, rounded down, and any other a number of images: 0.3
    of 7 references is 2, and 1.0 is ONE image. Unlike there, at least one image always counts.

    Example:
        >>> ranks([0.0, 0.3], 7), ranks([0.0, 1.0], 7), ranks([0.0, 0.3], 2)
        ((0, 2), (0, 1), (0, 1))
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


def counterparts_median(features: Tensor, values: Tensor, factors: torch.dtype = torch.float32) -> Tensor:
    """What the other images of a set say about a patch: (B, N) from values (B, N) of all patches, B >= 2.

    In every other image the patch with the most similar features is looked up; the result is the (lower) median over
    the other images of the values found there. A pair of images is multiplied only once.

    Args:
        features: (B, N, C) unit vectors.
        values: (B, N), any number per patch.
        factors: type of the factors of the products.
    """
    count, patches = features.shape[:2]
    found = values.new_empty((count, patches, count - 1))  # of the others, in their order
    for image, others, products in Products(features, factors).pairs():
        similarity = products.unflatten(1, (patches, -1))
        there = similarity.argmax(dim=1)  # (N, others): their patch for each of mine
        found[image, :, others.start - 1 : others.stop - 1] = values[others].T.gather(0, there)
        found[others, :, image] = values[image][similarity.argmax(dim=0).T]
    return found.median(dim=-1).values

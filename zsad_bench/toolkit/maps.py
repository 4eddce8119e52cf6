"""From patch grids to anomaly maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Rows that one product of :func:`smooth` gives. A Gaussian's matrix is zero away from its diagonal: short pieces skip
# most of the zeros, and longer ones are better products.
_ROWS = 128
# Image side that :func:`smooth_by_side` relates to, the input of the encoder that most papers use.
SIGMA_SIDE = 240


def upsample(grids: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear upsampling of patch-level maps: (B, h, w) -> (B, H, W).

    Args:
        grids: one value per patch.
        size: (H, W) of the result in pixels.
        align_corners: put the outer patch centres on the image border (True) or half a patch inside it (False). The
            reference codes differ: WinCLIP and SDP use False, AnoVL, MuSc and SDP+ use True.

    Example:
        >>> grid = torch.tensor([[[0.0, 1.0]]])  # one image of 1 x 2 patches
        >>> upsample(grid, (1, 4))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
        >>> upsample(grid, (1, 4), align_corners=True)
        tensor([[[0.0000, 0.3333, 0.6667, 1.0000]]])
    """
    return F.interpolate(grids[:, None], size=size, mode="bilinear", align_corners=align_corners)[:, 0]


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of maps (B, H, W) where they lie; ``sigma`` in pixels, 0 leaves them as they are.

    Truncated at 4 sigma, borders reflected (d c b a | a b c d | d c b a): scipy's defaults, which reference codes use.
    The values are those of ``scipy.ndimage.gaussian_filter`` on float32 maps up to rounding, about 1e-6 of the largest.

    Example:
        >>> smooth(torch.tensor([[[0.0, 0.0, 1000.0, 0.0, 0.0]]]), sigma=0.5).round()
        tensor([[[  0., 106., 787., 106.,   0.]]])
    """
    if sigma <= 0:
        return maps
    return _smooth_axis(_smooth_axis(maps, sigma, -2), sigma, -1)


def smooth_by_side(maps: Tensor, sigma: float) -> Tensor:
    """As :func:`smooth`, with ``sigma`` in pixels of maps of height 240: it means the same at every resolution."""
    return smooth(maps, sigma * maps.shape[1] / SIGMA_SIDE)


def _smooth_axis(maps: Tensor, sigma: float, axis: int) -> Tensor:
    """Maps (B, H, W), smoothed along one axis: products with the rows of a matrix, zeros apart."""
    size, radius = maps.shape[axis], _radius(sigma)
    matrix = torch.from_numpy(_gaussian(size, sigma)).to(maps)
    parts = []
    for start in range(0, size, _ROWS):
        stop = min(start + _ROWS, size)
        first, end = max(0, start - radius), min(size, stop + radius)
        weights, near = matrix[start:stop, first:end], maps.narrow(axis, first, end - first)
        parts.append(weights @ near if axis == -2 else near @ weights.T)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)


def _radius(sigma: float) -> int:
    return int(4.0 * sigma + 0.5)


@lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float) -> NDArray[np.float32]:
    """Weights (size, size) of every pixel for every smoothed one; pixels beyond the border are those they mirror."""
    steps = np.arange(-_radius(sigma), _radius(sigma) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for step, weight in zip(steps, weights, strict=True):
        place = (rows + step) % (2 * size)  # mirrored maps repeat after twice their size, however far the sum reaches
        matrix[rows, np.where(place < size, place, 2 * size - 1 - place)] += weight
    return matrix.astype(np.float32)


def resize_maps(maps: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Anomaly maps (n, H, W) at ``size`` x ``size`` pixels, bilinear; unchanged if they have that size."""
    if maps.shape[1:] == (size, size):
        return maps
    return upsample(torch.from_numpy(maps), (size, size)).numpy()


def quantiles(maps: Sequence[NDArray[np.float32]], shares: Sequence[float]) -> tuple[float, ...]:
    """Quantiles of all values of maps (H, W), linear between two ranks; ``shares`` in [0, 1].

    The maps are read twice, one by one. Their values are never together in memory: as integers in the same order they
    are counted by their upper 16 bits, then, where a quantile lies, by their lower ones.
    """
    upper = np.zeros(1 << 16, np.int64)
    for scores in maps:
        upper += np.bincount((_ordered(scores) >> 16).ravel(), minlength=upper.size)
    places = [share * (int(upper.sum()) - 1) for share in shares]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    ends = np.cumsum(upper)
    bins = np.searchsorted(ends, ranks, side="right")
    lower = {int(one): np.zeros(1 << 16, np.int64) for one in bins}
    for scores in maps:
        keys = _ordered(scores)
        for one in lower:
            lower[one] += np.bincount(keys[keys >> 16 == one] & 0xFFFF, minlength=1 << 16)
    value = {}
    for rank, one in zip(ranks, bins.tolist(), strict=True):
        below = rank - int(ends[one] - upper[one])
        value[rank] = _from_ordered((one << 16) | int(np.searchsorted(np.cumsum(lower[one]), below, side="right")))
    found = []
    for place in places:
        low, high = value[math.floor(place)], value[math.ceil(place)]
        found.append(low + (high - low) * (place - math.floor(place)))
    return tuple(found)


def _ordered(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers that are ordered as the float32 numbers are: the sign bit flipped, and all bits of negative numbers."""
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32)
    flipped: NDArray[np.uint32] = np.negative(bits >> 31) | np.uint32(1 << 31)
    return bits ^ flipped


def _from_ordered(key: int) -> float:
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))

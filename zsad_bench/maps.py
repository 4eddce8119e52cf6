"""From patch grids to anomaly maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor


def upsample(grids: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear upsampling of patch-level maps: (B, h, w) -> (B, H, W).

    Args:
        grids: one value per patch.
        size: (H, W) of the result in pixels.
        align_corners: put the outer patch centres on the image border (True) or half a patch inside it (False). The
            reference codes differ: WinCLIP and SDP use False, AnoVL, MuSc and SDP+ use True.
    """
    return F.interpolate(grids[:, None], size=size, mode="bilinear", align_corners=align_corners)[:, 0]


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of maps (B, H, W); ``sigma`` in pixels, 0 leaves them as they are.

    Truncated at 4 sigma, borders reflected (d c b a | a b c d | d c b a): scipy's defaults, which reference codes use.
    """
    if sigma <= 0:
        return maps
    values = maps.detach().cpu().numpy()
    return torch.from_numpy(gaussian_filter(values, (0, sigma, sigma), mode="reflect", truncate=4.0)).to(maps)


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
        for one, counts in lower.items():
            counts += np.bincount(keys[keys >> 16 == one] & 0xFFFF, minlength=counts.size)
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
    return bits ^ (np.negative(bits >> 31) | np.uint32(1 << 31))


def _from_ordered(key: int) -> float:
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))

"""From patch grids to anomaly maps."""

from __future__ import annotations

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

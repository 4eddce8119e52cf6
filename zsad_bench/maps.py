"""From patch grids to anomaly maps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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


def resize_maps(maps: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Anomaly maps (n, H, W) at ``size`` x ``size`` pixels, bilinear; unchanged if they have that size."""
    if maps.shape[1:] == (size, size):
        return maps
    return upsample(torch.from_numpy(maps), (size, size)).numpy()

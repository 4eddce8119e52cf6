"""Pixels as CLIP's image towers take them."""

from __future__ import annotations

import torch
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: Tensor, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, ``(x / 255 - mean) / std`` per channel."""
    scaled = pixels.permute(0, 3, 1, 2).float() / 255
    centre, width = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (mean, std))
    return (scaled - centre) / width

"""Pseudo anomalies with masks, pasted into normalised images (after DRAEM, Zavrtanik et al., ICCV 2021).

A thresholded Perlin noise gives a ragged region; there the image is blended with foreign texture. DRAEM takes texture
from a photo collection; here it comes from another place of the image itself, mirrored and recoloured, or is noise, so
that nothing but the image is needed.

What is random is drawn by numpy on the host, so that it does not depend on the device; images of pixels are made on the
device of the picture.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Share of the image that a pseudo anomaly may cover, and how opaque it is.
COVERAGE = (0.01, 0.12)
OPACITY = (0.4, 1.0)
# Gradient cells a side of the noise that gives a region its edge, and of the noise that serves as texture.
EDGE_CELLS = (2, 8)
TEXTURE_CELLS = (4, 32)


def perlin(size: tuple[int, int], cells: int, random: np.random.Generator, device: torch.device) -> Tensor:
    """Perlin noise (H, W) of ``cells`` x ``cells`` gradient cells, about -1 to 1."""
    angles = random.random((cells + 1, cells + 1), np.float32) * np.float32(2 * np.pi)
    slopes = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=-1)).to(device)
    y, x = torch.meshgrid(*(torch.arange(side, device=device) * cells / side for side in size), indexing="ij")
    row, column = y.long(), x.long()
    down, right = y - row, x - column

    def corner(below: int, beside: int) -> Tensor:
        slope = slopes[row + below, column + beside]
        return slope[..., 0] * (down - below) + slope[..., 1] * (right - beside)

    fade_down, fade_right = (part**3 * (part * (part * 6 - 15) + 10) for part in (down, right))
    top = torch.lerp(corner(0, 0), corner(0, 1), fade_right)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade_right)
    return 2**0.5 * torch.lerp(top, bottom, fade_down)


def noise_mask(size: tuple[int, int], random: np.random.Generator, device: torch.device) -> Tensor:
    """A ragged region (H, W), 0 or 1: the highest values of Perlin noise inside a random ellipse."""
    top, left, radius = random.random(3) * (0.7, 0.7, 0.3) + 0.15
    share, cells = random.uniform(*COVERAGE), int(random.integers(*EDGE_CELLS, endpoint=True))
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side, device=device) for side in size), indexing="ij")
    distance = ((y - top) ** 2 + (x - left) ** 2).sqrt()
    height = perlin(size, cells, random, device) - 2 * (distance / radius - 1).clamp(min=0)
    covered = max(1, round(share * height.numel()))
    return (height >= height.flatten().topk(covered).values[-1]).to(height)


def texture(image: Tensor, random: np.random.Generator) -> Tensor:
    """Foreign texture (3, H, W): the image itself, shifted, mirrored and recoloured, or smooth coloured noise."""
    size = image.shape[1:]

    def noise(*shape: int) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape, np.float32)).to(image)

    colour = noise(3, 1, 1) * image.std()
    if random.random() < 0.5:
        shifts = [int(random.integers(side // 4, 3 * side // 4, endpoint=True)) for side in size]
        return image.roll(shifts, dims=(1, 2)).flip(2) * 0.8 + colour
    cells = int(random.integers(*TEXTURE_CELLS, endpoint=True))
    smooth = F.interpolate(noise(1, 3, cells, cells), size=size, mode="bicubic", align_corners=False)[0]
    return image.mean(dim=(1, 2), keepdim=True) + 0.5 * smooth * image.std() + 1.5 * colour


def paste(image: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A copy of a normalised image (3, H, W) with one pseudo anomaly, and its mask (H, W) of 0 and 1.

    Args:
        image: on any device; the results lie there.
        random: draws what is random, see :meth:`zsad_bench.contract.Method.random`.
    """
    mask = noise_mask((image.shape[1], image.shape[2]), random, image.device)
    opacity = random.uniform(*OPACITY)
    blend = (1 - opacity) * image + opacity * texture(image, random)
    return torch.where(mask > 0, blend, image), mask

"""Pseudo anomalies with masks, pasted into normalised images (after DRAEM, Zavrtanik et al., ICCV 2021).

A thresholded Perlin noise gives a ragged region; there the image is blended with foreign texture. DRAEM takes texture
from a photo collection; here it comes from another place of the image itself, mirrored and recoloured, or is noise, so
that nothing but the image is needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Share of the image that a pseudo anomaly may cover, and how opaque it is.
COVERAGE = (0.01, 0.12)
OPACITY = (0.4, 1.0)


def perlin(size: tuple[int, int], cells: int, generator: torch.Generator) -> Tensor:
    """Perlin noise (H, W) of ``cells`` x ``cells`` gradient cells, about -1 to 1."""
    angles = torch.rand(cells + 1, cells + 1, generator=generator) * 2 * torch.pi
    slopes = torch.stack([angles.cos(), angles.sin()], dim=-1)
    y, x = torch.meshgrid(*(torch.arange(side) * cells / side for side in size), indexing="ij")
    row, column = y.long(), x.long()
    inside = torch.stack([y - row, x - column], dim=-1)

    def corner(down: int, right: int) -> Tensor:
        offset = inside - torch.tensor([down, right])
        return (slopes[row + down, column + right] * offset).sum(dim=-1)

    fade = inside**3 * (inside * (inside * 6 - 15) + 10)
    top = torch.lerp(corner(0, 0), corner(0, 1), fade[..., 1])
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade[..., 1])
    return 2**0.5 * torch.lerp(top, bottom, fade[..., 0])


def noise_mask(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A ragged region (H, W), 0 or 1: the highest values of Perlin noise inside a random ellipse."""
    draw = torch.rand(4, generator=generator)
    cells = int(torch.randint(2, 9, (1,), generator=generator))
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
    radius = 0.15 + 0.3 * draw[2]
    distance = ((y - 0.15 - 0.7 * draw[0]) ** 2 + (x - 0.15 - 0.7 * draw[1]) ** 2).sqrt()
    height = perlin(size, cells, generator) - 2 * (distance / radius - 1).clamp(min=0)
    share = COVERAGE[0] + (COVERAGE[1] - COVERAGE[0]) * draw[3]
    covered = max(1, round(float(share) * height.numel()))
    return (height >= height.flatten().topk(covered).values[-1]).to(height)


def texture(image: Tensor, generator: torch.Generator) -> Tensor:
    """Foreign texture (3, H, W): the image itself, shifted, mirrored and recoloured, or smooth coloured noise."""
    size = image.shape[1:]
    colour = torch.randn(3, 1, 1, generator=generator) * image.std()
    if torch.rand((), generator=generator) < 0.5:
        shifts = [int(torch.randint(side // 4, 3 * side // 4 + 1, (1,), generator=generator)) for side in size]
        return image.roll(shifts, dims=(1, 2)).flip(2) * 0.8 + colour
    cells = int(torch.randint(4, 33, (1,), generator=generator))
    coarse = torch.randn(1, 3, cells, cells, generator=generator)
    smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0]
    return image.mean(dim=(1, 2), keepdim=True) + 0.5 * smooth * image.std() + 1.5 * colour


def paste(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A copy of a normalised image (3, H, W) with one pseudo anomaly, and its mask (H, W) of 0 and 1."""
    mask = noise_mask((image.shape[1], image.shape[2]), generator)
    opacity = OPACITY[0] + (OPACITY[1] - OPACITY[0]) * torch.rand((), generator=generator)
    blend = (1 - opacity) * image + opacity * texture(image.cpu(), generator).to(image)
    return torch.where(mask.to(image) > 0, blend, image), mask

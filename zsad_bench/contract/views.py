"""Augmented views of a normalised image: 22 fixed, label-preserving changes of the whole picture.

They are the views over which AnoVL (arXiv 2308.15939, official code) averages its image score. Every view acts on
pixels that are already normalised, keeps the image size, and is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(pixels: Tensor, theta: Tensor) -> Tensor:
    """Resample images by an affine map of normalised coordinates.

    Args:
        pixels: (B, 3, H, W).
        theta: (2, 3) float32; output pixel (x, y) takes the value of the input at ``theta @ (x, y, 1)``, where -1 and
            1 are the centres of the outer pixels.

    Returns:
        (B, 3, H, W), bilinear; beyond the border the image is mirrored.
    """
    x, y = (torch.linspace(-1, 1, side).double() for side in reversed(pixels.shape[2:]))
    # Coordinates are rounded to float32 twice, as in the recorded run of the official code. A float32 matrix product
    # (``affine_grid``) rounds in an order of its own on every kind of processor, which moves values by up to 5e-5.
    rows = [(row[0] * x + row[2]).float().double()[None, :] + row[1] * y[:, None] for row in theta.double()]
    # Float64 stays on the CPU: not every device has it.
    grid = torch.stack(rows, dim=-1).float().to(pixels)[None].expand(len(pixels), -1, -1, -1)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def rotation(angle: float) -> Tensor:
    """Sampling map (2, 3) of a rotation about the image centre by ``angle`` radians; angle > 0 is counter-clockwise."""
    turn = torch.tensor(angle, dtype=torch.float32)
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros(())
    return torch.stack([cos, -sin, zero, sin, cos, zero]).view(2, 3)


def shift(x: float, y: float) -> Tensor:
    """Sampling map (2, 3) of a shift to the left by x and up by y, in normalised coordinates: 2 is the whole side."""
    return torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y]])


def grey(pixels: Tensor) -> Tensor:
    """Luma 0.299 R + 0.587 G + 0.114 B of the *normalised* values, in all three channels."""
    red, green, blue = pixels.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None].expand_as(pixels)


# Corners in the order of the official code, by which the numbers of the views are known.
_CORNERS = ((1, 1), (-1, 1), (-1, -1), (1, -1))

VIEWS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda pixels: pixels,
    *(partial(warp, theta=rotation(step * math.pi / 16)) for step in (-4, -3, -2, -1, 1, 2, 3, 4)),
    *(partial(warp, theta=shift(length * x, length * y)) for length in (0.2, 0.1) for x, y in _CORNERS),
    partial(torch.flip, dims=(-1,)),
    grey,
    *(partial(torch.rot90, k=quarters, dims=(-2, -1)) for quarters in (1, 2, 3)),
)
"""View 0 is the image itself, 1-8 are rotations, 9-16 shifts, 17 the mirror image, 18 grey, 19-21 quarter turns."""


def augmented_views(pixels: Tensor, views: Sequence[int] = range(len(VIEWS))) -> Tensor:
    """Views of square images.

    Args:
        pixels: (B, 3, S, S) normalised images; square, because a quarter turn keeps the shape of a square only.
        views: numbers of views in 0 to 21, see :data:`VIEWS`.

    Returns:
        (B, V, 3, S, S) in the order of ``views``.

    Raises:
        ValueError: images that are not square.
        IndexError: no view of that number.
    """
    if pixels.shape[-1] != pixels.shape[-2]:
        raise ValueError(f"augmented_views needs square images, got {tuple(pixels.shape)}")
    return torch.stack([VIEWS[view](pixels) for view in views], dim=1)

"""Random scalar fields on the pixel grid, in float64: value noise, cells, shading. None depends on the image size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float64]

_LATTICE = 64


@lru_cache(maxsize=512)
def _spline_basis(size: int, cells: float) -> Field:
    """Cubic B-spline weights (size, knots) which spread `cells` random knots over `size` pixels."""
    position = (np.arange(size) + 0.5) / size * cells
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((size, int(np.ceil(cells)) + 3))
    for k in range(4):
        basis[np.arange(size), first + k] += weights[:, k]
    return basis


def noise(rng: Generator, size: int, cells: float, cells_y: float | None = None) -> Field:
    """Smooth noise (size, size) of mean 0 and about unit variance with `cells` bumps along an image side."""
    bx, by = _spline_basis(size, cells), _spline_basis(size, cells if cells_y is None else cells_y)
    return by @ rng.standard_normal((by.shape[1], bx.shape[1])) @ bx.T / 0.48


def fractal(rng: Generator, size: int, cells: float, octaves: int = 4, decay: float = 0.55) -> Field:
    """Sum of `octaves` noises, each twice as fine and `decay` times as strong; about unit variance."""
    total, norm = np.zeros((size, size)), 0.0
    for k in range(octaves):
        # Whole cell numbers keep the cache of spline bases small.
        total += decay**k * noise(rng, size, round(cells * 2**k))
        norm += decay ** (2 * k)
    return total / np.sqrt(norm)


def noise_at(rng: Generator, x: Field, y: Field) -> Field:
    """Value noise in [-1, 1] at free coordinates (one bump per unit), so that it can be turned and stretched."""
    lattice = rng.uniform(-1.0, 1.0, (_LATTICE, _LATTICE))
    points = []
    for axis in (y, x):
        whole = np.floor(axis)
        t = axis - whole
        points.append(whole + t * t * (3 - 2 * t))
    return scipy.ndimage.map_coordinates(lattice, np.stack(points), order=1, prefilter=False, mode="grid-wrap")


def cellular(rng: Generator, x: Field, y: Field, jitter: float = 0.9) -> tuple[Field, Field, Field]:
    """Distances to the nearest and second nearest of the jittered points (one per unit square), and a value per cell.

    The value lies in [0, 1]; the first two outputs are in units of a cell, non-negative.
    """
    ax, ay = rng.uniform(0.5 - jitter / 2, 0.5 + jitter / 2, (2, _LATTICE, _LATTICE))
    value_lattice = rng.random((_LATTICE, _LATTICE))
    ix, iy = np.floor(x).astype(int), np.floor(y).astype(int)
    first, second = np.full(x.shape, 9.0), np.full(x.shape, 9.0)
    value = np.zeros(x.shape)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            jx, jy = (ix + dx) % _LATTICE, (iy + dy) % _LATTICE
            distance = (ix + dx + ax[jy, jx] - x) ** 2 + (iy + dy + ay[jy, jx] - y) ** 2
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            value = np.where(nearer, value_lattice[jy, jx], value)
            first = np.where(nearer, distance, first)
    return np.sqrt(first), np.sqrt(second), value


def smoothstep(low: float, high: float, x: Field) -> Field:
    """0 below `low`, 1 above `high`, smooth in between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def slope_shading(height: Field, light: tuple[float, float, float], pixel: float) -> tuple[Field, Field]:
    """Lambert factor (1 on flat ground) and the cosine to the half vector, of a relief `height` in scene units."""
    gy, gx = np.gradient(height, pixel)
    norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
    lx, ly, lz = light
    lambert = (lz - gx * lx - gy * ly) * norm / lz
    half = np.array([lx, ly, lz + 1.0])
    half /= np.sqrt((half**2).sum())
    glance = np.clip((half[2] - gx * half[0] - gy * half[1]) * norm, 0.0, 1.0)
    return np.clip(lambert, 0.2, 1.9), glance

"""A category of drawn masks and anomaly maps, shapes of their scores, and how far histograms may be off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

TOLERANCE = 3e-4
"""What docs/statistics.md promises."""


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda maps: maps,
    "sharp": lambda maps: np.exp(8 * maps),
    "narrow": lambda maps: 0.5 + maps / 2000,
    "coarse": lambda maps: np.round(maps, 1),
    "constant": lambda maps: np.full_like(maps, 0.5),
    "outlier": lambda maps: np.where(np.arange(maps.size).reshape(maps.shape) == 7, 400.0, maps),
}


def drawn_category(n: int = 20, size: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks and smooth maps with fine noise; two images in three are anomalous."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    masks, maps = np.zeros((n, size, size), bool), np.empty((n, size, size))
    for index in range(n):
        for _ in range(index % 3):
            cy, cx = random.uniform(0.1, 0.9, 2) * size
            masks[index] |= (y - cy) ** 2 + (x - cx) ** 2 <= random.uniform(2, 9) ** 2
        maps[index] = 3 * gaussian_filter(random.normal(size=(size, size)), 4) + 0.3 * random.random((size, size))
    return masks, maps + 0.5 * masks

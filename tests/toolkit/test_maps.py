"""Smoothing: the values of scipy's filter, on any size of map and of Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from zsad_bench.toolkit.maps import smooth, smooth_by_side


def scipys(maps: torch.Tensor, sigma: float) -> np.ndarray:
    return gaussian_filter(maps.numpy(), (0, sigma, sigma), mode="reflect", truncate=4.0)


@pytest.mark.parametrize("shape", [(2, 240, 240), (1, 128, 129), (3, 257, 50), (1, 518, 518)])
@pytest.mark.parametrize("sigma", [0.5, 4.0, 8.0, 17.25])
def test_values_are_scipys(shape: tuple[int, int, int], sigma: float) -> None:
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    ours = smooth(maps, sigma)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours, scipys(maps, sigma), atol=1e-6)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    sigma=st.floats(0.05, 60),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_maps_smaller_than_the_gaussian(height: int, width: int, sigma: float, seed: int) -> None:
    """A radius of many times the map's side mirrors the map again and again, as scipy does."""
    maps = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(smooth(maps, sigma), scipys(maps, sigma), atol=3e-6)


def test_large_values_keep_their_digits() -> None:
    maps = 1e4 + torch.rand(1, 60, 60, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(smooth(maps, 4.0), scipys(maps, 4.0), rtol=1e-6)


def test_no_smoothing_changes_nothing() -> None:
    maps = torch.rand(1, 8, 8)
    assert smooth(maps, 0.0) is maps


def test_a_map_does_not_depend_on_its_neighbours() -> None:
    maps = torch.rand(5, 240, 240, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(smooth(maps, 4.0)[3:4], smooth(maps[3:4], 4.0), atol=1e-6, rtol=0)


def test_smoothing_by_side_means_the_same_at_every_resolution() -> None:
    maps = torch.rand(2, 60, 60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smooth_by_side(maps, 8.0), smooth(maps, 2.0), rtol=0, atol=0)

"""Mutual scores over several neighbourhoods, against the scores of every neighbourhood alone."""

from __future__ import annotations

import pytest
import torch

from zsad_bench.core.devices import Blocks
from zsad_bench.toolkit import matching, mutual, products
from zsad_bench.toolkit.matching import aggregate, euclidean, mutual_scores
from zsad_bench.toolkit.mutual import neighbourhood_scores, neighbourhood_sums

GRID = (4, 5)


def tokens(count: int = 6, channels: int = 32, seed: int = 0) -> torch.Tensor:
    """Images that resemble each other, with channels of very different sizes as CLIP has them."""
    generator = torch.Generator().manual_seed(seed)
    common, own = (torch.randn(n, GRID[0] * GRID[1], channels, generator=generator) for n in (1, count))
    return (common + 0.3 * own) * torch.logspace(-1, 1, channels)


def one_by_one(
    patches: torch.Tensor, sides: tuple[int, ...], interval: tuple[float, float], penalty: torch.Tensor | None = None
) -> torch.Tensor:
    scores = [mutual_scores(aggregate(patches, GRID, side), interval, penalty, euclidean) for side in sides]
    return torch.stack(scores).mean(dim=0)


@pytest.mark.parametrize("side", [1, 3, 5, 9, 11])
def test_sums_are_those_of_a_loop(side: int) -> None:
    gram = torch.randn(*GRID, *GRID, 2, generator=torch.Generator().manual_seed(1))
    reach, expected = side // 2, torch.zeros_like(gram)
    for a, b, c, d in torch.cartesian_prod(*(torch.arange(n) for n in (*GRID, *GRID))).tolist():
        rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (a, b))
        others = tuple(slice(max(0, at - reach), at + reach + 1) for at in (c, d))
        expected[a, b, c, d] = gram[rows, columns, others[0], others[1]].sum(dim=(0, 1, 2, 3))
    torch.testing.assert_close(neighbourhood_sums(gram, side), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 900, 1 << 19])
@pytest.mark.parametrize("penalised", [False, True])
def test_equal_to_every_side_alone(monkeypatch: pytest.MonkeyPatch, at_once: int, penalised: bool) -> None:
    """For blocks of one image, of two and of all."""
    monkeypatch.setattr(products, "blocks_for", lambda _: Blocks(similarities=1, products=at_once))
    patches = tokens()
    penalty = torch.rand(patches.shape[:2], generator=torch.Generator().manual_seed(3)) if penalised else None
    found = neighbourhood_scores(patches, GRID, (1, 3, 5), (0.2, 0.7), penalty, euclidean)
    torch.testing.assert_close(found, one_by_one(patches, (1, 3, 5), (0.2, 0.7), penalty), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sides_at_once", [0, 1, 2])
def test_many_images_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch, sides_at_once: int) -> None:
    patches = tokens()
    whole = neighbourhood_scores(patches, GRID, (1, 3, 5), (0.0, 0.5), convert=euclidean)
    monkeypatch.setattr(mutual, "TABLE", sides_at_once * 6 * 6 * 20)
    monkeypatch.setattr(matching, "TABLE", 0)
    parts = neighbourhood_scores(patches, GRID, (1, 3, 5), (0.0, 0.5), convert=euclidean)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_bfloat16_keeps_small_distances() -> None:
    """Rounding similarities to bfloat16 would be wrong by a tenth here: distances are about 0.01."""
    patches = tokens(channels=256)
    exact = one_by_one(patches, (1, 3, 5), (0.0, 0.5))
    rounded = neighbourhood_scores(patches, GRID, (1, 3, 5), (0.0, 0.5), convert=euclidean, factors=torch.bfloat16)
    assert exact.max() < 0.5
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0, rtol=0.01)


def test_identical_images_have_distance_zero() -> None:
    same = tokens(1, 300).expand(4, -1, -1)
    assert neighbourhood_scores(same, GRID, (1, 3, 5), (0.0, 0.3), convert=euclidean).max() == 0
    low = neighbourhood_scores(same, GRID, (1, 3, 5), (0.0, 0.3), convert=euclidean, factors=torch.bfloat16)
    assert low.max() < 0.05

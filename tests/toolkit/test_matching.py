"""The matching core against brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zsad_bench.core.devices import Blocks
from zsad_bench.toolkit import matching
from zsad_bench.toolkit.matching import aggregate, euclidean, mutual_scores, nearest, nearest_mutual, ranks


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def brute_force(queries: torch.Tensor, references: torch.Tensor, penalty: torch.Tensor | None = None) -> torch.Tensor:
    """The whole cube, in float64, from differences of vectors."""
    a, b = queries.double(), references.double()
    cube = (a[:, None, None] - b[None]).square().sum(dim=-1) / 4
    return (cube if penalty is None else cube + penalty.double()).amin(dim=-1)


@pytest.mark.parametrize("block", [1, 37, 1 << 22])
def test_nearest_equals_brute_force_for_any_block(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(matching, "blocks_for", lambda _: Blocks(similarities=block, products=1))
    queries, references = unit(7, 8), unit(3, 5, 8, seed=1)
    penalty = torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(nearest(queries, references).double(), brute_force(queries, references))
    found = nearest(queries, references, penalty).double()
    torch.testing.assert_close(found, brute_force(queries, references, penalty))
    assert nearest(queries.view(7, 1, 8), references).shape == (7, 1, 3)


@pytest.mark.parametrize("block", [1, 60, 1 << 22])
@pytest.mark.parametrize("penalised", [False, True])
def test_mutual_equals_one_sided(monkeypatch: pytest.MonkeyPatch, block: int, penalised: bool) -> None:
    monkeypatch.setattr(matching, "blocks_for", lambda _: Blocks(similarities=block, products=1))
    features = unit(5, 4, 8)
    penalty = torch.rand(5, 4, generator=torch.Generator().manual_seed(3)) if penalised else None
    mutual, expected = nearest_mutual(features, penalty), nearest(features, features, penalty)
    others = ~torch.eye(5, dtype=torch.bool)[:, None].expand(5, 4, 5)
    torch.testing.assert_close(mutual[others], expected[others])
    assert torch.isinf(mutual[~others]).all()


@pytest.mark.parametrize("penalised", [False, True])
def test_scores_do_not_depend_on_the_table_limit(monkeypatch: pytest.MonkeyPatch, penalised: bool) -> None:
    features = unit(6, 4, 8)
    penalty = torch.rand(6, 4, generator=torch.Generator().manual_seed(3)) if penalised else None
    whole = mutual_scores(features, (0.0, 0.5), penalty)
    monkeypatch.setattr(matching, "TABLE", 0)
    torch.testing.assert_close(mutual_scores(features, (0.0, 0.5), penalty), whole)


def test_excluded_patches_never_win() -> None:
    references = unit(1, 3, 8)
    penalty = torch.tensor([[torch.inf, 0.0, 0.0]])
    assert nearest(references[0, :1], references).item() == 0
    assert nearest(references[0, :1], references, penalty).item() > 0.01


def test_identical_patches_have_distance_zero() -> None:
    """Rounding of a float32 product is not blown up by the square root."""
    features = unit(1, 50, 300).expand(4, -1, -1)
    assert mutual_scores(features, (0.0, 0.3), convert=euclidean).abs().max() == 0


def test_euclidean() -> None:
    a, b = unit(4, 8), unit(4, 8, seed=1)
    torch.testing.assert_close(euclidean((1 - (a * b).sum(dim=-1)) / 2), (a - b).norm(dim=-1))


def test_ranks_are_those_of_the_code() -> None:
    assert ranks((0.0, 0.3), 7) == (0, 2)
    assert ranks((0.0, 0.3), 79) == (0, 23)
    assert ranks((0.15, 0.6), 7) == (1, 4)
    assert ranks((1, 3), 7) == (1, 3)
    assert ranks((0.0, 1.0), 7) == (0, 1)  # one image, not all
    for few in (1, 2, 3):
        assert ranks((0.0, 0.3), few) == (0, 1)  # the code gives NaN
    assert ranks((5, 9), 3) == (2, 3)


def test_mutual_scores_by_hand() -> None:
    """Two images: the distance to the one other. Three: to the nearer one."""
    angles = torch.tensor([0.0, 0.5, 1.5])
    features = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None]
    chord = 2 * (torch.tensor([0.5, 0.5, 1.0]) / 2).sin()
    torch.testing.assert_close(mutual_scores(features, (0.0, 0.3), convert=euclidean)[:, 0], chord)
    torch.testing.assert_close(mutual_scores(features[:2], (0.0, 0.3), convert=euclidean)[:, 0], chord[:2])


def test_aggregate_counts_zeros_beyond_the_border() -> None:
    patches = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    standard = F.layer_norm(patches, (12, 5)).view(2, 3, 4, 5)
    corner = standard[:, :2, :2].sum(dim=(1, 2)) / 9
    torch.testing.assert_close(aggregate(patches, (3, 4), 3)[:, 0], F.normalize(corner, dim=-1))
    torch.testing.assert_close(aggregate(patches, (3, 4), 1), F.normalize(standard.flatten(1, 2), dim=-1))

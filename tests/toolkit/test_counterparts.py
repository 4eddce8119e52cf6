"""Looking up similar patches of other images, against brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zsad_bench.core.devices import Blocks
from zsad_bench.toolkit import products
from zsad_bench.toolkit.matching import counterparts_median


def examples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    features = F.normalize(torch.randn(count, 9, 8, generator=generator), dim=-1)
    return features, torch.rand(count, 9, generator=generator)


def brute_force(features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    rows = []
    for image in range(len(features)):
        others = [other for other in range(len(features)) if other != image]
        found = [values[other][(features[image] @ features[other].T).argmax(dim=1)] for other in others]
        rows.append(torch.stack(found).sort(dim=0).values[(len(others) - 1) // 2])  # the lower one in the middle
    return torch.stack(rows)


@pytest.mark.parametrize("count", [2, 5, 6])
@pytest.mark.parametrize("block", [1, 3 * 81, 1 << 22])
def test_the_most_similar_patch_of_every_other_image(monkeypatch: pytest.MonkeyPatch, block: int, count: int) -> None:
    monkeypatch.setattr(products, "blocks_for", lambda _: Blocks(similarities=1, products=block))
    features, values = examples(count)
    torch.testing.assert_close(counterparts_median(features, values), brute_force(features, values))


def test_bfloat16_factors_find_the_same_patches_where_they_are_clear() -> None:
    features, values = examples(5)
    rounded = features.bfloat16().float()
    assert torch.equal(counterparts_median(features, values, torch.bfloat16), brute_force(rounded, values))

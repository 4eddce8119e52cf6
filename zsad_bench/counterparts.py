"""What the most similar patches of other images say about a patch."""

from __future__ import annotations

import torch
from torch import Tensor

from zsad_bench.products import Products


def counterparts_median(features: Tensor, values: Tensor, factors: torch.dtype = torch.float32) -> Tensor:
    """What the other images of a set say about a patch: (B, N) from values (B, N) of all patches, B >= 2.

    In every other image the patch with the most similar features is looked up; the result is the (lower) median over
    the other images of the values found there. A pair of images is multiplied only once.

    Args:
        features: (B, N, C) unit vectors.
        values: (B, N), any number per patch.
        factors: type of the factors of the products.
    """
    count, patches = features.shape[:2]
    found = values.new_empty((count, patches, count - 1))  # of the others, in their order
    for image, others, products in Products(features, factors).pairs():
        similarity = products.unflatten(1, (patches, -1))
        there = similarity.argmax(dim=1)  # (N, others): their patch for each of mine
        found[image, :, others.start - 1 : others.stop - 1] = values[others].T.gather(0, there)
        found[others, :, image] = values[image][similarity.argmax(dim=0).T]
    return found.median(dim=-1).values

"""How abnormal text finds an embedding.

``embeddings`` are (..., D), not normalised. ``text`` holds unit vectors of the normal and the abnormal state, (2, D) as
:meth:`zsad_bench.contract.TextFeatures.vectors` gives it, or (..., 2, D) where images have vectors of their own.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosines(embeddings: Tensor, text: Tensor) -> Tensor:
    """Cosines (..., 2) with the normal and the abnormal text vector."""
    return F.normalize(embeddings, dim=-1) @ text.transpose(-1, -2)


def log_odds(embeddings: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Log-odds (...) of the abnormal state: the difference of the cosines over the temperature."""
    found = cosines(embeddings, text)
    return (found[..., 1] - found[..., 0]) / temperature


def abnormal_probability(embeddings: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Probability (...) of the abnormal state, CLIP's softmax over both cosines."""
    return (cosines(embeddings, text) / temperature).softmax(dim=-1)[..., 1]

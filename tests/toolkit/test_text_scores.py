"""Scores by text against their formulas."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from zsad_bench.toolkit.text_scores import abnormal_probability, cosines, log_odds


def test_formulas() -> None:
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(3, 5, 8, generator=random)
    text = F.normalize(torch.randn(2, 8, generator=random), dim=-1)
    normal, abnormal = (F.cosine_similarity(embeddings, vector, dim=-1) for vector in text)
    torch.testing.assert_close(cosines(embeddings, text), torch.stack([normal, abnormal], dim=-1))
    torch.testing.assert_close(log_odds(embeddings, text, 0.5), 2 * (abnormal - normal))
    probability = abnormal_probability(7 * embeddings, text, 0.5)
    torch.testing.assert_close(probability, (2 * (abnormal - normal)).sigmoid())


def test_every_image_with_text_of_its_own() -> None:
    random = torch.Generator().manual_seed(1)
    embeddings, text = torch.randn(3, 5, 8, generator=random), torch.randn(3, 2, 8, generator=random)
    together = log_odds(embeddings, text, 0.1)
    for image in range(3):
        torch.testing.assert_close(together[image], log_odds(embeddings[image], text[image], 0.1))

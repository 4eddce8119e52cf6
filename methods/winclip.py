"""WinCLIP, zero-shot (Jeong et al., CVPR 2023, arXiv 2303.14814).

1. Compositional prompt ensemble (section 4.1): text vectors t_normal and t_abnormal.
2. Window features (section 4.2): every k x k window of patches passes through the image tower alone, with its class
   token: f_w. The whole image gives f.
3. Scores (eq. 1): s(f) = softmax([f . t_normal, f . t_abnormal] / temperature)[abnormal].
4. Harmonic aggregation (eq. 4): every patch takes the harmonic mean of the scores of the windows that cover it,
   M_k(i) = n_i / sum_{w contains i} 1 / s_w; a patch is anomalous only if all its windows say so.
5. Map: harmonic mean over the scales k and, as a constant further scale, the image score:
   M(i) = 3 / (1 / M_2(i) + 1 / M_3(i) + 1 / s(f)). The image score is s(f).

The paper gives no temperature and no code. Four public re-implementations disagree; ``docs/methods/winclip.md`` lists
how. One of them (caoyunkang/WinClip) averages normality instead, M(i) = 1 - harmonic mean of 1 - s, so that a patch is
anomalous if ONE of its windows says so, and takes the maximum of the map as image score: ``evidence`` and
``image_score``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.dense import window_indices
from zsad_bench.errors import UserError
from zsad_bench.features import FeatureBatch, FeatureRequest
from zsad_bench.maps import upsample
from zsad_bench.method import Method, Prediction, Setting
from zsad_bench.prompts import TextFeatures

Evidence = Literal["anomaly", "normality"]
ImageScore = Literal["text", "map"]
PromptAverage = Literal["unit", "raw"]


class WinCLIP(Method):
    """Zero-shot WinCLIP.

    Args:
        temperature: divides cosines before the softmax; > 0.
        windows: side lengths of the windows in patches.
        prompt_average: ``unit`` or ``raw`` overrides the ensemble's own rule; None keeps it.
        image_term: whether the image score enters the map as a constant scale.
        evidence: ``anomaly`` (step 4), or ``normality``: one minus the harmonic mean of the normal probabilities.
        image_score: ``text`` (step 5), or ``map``, the maximum of the map.
        reference_quirks: with ``evidence=normality`` the map is halved, because that code fuses the text map with
            itself as if it were a second map.
    """

    setting: ClassVar[Setting] = "single"

    def __init__(
        self,
        *,
        name: str = "winclip",
        variant: str = "paper",
        prompts: str = "winclip",
        prompt_average: PromptAverage | None = None,
        temperature: float = 0.07,
        windows: Sequence[int] = (2, 3),
        image_term: bool = True,
        evidence: Evidence = "anomaly",
        image_score: ImageScore = "text",
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(name=name, variant=variant, prompts=prompts, reference_quirks=reference_quirks)
        for key, choice, choices in (
            ("evidence", evidence, get_args(Evidence)),
            ("image_score", image_score, get_args(ImageScore)),
        ):
            if choice not in choices:
                raise UserError(f"method.{key}={choice}: choose {' or '.join(choices)}")
        if temperature <= 0:
            raise UserError(f"method.temperature={temperature}: must be above 0")
        if not windows or min(windows) < 1:
            raise UserError(f"method.windows={list(windows)}: needs at least one side length of 1 or more patches")
        self.prompt_average = prompt_average
        self.temperature = temperature
        self.windows = tuple(windows)
        self.image_term = image_term
        self.evidence = evidence
        self.image_score = image_score

    def request(self) -> FeatureRequest:
        """Window embeddings of every scale."""
        if max(self.windows) > min(self.encoder.grid):
            raise UserError(
                f"method.windows={list(self.windows)}: larger than the encoder's grid of {self.encoder.grid} patches"
            )
        return FeatureRequest(windows=self.windows)

    def prepare(self, text: TextFeatures | None) -> None:
        """Text vectors of the category."""
        assert text is not None
        self.text = text.vectors(self.prompt_average)
        self.coverage = {side: self._coverage(side) for side in self.windows}

    def _coverage(self, side: int) -> Tensor:
        """(n_windows, N) matrix, 1 where a window covers a patch."""
        rows, columns = self.encoder.grid
        return F.one_hot(window_indices(self.encoder.grid, side), rows * columns).sum(dim=1).double()

    def score(self, embeddings: Tensor) -> Tensor:
        """Eq. 1: abnormal probability (...) in (0, 1) of embeddings (..., D)."""
        logits = F.normalize(embeddings, dim=-1) @ self.text.T / self.temperature
        return logits.softmax(dim=-1)[..., 1]

    def aggregate(self, scores: Tensor, side: int) -> Tensor:
        """Eq. 4: window scores (B, n_windows) -> harmonic mean per patch (B, N)."""
        coverage = self.coverage[side]
        return coverage.sum(dim=0) / (scores.double().reciprocal() @ coverage)

    def patch_scores(self, batch: FeatureBatch) -> Tensor:
        """Harmonic mean over scales: (B, h, w) in (0, 1)."""

        def evidence(embeddings: Tensor) -> Tensor:
            scores = self.score(embeddings).double()
            return scores if self.evidence == "anomaly" else 1 - scores

        scales = [self.aggregate(evidence(batch.windows[side]), side) for side in self.windows]
        if self.image_term:
            scales.append(evidence(batch.class_tokens)[:, None].expand_as(scales[0]))
        mean = len(scales) / torch.stack([scale.reciprocal() for scale in scales]).sum(dim=0)
        if self.evidence == "normality":
            mean = 1 - mean
        return mean.float().unflatten(1, batch.grid)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Image scores and the harmonic map."""
        maps = upsample(self.patch_scores(batch), batch.image_size)
        if self.reference_quirks and self.evidence == "normality":
            maps = maps / 2
        return Prediction(maps.amax(dim=(1, 2)) if self.image_score == "map" else self.score(batch.class_tokens), maps)

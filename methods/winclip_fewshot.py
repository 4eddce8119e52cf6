"""WinCLIP+, the few-normal-shot form of WinCLIP (Jeong et al., CVPR 2023, arXiv 2303.14814, section 4.3).

1. References: k normal images of the category. Their window embeddings of every scale and their patch tokens are kept.
2. Reference association: v(f; R) = min_{r in R} (1 - cos(f, r)) / 2, of every window against all reference windows of
   its scale, and of every patch token of the last block (before ``ln_post`` and the projection) against all reference
   patches.
3. Few-shot map: window distances become patch distances by the harmonic mean over covering windows (eq. 4 of the
   paper); the arithmetic mean over scales is F = (F_2 + F_3 + F_patch) / 3.
4. Map: mean of zero-shot WinCLIP's language-guided map M and F. Image score: (s(f) + max_i F(i)) / 2.

``fusion`` says how M and F meet: ``mean`` stays in [0, 1] (as in anomalib), ``sum`` is twice that (as in zqhang's
code). The ranking is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.errors import UserError
from zsad_bench.features import FeatureBatch, FeatureRequest, Tap
from zsad_bench.maps import upsample
from zsad_bench.matching import nearest
from zsad_bench.method import Prediction, Setting
from zsad_bench.prompts import TextFeatures

from .winclip import WinCLIP

# A window that equals a reference window has distance 0, and a harmonic mean with a 0 in it is 0: this gives that
# without dividing by 0.
SMALLEST = 1e-12


class WinCLIPFewShot(WinCLIP):
    """WinCLIP with ``k_shot`` normal references from the train split, drawn by the job's seed.

    Args:
        k_shot: reference images per category, 1 or more; the paper reports 1, 2 and 4.
        patch_term: whether patch tokens are associated besides windows.
        fusion: ``mean`` or ``sum`` of the language-guided and the few-shot map.
        prompts, prompt_average, temperature, windows, image_term: see :class:`~zsad_bench.methods.winclip.WinCLIP`.
    """

    setting: ClassVar[Setting] = "few_shot"

    def __init__(
        self,
        *,
        name: str = "winclip_fewshot",
        variant: str = "paper",
        k_shot: int = 1,
        prompts: str = "winclip",
        prompt_average: str | None = None,
        temperature: float = 0.07,
        windows: Sequence[int] = (2, 3),
        image_term: bool = True,
        patch_term: bool = True,
        fusion: str = "mean",
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(
            name=name,
            variant=variant,
            prompts=prompts,
            prompt_average=prompt_average,
            temperature=temperature,
            windows=windows,
            image_term=image_term,
            reference_quirks=reference_quirks,
        )
        if k_shot < 1:
            raise UserError(f"method.k_shot={k_shot}: must be 1 or more; without references use method=winclip")
        if fusion not in ("mean", "sum"):
            raise UserError(f"method.fusion={fusion}: choose mean or sum")
        self.k_shot = k_shot
        self.patch_term = patch_term
        self.fusion = fusion
        self.tap = Tap(-1)

    def request(self) -> FeatureRequest:
        """Window embeddings and, for the patch term, unprojected tokens of the last block."""
        return FeatureRequest(taps=(self.tap,) if self.patch_term else (), windows=super().request().windows)

    def prepare(self, text: TextFeatures | None) -> None:
        """Text vectors of the category; the references of the category before are forgotten."""
        super().prepare(text)
        self.references: dict[int, Tensor] = {}

    def take_references(self, references: FeatureBatch) -> None:
        """Keep the unit vectors of all references as one gallery (1, n, C) per scale."""
        self.references = {scale: vectors.flatten(0, 1)[None] for scale, vectors in self._vectors(references).items()}

    def _vectors(self, batch: FeatureBatch) -> dict[int, Tensor]:
        """Unit vectors (B, n, C) per scale: window sides, and 0 for patch tokens."""
        vectors = {side: F.normalize(batch.windows[side], dim=-1) for side in self.windows}
        return {**vectors, 0: F.normalize(batch.patches(self.tap), dim=-1)} if self.patch_term else vectors

    def associate(self, batch: FeatureBatch) -> dict[int, Tensor]:
        """Step 2: distances (B, n) in [0, 1] to the nearest reference vector, per scale; 0 is the patch scale."""
        return {
            scale: nearest(vectors, self.references[scale]).squeeze(-1)
            for scale, vectors in self._vectors(batch).items()
        }

    def few_shot_map(self, batch: FeatureBatch) -> Tensor:
        """Step 3: F (B, h, w) in [0, 1]."""
        scales = [
            self.aggregate(distances.clamp(min=SMALLEST), side) if side else distances.double()
            for side, distances in self.associate(batch).items()
        ]
        return torch.stack(scales).mean(dim=0).float().unflatten(1, batch.grid)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Step 4."""
        few_shot = self.few_shot_map(batch)
        total = self.patch_scores(batch) + few_shot
        if self.fusion == "mean":
            total = total / 2
        scores = (self.score(batch.class_tokens) + few_shot.amax(dim=(1, 2))) / 2
        return Prediction(scores, upsample(total, batch.image_size))

"""WinCLIP+, the few-normal-shot form of WinCLIP (Jeong et al., CVPR 2023, arXiv 2303.14814, section 4.3).

1. References: k normal images of the category. Their window embeddings of every scale and their patch tokens are kept.
2. Reference association: v(f; R) = min_{r in R} (1 - cos(f, r)) / 2, of every window against all reference windows of
   its scale, and of every patch token of the last block against all reference patches.
3. Few-shot map: window distances become patch distances by the harmonic mean over covering windows (eq. 4 of the
   paper); the arithmetic mean over scales is F = (F_2 + F_3 + F_patch) / 3.
4. Map: mean of zero-shot WinCLIP's language-guided map M and F. Image score: (s(f) + max_i F(i)) / 2.

``fusion`` says how M and F meet: ``mean`` stays in [0, 1] (as in anomalib), ``sum`` is twice that (as in zqhang's
code, with the same ranking), ``harmonic`` is 1 / (1 / M + 1 / F) (caoyunkang's code), 0 where one of them is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Prediction, Setting, Tap, TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.matching import nearest

from .winclip import Evidence, ImageScore, PromptAverage, WinCLIP, log_mean_over_windows

# The scales of galleries besides window sides.
PATCHES, IMAGE = 0, -1

FurtherScale = Literal["patch", "patch_normed", "image", "none"]
WindowMean = Literal["harmonic", "arithmetic"]
Fusion = Literal["mean", "sum", "harmonic"]


def harmonic_sum(first: Tensor, second: Tensor) -> Tensor:
    """1 / (1 / a + 1 / b) of tensors of one shape that are 0 or more; its limit 0 where one of them is 0."""
    small, large = torch.minimum(first, second), torch.maximum(first, second)
    return small / (1 + small / large.clamp(min=torch.finfo(large.dtype).tiny))


_FUSIONS: dict[Fusion, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda language, few_shot: (language + few_shot) / 2,
    "sum": lambda language, few_shot: language + few_shot,
    "harmonic": harmonic_sum,
}


class WinCLIPFewShot(WinCLIP):
    """WinCLIP with ``k_shot`` normal references from the train split, drawn by the job's seed.

    Args:
        k_shot: reference images per category, 1 or more; the paper reports 1, 2 and 4.
        further_scale: associated besides windows: ``patch`` tokens of the last block as they are, ``patch_normed``
            after ``ln_post`` (anomalib), the whole ``image`` (caoyunkang's code), or ``none``.
        window_mean: ``harmonic`` (step 3) or ``arithmetic`` (caoyunkang's code) mean over covering windows.
        fusion: ``mean``, ``sum`` or ``harmonic`` of the language-guided and the few-shot map.
        reference_quirks: with ``further_scale=image`` that code moves on to the gallery of the next scale one window
            too late: the first window of a scale, and the whole image, meet the gallery of the scale before.
        prompts, prompt_average, temperature, windows, image_term, evidence, image_score: see
            :class:`~zsad_bench.methods.winclip.WinCLIP`.
    """

    setting: ClassVar[Setting] = "few_shot"

    def __init__(
        self,
        *,
        name: str = "winclip_fewshot",
        variant: str = "paper",
        k_shot: int = 1,
        prompts: str = "winclip",
        prompt_average: PromptAverage | None = None,
        temperature: float = 0.07,
        windows: Sequence[int] = (2, 3),
        image_term: bool = True,
        further_scale: FurtherScale = "patch",
        window_mean: WindowMean = "harmonic",
        fusion: Fusion = "mean",
        evidence: Evidence = "anomaly",
        image_score: ImageScore = "text",
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
            evidence=evidence,
            image_score=image_score,
            reference_quirks=reference_quirks,
        )
        if k_shot < 1:
            raise UserError(f"method.k_shot={k_shot}: must be 1 or more; without references use method=winclip")
        for key, choice, choices in (
            ("further_scale", further_scale, get_args(FurtherScale)),
            ("window_mean", window_mean, get_args(WindowMean)),
            ("fusion", fusion, get_args(Fusion)),
        ):
            if choice not in choices:
                raise UserError(f"method.{key}={choice}: choose {', '.join(choices)}")
        self.k_shot = k_shot
        self.further_scale = further_scale
        self.window_mean = window_mean
        self.fusion = fusion
        self.tap = Tap(-1, normed=further_scale == "patch_normed")

    def request(self) -> FeatureRequest:
        """Window embeddings and, for a patch scale, unprojected tokens of the last block."""
        patches = (self.tap,) if self.further_scale.startswith("patch") else ()
        return FeatureRequest(taps=patches, windows=super().request().windows)

    def prepare(self, text: TextFeatures | None) -> None:
        """Text vectors of the category; the references of the category before are forgotten."""
        super().prepare(text)
        self.references: dict[int, Tensor] = {}

    def take_references(self, references: FeatureBatch) -> None:
        """Keep the unit vectors of all references as one gallery (1, n, C) per scale."""
        self.references = {scale: vectors.flatten(0, 1)[None] for scale, vectors in self._vectors(references).items()}

    def _vectors(self, batch: FeatureBatch) -> dict[int, Tensor]:
        """Unit vectors (B, n, C) per scale: window sides, then ``PATCHES`` or ``IMAGE``."""
        vectors = {side: batch.windows[side] for side in self.windows}
        if self.further_scale.startswith("patch"):
            vectors[PATCHES] = batch.patches(self.tap)
        elif self.further_scale == "image":
            vectors[IMAGE] = batch.class_tokens[:, None]
        return {scale: F.normalize(found, dim=-1) for scale, found in vectors.items()}

    def associate(self, batch: FeatureBatch) -> dict[int, Tensor]:
        """Step 2: distances (B, n) in [0, 1] to the nearest reference vector, per scale as in ``references``."""
        vectors = self._vectors(batch)
        distances = {scale: nearest(own, self.references[scale]).squeeze(-1) for scale, own in vectors.items()}
        if self.reference_quirks and self.further_scale == "image":
            scales = list(vectors)
            for before, scale in pairwise(scales):
                distances[scale][:, :1] = nearest(vectors[scale][:, :1], self.references[before]).squeeze(-1)
        return distances

    def few_shot_map(self, batch: FeatureBatch) -> Tensor:
        """Step 3: F (B, h, w) in [0, 1]."""

        def per_patch(distances: Tensor, scale: int) -> Tensor:
            if scale == PATCHES:
                return distances
            if scale == IMAGE:
                return distances.expand(-1, batch.grid[0] * batch.grid[1])
            if self.window_mean == "harmonic":
                return self.aggregate(distances, scale)
            return log_mean_over_windows(distances.log(), batch.grid, scale).exp()

        scales = [per_patch(distances, scale) for scale, distances in self.associate(batch).items()]
        return torch.stack(scales).mean(dim=0).unflatten(1, batch.grid)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Step 4."""
        few_shot = self.few_shot_map(batch)
        maps = upsample(_FUSIONS[self.fusion](self.patch_scores(batch), few_shot), batch.image_size)
        if self.image_score == "map":
            return Prediction(maps.amax(dim=(1, 2)), maps)
        return Prediction((self.score(batch.class_tokens) + few_shot.amax(dim=(1, 2))) / 2, maps)

"""WinCLIP+, the few-normal-shot form of WinCLIP (Jeong et al., CVPR 2023, arXiv 2303.14814, section 4.3).

1. References: k normal images of the category. Their window embeddings of every scale and their patch tokens are kept.
2. Reference association: v(f; R) = min_{r in R} (1 - cos(f, r)) / 2, of every window against all reference windows of
   its scale, and of every patch token of the last block against all reference patches.
3. Few-shot map: window distances become patch distances by the harmonic mean over covering windows (eq. 4 of the
   paper); the arithmetic mean over scales is F = (F_2 + F_3 + F_patch) / 3.
4. Map: mean of zero-shot WinCLIP's language-guided map M and F. Image score: (s(f) + max_i F(i)) / 2.

The defaults are the paper's. Public codes do otherwise, and each has a YAML; what its keys do stands at the end of this
file:

- anomalib takes patch tokens after ``ln_post`` (``further_scale=patch_normed``);
- zqhang/Accurate-WinCLIP-pytorch adds the maps up (``fusion=sum``): twice the mean, with the same ranking;
- caoyunkang/WinClip associates the whole image instead of patches (``further_scale=image``), averages windows
  arithmetically (``window_mean=arithmetic``), joins the maps by 1 / (1 / M + 1 / F) (``fusion=harmonic``), takes the
  map's maximum as image score (``image_score=map``), and mixes up galleries (``reference_quirks``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import Advice, FeatureBatch, FeatureRequest, Prediction, Setting, Tap, TextFeatures
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.matching import nearest
from zsad_bench.toolkit.settings import PositiveInt

from .winclip import WinCLIP, log_mean_over_windows

# The scale beside the window sides.
FURTHER = 0
Scales = dict[int, Tensor]


@dataclass(kw_only=True, eq=False)
class WinCLIPFewShot(WinCLIP):
    """WinCLIP with ``k_shot`` normal references from the train split, drawn by the job's seed."""

    setting: ClassVar[Setting] = "few_shot"
    name: str = "winclip_fewshot"
    k_shot: Annotated[PositiveInt, Advice("without references use method=winclip")] = 1  # 1, 2 and 4 in the paper
    further_scale: Literal["patch", "patch_normed", "image", "none"] = "patch"  # associated besides windows
    window_mean: Literal["harmonic", "arithmetic"] = "harmonic"  # over the windows that cover a patch
    fusion: Literal["mean", "sum", "harmonic"] = "mean"  # of the language-guided and the few-shot map

    def take_references(self, references: FeatureBatch) -> None:
        """Step 1: the unit vectors of all references as one gallery (1, n, C) per scale."""
        galleries = {scale: vectors.flatten(0, 1)[None] for scale, vectors in self._vectors(references).items()}
        self.references: Scales = galleries

    def prepare(self, text: TextFeatures | None) -> None:
        """Text vectors of the category; the references of the category before are forgotten."""
        super().prepare(text)
        self.references = {}

    def request(self) -> FeatureRequest:
        """Window embeddings and, for a patch scale, unprojected tokens of the last block."""
        patches = (self.tap,) if self.further_scale.startswith("patch") else ()
        return FeatureRequest(taps=patches, windows=super().request().windows)

    @property
    def tap(self) -> Tap:
        """Patch tokens that are associated."""
        return Tap(-1, normed=self.further_scale == "patch_normed")

    def _vectors(self, batch: FeatureBatch) -> Scales:
        """Unit vectors (B, n, C) per scale: window sides, then ``FURTHER``."""
        vectors = {side: batch.windows[side] for side in self.windows}
        if self.further_scale == "image":
            vectors[FURTHER] = batch.class_tokens[:, None]
        elif self.further_scale != "none":
            vectors[FURTHER] = batch.patches(self.tap)
        return {scale: F.normalize(found, dim=-1) for scale, found in vectors.items()}

    def associate(self, batch: FeatureBatch) -> Scales:
        """Step 2: distances (B, n) in [0, 1] to the nearest reference vector, per scale as in ``references``."""
        vectors = self._vectors(batch)
        distances = {scale: nearest(own, self.references[scale]).squeeze(-1) for scale, own in vectors.items()}
        if self.reference_quirks and self.further_scale == "image":
            mix_up_galleries(distances, vectors, self.references)
        return distances

    def few_shot_map(self, batch: FeatureBatch) -> Tensor:
        """Step 3: F (B, h, w) in [0, 1]."""
        mean = {"harmonic": self.aggregate, "arithmetic": self.arithmetic_mean}[self.window_mean]
        n_patches = batch.grid[0] * batch.grid[1]
        scales = [
            distances.expand(-1, n_patches) if scale == FURTHER else mean(distances, scale)
            for scale, distances in self.associate(batch).items()
        ]
        return torch.stack(scales).mean(dim=0).unflatten(1, batch.grid)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Step 4."""
        few_shot = self.few_shot_map(batch)
        maps = upsample(FUSIONS[self.fusion](self.patch_scores(batch), few_shot), batch.image_size)
        if self.image_score == "map":
            return Prediction(maps.amax(dim=(1, 2)), maps)
        return Prediction((self.score(batch.class_tokens) + few_shot.amax(dim=(1, 2))) / 2, maps)

    def arithmetic_mean(self, distances: Tensor, side: int) -> Tensor:
        """Caoyunkang's step 3: window distances (B, n_windows), 0 or more -> their mean per patch (B, N)."""
        return log_mean_over_windows(distances.log(), self.encoder.grid, side).exp()


def mix_up_galleries(distances: Scales, vectors: Scales, references: Scales) -> None:
    """Caoyunkang's step 2, in place: the gallery of a scale is taken one window too late.

    The first window of a scale, and the whole image, meet the gallery of the scale before.

    Args:
        distances: (B, n) per scale; the first column is replaced, except for the first scale.
        vectors: (B, n, C) per scale.
        references: galleries (1, n, C) per scale.
    """
    for before, scale in pairwise(vectors):
        distances[scale][:, :1] = nearest(vectors[scale][:, :1], references[before]).squeeze(-1)


def harmonic_sum(first: Tensor, second: Tensor) -> Tensor:
    """1 / (1 / a + 1 / b) of tensors of one shape that are 0 or more; its limit 0 where one of them is 0."""
    small, large = torch.minimum(first, second), torch.maximum(first, second)
    return small / (1 + small / large.clamp(min=torch.finfo(large.dtype).tiny))


FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda language, few_shot: (language + few_shot) / 2,
    "sum": lambda language, few_shot: language + few_shot,
    "harmonic": harmonic_sum,
}

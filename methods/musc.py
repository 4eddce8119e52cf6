"""MuSc (Li et al., ICLR 2024, arXiv 2401.16753): mutual scoring of the unlabelled images of a batch; no text.

1. Local neighbourhood aggregation (LNAMD, section 3.1): patch tokens z of several blocks, averaged over r x r
   neighbourhoods, r in {1, 3, 5}, and normalised to unit length.
2. Mutual scoring (MSM, section 3.2, eq. 3 and 4): the distance of patch m of image i to image j is
   min_n |z_i^m - z_j^n|; the score a_i^m is the mean over the 30 % of the other images with the smallest distance.
   A normal patch has a like in most images, an anomalous one in few.
3. Patch score: mean over blocks and r. The map is its bilinear upsampling, the raw image score c_i the map's maximum.
4. Re-scoring (RsCIN, section 3.3): with W the cosines of the images' class tokens, each row cut to its k largest
   entries and divided by their sum, the score becomes the mean of W_k c over k in {1, 2, 3}.

The rows of W_k sum to 1, so RsCIN commutes with any scaling of c. The official code applies it to scores that were
min-max normalised over the test set. That changes no ranking inside one batch, but makes scores of different batches
incomparable: every batch would have a most anomalous image of score about 1. Therefore scores stay distances here, and
``reference_quirks=true`` (preset ``musc_paper``) min-max normalises each batch like the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import Advice, FeatureBatch, FeatureRequest, Method, Prediction
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.matching import euclidean
from zsad_bench.toolkit.mutual import neighbourhood_scores
from zsad_bench.toolkit.settings import Bounds, Layers, PositiveInt, Sides
from zsad_bench.toolkit.taps import block_taps


@dataclass(kw_only=True, eq=False)
class MuSc(Method):
    """Mutual scoring inside a batch; ``batch_size=all`` is the paper's setting, the whole test set of a category.

    A batch of one has nothing to compare with: its map and score are 0.
    """

    setting = "batch"
    name: str = "musc"
    prompts: None = field(default=None, init=False)
    layers: Layers = None  # blocks whose tokens are compared
    sides: Sides = (1, 3, 5)  # r of step 1
    # A bound below 1 is a share of the other images, from 1 on a number of them. At least one image counts.
    interval: Bounds = (0.0, 0.3)
    # k of step 4, each counting the image itself; larger than the batch means all of it.
    neighbours: Annotated[Sequence[PositiveInt], Advice("an empty list switches RsCIN off")] = (1, 2, 3)

    def request(self) -> FeatureRequest:
        """Unprojected tokens of the chosen blocks."""
        self.taps = block_taps(self.layers, self.encoder.n_blocks)
        return FeatureRequest(taps=self.taps)

    def patch_scores(self, batch: FeatureBatch) -> Tensor:
        """Steps 1 to 3: (B, h, w), Euclidean distances of unit vectors in [0, 2]."""
        if len(batch) == 1:
            return batch.class_tokens.new_zeros(1, *batch.grid)
        own = [
            neighbourhood_scores(
                batch.patches(tap),
                batch.grid,
                self.sides,
                self.interval,
                convert=euclidean,
                factors=self.encoder.factors,
            )
            for tap in self.taps
        ]
        return torch.stack(own).mean(dim=0).unflatten(1, batch.grid)

    def rescore(self, scores: Tensor, class_tokens: Tensor) -> Tensor:
        """RsCIN: raw image scores (B,) smoothed over images (B, D) that look alike."""
        if self.reference_quirks:
            scores = (scores - scores.min()) / (scores.max() - scores.min()).clamp(min=1e-12)
        if not self.neighbours:
            return scores
        unit = F.normalize(class_tokens, dim=-1)
        cosines = unit @ unit.T
        if not self.reference_quirks:
            cosines = cosines.clamp(min=0)  # keeps the weights of an average positive; CLIP's cosines are anyway
        smoothed = []
        for k in self.neighbours:
            largest = cosines.topk(min(k, len(scores)), dim=1)
            weights = largest.values / largest.values.sum(dim=1, keepdim=True)
            smoothed.append((weights * scores[largest.indices]).sum(dim=1))
        return torch.stack(smoothed).mean(dim=0)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Maps, and their maxima after RsCIN."""
        maps = upsample(self.patch_scores(batch), batch.image_size, align_corners=True)
        return Prediction(self.rescore(maps.amax(dim=(1, 2)), batch.class_tokens), maps)

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

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Tap, TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.matching import euclidean
from zsad_bench.toolkit.mutual import neighbourhood_scores
from zsad_bench.toolkit.settings import check_interval, check_sides, choose_layers


class MuSc(Method):
    """Mutual scoring inside a batch; ``batch_size=all`` is the paper's setting, the whole test set of a category.

    A batch of one has nothing to compare with: its map and score are 0.

    Args:
        layers: blocks whose tokens are compared, 1-based; None means the quarter depths.
        sides: neighbourhood sides r in patches, odd.
        interval: the nearest other images from the first to the second bound count; a bound below 1 is a share of
            them, from 1 on a number of images. At least one counts.
        neighbours: the list of k of RsCIN, each counting the image itself; larger than the batch means all. Empty: off.
    """

    setting = "batch"

    def __init__(
        self,
        *,
        name: str = "musc",
        variant: str = "paper",
        layers: Sequence[int] | None = None,
        sides: Sequence[int] = (1, 3, 5),
        interval: Sequence[float] = (0.0, 0.3),
        neighbours: Sequence[int] = (1, 2, 3),
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(name=name, variant=variant, prompts=None, reference_quirks=reference_quirks)
        if any(k < 1 for k in neighbours):
            raise UserError(f"method.neighbours={list(neighbours)}: must be 1 or more, or an empty list for no RsCIN")
        self.layers = layers
        self.sides = check_sides(sides, "sides")
        self.interval = check_interval(interval, "interval")
        self.neighbours = tuple(neighbours)

    def request(self) -> FeatureRequest:
        """Unprojected tokens of the chosen blocks."""
        self.taps = tuple(Tap(layer) for layer in choose_layers(self.layers, self.encoder.n_blocks))
        return FeatureRequest(taps=self.taps)

    def prepare(self, text: TextFeatures | None) -> None:
        """Nothing: there is no text and no state."""

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

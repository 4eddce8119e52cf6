"""NewMethod (Author et al., Title, venue, arXiv 0000.00000), in its numbered steps.

1. Patch tokens after the last block, projected and normalised: t.
2. p = softmax(t . (normal, abnormal) / temperature), the probability of the abnormal text.
3. The map is p, upsampled to the input size and smoothed; the score is the largest value of the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Tap, TextFeatures
from zsad_bench.toolkit.maps import smooth, upsample
from zsad_bench.toolkit.settings import NonNegativeFloat, PositiveFloat

LAST = Tap(block=-1, projected=True)


@dataclass(kw_only=True, eq=False)
class NewMethod(Method):
    """Nearness of every patch to a text about defects."""

    setting = "single"
    name: str = "new_method"
    prompts: str = "winclip"
    temperature: PositiveFloat = 0.07  # of the softmax in step 2
    sigma: NonNegativeFloat = 4.0  # of the Gaussian in step 3, in pixels; 0 leaves the map as it is

    def request(self) -> FeatureRequest:
        """Projected patch tokens of the last block."""
        return FeatureRequest(taps=(LAST,))

    def take_text(self, text: TextFeatures) -> None:
        """Keep the two text vectors (2, D), normal and abnormal."""
        self.text = text.vectors()

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Steps 1 to 3 for every image on its own."""
        tokens = F.normalize(batch.patches(LAST), dim=-1)
        abnormal = (tokens @ self.text.T / self.temperature).softmax(dim=-1)[..., 1]
        maps = smooth(upsample(abnormal.unflatten(1, batch.grid), batch.image_size), self.sigma)
        return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)

"""NewMethod (Author et al., Title, venue, arXiv 0000.00000), in its numbered steps.

1. Patch tokens after the last block, projected and normalised: t.
2. p = softmax(t . (normal, abnormal) / temperature), the probability of the abnormal text.
3. The map is p, upsampled to the input size and smoothed; the score is the largest value of the map.
"""

from __future__ import annotations

import torch.nn.functional as F

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Tap, TextFeatures, UserError
from zsad_bench.toolkit.maps import smooth, upsample

LAST = Tap(block=-1, projected=True)


class NewMethod(Method):
    """Nearness of every patch to a text about defects.

    Args:
        temperature: of the softmax in step 2, above 0.
        sigma: of the Gaussian in step 3, in pixels; 0 leaves the map as it is.

    Raises:
        UserError: a value out of range.
    """

    setting = "single"

    def __init__(self, *, name: str, variant: str, prompts: str, temperature: float, sigma: float) -> None:
        super().__init__(name=name, variant=variant, prompts=prompts)
        if temperature <= 0:
            raise UserError(f"method.temperature={temperature}: must be above 0, for example 0.07")
        if sigma < 0:
            raise UserError(f"method.sigma={sigma}: must not be negative; 0 smooths nothing")
        self.temperature = temperature
        self.sigma = sigma

    def request(self) -> FeatureRequest:
        """Projected patch tokens of the last block."""
        return FeatureRequest(taps=(LAST,))

    def prepare(self, text: TextFeatures | None) -> None:
        """Keep the two text vectors (2, D), normal and abnormal."""
        if text is None:
            raise UserError("method.prompts=null: NewMethod compares with text; name an ensemble, for example winclip")
        self.text = text.vectors()

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Steps 1 to 3 for every image on its own."""
        tokens = F.normalize(batch.patches(LAST), dim=-1)
        abnormal = (tokens @ self.text.T / self.temperature).softmax(dim=-1)[..., 1]
        maps = smooth(upsample(abnormal.unflatten(1, batch.grid), batch.image_size), self.sigma)
        return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)

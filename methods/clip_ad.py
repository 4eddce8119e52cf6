"""CLIP-AD without training: SDP, staged dual path (Chen et al., arXiv 2311.00453; code ByChelsea/CLIP-AD).

Notation: t_n and t_a are the unit text vectors of the normal and the abnormal state, c the unit class token of the last
block, T the temperature, K the number of stages; the equations are those of the code.

1. Representative vectors: each t is one vector for all prompts of its state (``clip_ad_text.py``).
2. Staged dual path: the blocks form K stages. Beside the ordinary stream h_l runs a value-value stream without
   feed-forward network, which starts anew with every stage: S_k = sum of s_l over the blocks l of stage k, with
   s_l = O_l(softmax(v v^T / sqrt(d)) v) and v from h_(l-1). Its tokens, projected and normalised, are f_k; the class
   token c_k of stage k comes from the ordinary stream.
3. Feature surgery: the class token weighs the states, p_k = softmax([c_k . t_n, c_k . t_a]) and w_k = 2 p_k, and what
   both states share is removed: sim_k = (w_k,a f_k . t_a - w_k,n f_k . t_n) / 2.
4. Map: M = Gaussian(bilinear(sum_k sim_k)).
5. Two image terms: A = softmax([c . t_n, c . t_a] / T)[a], and B = max M.

The code adds minmax(A) + minmax(B) over all test images of a category: :class:`ClipADTransductive`. One image alone has
no minimum and maximum, so :class:`ClipAD` adds the two terms as log-odds. Those of A are (c . t_a - c . t_n) / T. With
w = 1 the map is sum_k (f_k . t_a - f_k . t_n) / 2, so 2 B / K is the same difference of cosines, as a mean over the
stages, at the most anomalous place: score = ((c . t_a - c . t_n) + 2 B / K) / T. Other images play no part, and nothing
saturates, unlike A itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zsad_bench.contract import EncoderSpec, FeatureBatch, FeatureRequest, Method, Prediction, Setting, TextFeatures
from zsad_bench.contract.features import Stream, Tap
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.maps import smooth, upsample
from zsad_bench.toolkit.settings import NonNegativeFloat, PositiveFloat, PositiveInt
from zsad_bench.toolkit.text_scores import cosines, log_odds

from .clip_ad_text import TextVector, representative


@dataclass(kw_only=True, eq=False)
class ClipAD(Method):
    """SDP with a score for one image.

    With ``reference_quirks`` ordinary tokens of all stages but the last are taken as the code does, with the attention
    output of the following block added: o_l = h_l + a_(l+1). There an in-place addition changes the stored tensor.
    """

    setting: ClassVar[Setting] = "single"
    name: str = "clip_ad"
    prompts: str = "clip_ad"
    text_vector: TextVector = "mean"  # how the prompts of a state become one vector
    dbscan_eps: PositiveFloat = 0.5  # radius of dbscan; the code takes 1.5 for VisA
    dbscan_min_samples: PositiveInt = 15  # of dbscan; the code takes 25 for VisA
    stages: PositiveInt = 4  # K, a divisor of the encoder's number of blocks
    layers: Sequence[int] | None = None  # blocks (1-based) that are used, out of the ends of the stages; None: all
    class_weights: bool = True  # weigh the states by the class token, w of step 3; off means w = 1
    temperature: PositiveFloat = 0.01  # T
    sigma: NonNegativeFloat = 8.0  # smoothing in pixels of the encoder's input; the code's 8 is for 240 pixels
    fusion: Literal["sum", "text", "map"] = "sum"  # image score from both terms, or one of them

    def take_text(self, text: TextFeatures) -> None:
        """Representative vectors of the category."""
        self.text = self.text_vectors(text)

    def text_vectors(self, text: TextFeatures) -> Tensor:
        """Step 1: unit vectors (2, D) of the normal and the abnormal state."""
        options = (self.text_vector, self.dbscan_eps, self.dbscan_min_samples)
        return torch.stack([representative(group, *options) for group in (text.normal, text.abnormal)])

    def attach(self, encoder: EncoderSpec, seed: int = 0) -> None:
        """Step 2: find the last blocks of the stages.

        Raises:
            UserError: ``stages`` does not divide the blocks, or ``layers`` holds a block inside a stage.
        """
        super().attach(encoder, seed)
        length, rest = divmod(encoder.n_blocks, self.stages)
        if rest:
            raise UserError(f"method.stages={self.stages}: must divide the {encoder.n_blocks} blocks of the encoder")
        ends = range(length, encoder.n_blocks + 1, length)
        self.blocks = tuple(ends if self.layers is None else self.layers)
        if not self.blocks or set(self.blocks) - set(ends) or len(set(self.blocks)) < len(self.blocks):
            raise UserError(
                f"method.layers={list(self.blocks)}: choose some of {', '.join(map(str, ends))}, where the "
                f"{self.stages} stages of this encoder end"
            )
        self.stream = Stream(("v",), restart=length)

    def ordinary_tap(self, block: int, projected: bool) -> Tap:
        """Ordinary tokens that go with the stage that ends at ``block``."""
        if self.reference_quirks and block < self.encoder.n_blocks:
            return Tap(block + 1, projected=projected, after_attention=True)
        return Tap(block, projected=projected)

    def dual_tap(self, block: int) -> Tap:
        """Projected tokens of the value-value stream of the stage that ends at ``block``."""
        return Tap(block, self.stream, projected=True)

    def request(self) -> FeatureRequest:
        """Both streams at the end of every stage."""
        taps = [(self.dual_tap(block), self.ordinary_tap(block, projected=True)) for block in self.blocks]
        return FeatureRequest(taps=tuple(tap for pair in taps for tap in pair))

    def surgery(self, tokens: Tensor, class_tokens: Tensor) -> Tensor:
        """Step 3: tokens (B, n, D) of a stage and its class tokens (B, D) -> similarity (B, n), above 0 if abnormal."""
        weighted = cosines(tokens, self.text)
        if self.class_weights:
            weighted = 2 * cosines(class_tokens, self.text).softmax(dim=-1)[:, None] * weighted
        return (weighted[..., 1] - weighted[..., 0]) / 2

    def patch_scores(self, batch: FeatureBatch) -> Tensor:
        """Sum of the stages (B, h, w)."""
        stages = [
            self.surgery(
                batch.patches(self.dual_tap(block)), batch.class_token(self.ordinary_tap(block, projected=True))
            )
            for block in self.blocks
        ]
        return torch.stack(stages).sum(dim=0).unflatten(1, batch.grid)

    def raw_maps(self, batch: FeatureBatch) -> Tensor:
        """Maps (B, H, W) before smoothing."""
        return upsample(self.patch_scores(batch), batch.image_size)

    def text_odds(self, class_tokens: Tensor) -> Tensor:
        """Log-odds (B,) of the text term A, from class tokens (B, D) of the last block."""
        return log_odds(class_tokens, self.text, self.temperature)

    def image_scores(self, batch: FeatureBatch, maps: Tensor) -> Tensor:
        """Scores (B,) from class tokens and smoothed maps: the sum of the log-odds of both terms."""
        text = self.text_odds(batch.class_tokens)
        place = 2 * maps.amax(dim=(1, 2)) / (len(self.blocks) * self.temperature)
        return {"sum": text + place, "text": text, "map": place}[self.fusion]

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Smoothed maps and their image scores."""
        maps = smooth(self.raw_maps(batch), self.sigma)
        return Prediction(self.image_scores(batch, maps), maps)


class ClipADTransductive(ClipAD):
    """SDP with the code's image score, minmax(A) + minmax(B) over the category, between 0 and 2.

    A term that is the same for all images of the category, as with a single image, counts as 0.
    """

    setting: ClassVar[Setting] = "transductive"

    def image_scores(self, batch: FeatureBatch, maps: Tensor) -> Tensor:
        """The text term A (B,), in (0, 1), until :meth:`finalize` knows the whole category."""
        return self.text_odds(batch.class_tokens).sigmoid()

    def finalize(self, predictions: Sequence[Prediction]) -> Iterator[Prediction]:
        """Image scores of step 5."""
        text = _minmax(torch.cat([prediction.scores for prediction in predictions]))
        place = _minmax(torch.cat([prediction.maps.amax(dim=(1, 2)) for prediction in predictions]))
        scores = {"sum": text + place, "text": text, "map": place}[self.fusion]
        parts = scores.split([len(prediction.scores) for prediction in predictions])
        for part, before in zip(parts, predictions, strict=True):
            yield Prediction(part, before.maps)


def _minmax(values: Tensor) -> Tensor:
    """Values (n,) moved and scaled to [0, 1]; zeros if all are equal."""
    low, high = values.aminmax()
    return torch.where(high > low, (values - low) / (high - low), 0.0)

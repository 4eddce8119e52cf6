"""CLIP-AD with trained linear layers: SDP+ (Chen et al., arXiv 2311.00453; code ByChelsea/CLIP-AD).

Notation as in ``clip_ad.py``, whose map and text term this adds to. W_k and b_k are a linear layer per stage, from the
width of the tower to the width of the embedding; CLIP itself is not trained.

1. Tokens: u_k = W_k h_l + b_k, normalised, for the raw patch tokens h_l of the ordinary stream at the end of stage k,
   without the last layer norm and without CLIP's projection.
2. Map of a stage: P_k = softmax(bilinear([u_k . t_n, u_k . t_a] / T))[a], probabilities in (0, 1). The logits are
   enlarged, with the corners aligned, before the softmax.
3. Map: M = Gaussian(bilinear(sum_k sim_k) + sum_k P_k), the map of SDP plus these.
4. Training: sum_k Focal(P_k, y) + Dice(P_k, y) on auxiliary images with masks y, Adam.
5. Image score: the code adds minmax(A) + minmax(max M) over a category, as in SDP: :class:`ClipADPlusTransductive`. For
   one image alone the log-odds of both terms add up, again as in SDP: max M / K is a mean probability, up to SDP's
   small share of the map, so score = log(A / (1 - A)) + log(q / (1 - q)) with q = max M / K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from zsad_bench.contract import EncoderSpec, Facts, FeatureBatch, FeatureRequest, Prediction, Setting, TrainableMethod
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.losses import dice_loss, focal_loss
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.text_scores import log_odds
from zsad_bench.training.checkpoint import Checkpoint, encoder_facts, training_label

from .clip_ad import ClipAD, ClipADTransductive

# SDP's share can carry q out of (0, 1).
SMALLEST_PROBABILITY = 1e-6


@dataclass(kw_only=True, eq=False)
class ClipADPlus(ClipAD, TrainableMethod):
    """SDP+ with a score for one image; ``python -m zsad_bench.train method=clip_ad_plus`` makes its checkpoint.

    With ``reference_quirks`` the layers read o_l = h_l + a_(l+1), and in training a batch of one image has its Dice
    loss over the rows of the image.
    """

    setting: ClassVar[Setting] = "auxiliary"
    name: str = "clip_ad_plus"
    checkpoint: str | None = None  # file with the trained linear layers
    # Score images, and categories of the dataset, that the checkpoint was trained on; the variant of such rows says so.
    allow_seen: bool = False

    def begin_training(self, encoder: EncoderSpec, seed: int) -> nn.ModuleList:
        """Step 1: fresh linear layers, one a stage, initialised as torch does after ``torch.manual_seed(seed)``."""
        super().attach(encoder, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.ModuleList(nn.Linear(encoder.width, encoder.embed_dim) for _ in self.blocks)
        return self.linear

    def training_request(self) -> FeatureRequest:
        """Step 1: raw ordinary tokens at the end of every stage."""
        return FeatureRequest(taps=tuple(self.ordinary_tap(block, projected=False) for block in self.blocks))

    def stage_maps(self, batch: FeatureBatch, text: Tensor) -> Tensor:
        """Step 2: probabilities P_k (K, B, H, W); text vectors are (2, D), or (B, 2, D) for each image its own."""
        if next(self.linear.parameters()).device != batch.device:
            self.linear.to(batch.device)
        maps = []
        for layer, tap in zip(self.linear, self.training_request().taps, strict=True):
            # Enlarging is linear: the difference of the enlarged logits is the enlarged difference.
            odds = log_odds(layer(batch.patches(tap)), text, self.temperature).unflatten(1, batch.grid)
            maps.append(upsample(odds, batch.image_size, align_corners=True).sigmoid())
        return torch.stack(maps)

    def request(self) -> FeatureRequest:
        """What SDP needs, and the raw ordinary tokens."""
        return FeatureRequest(taps=(*super().request().taps, *self.training_request().taps))

    def raw_maps(self, batch: FeatureBatch) -> Tensor:
        """Step 3: SDP's map plus the stage maps (B, H, W), before smoothing."""
        return super().raw_maps(batch) + self.stage_maps(batch, self.text).sum(dim=0)

    def stage_losses(self, batch: FeatureBatch, text: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Focal and Dice loss of each stage, (K,) and (K,); arguments as in :meth:`training_loss`."""
        maps = self.stage_maps(batch, text)
        by_rows = self.reference_quirks and len(batch) == 1
        pairs = [(stage[0], masks[0]) if by_rows else (stage, masks) for stage in maps]
        return (
            torch.stack([focal_loss(stage, masks) for stage in maps]),
            torch.stack([dice_loss(stage, truth) for stage, truth in pairs]),
        )

    def training_loss(self, batch: FeatureBatch, text: Tensor, masks: Tensor) -> Tensor:
        """Step 4: sum over the stages of focal and Dice loss."""
        focal, dice = self.stage_losses(batch, text, masks)
        return focal.sum() + dice.sum()

    def image_scores(self, batch: FeatureBatch, maps: Tensor) -> Tensor:
        """Scores (B,) of step 5: sum of the log-odds of both terms."""
        text = self.text_odds(batch.class_tokens)
        place = torch.logit(maps.amax(dim=(1, 2)) / len(self.blocks), eps=SMALLEST_PROBABILITY)
        return {"sum": text + place, "text": text, "map": place}[self.fusion]

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Smoothed maps and their image scores; raises UserError for training images."""
        if not self.allow_seen:
            self.trained.refuse_seen(batch.image_ids)
        with torch.no_grad():
            return super().predict(batch)

    def attach(self, encoder: EncoderSpec, seed: int = 0) -> None:
        """Load the linear layers.

        Raises:
            UserError: no checkpoint, or one of another encoder or of other stages.
        """
        if self.checkpoint is None:
            raise UserError(
                "method.checkpoint=null: SDP+ needs trained linear layers; train them on an auxiliary dataset with "
                f"'python -m zsad_bench.train method={self.name} dataset=<name> dataset.root=<folder>' and give the "
                "file as method.checkpoint=<file>"
            )
        self.linear = self.begin_training(encoder, seed).requires_grad_(False)
        self.trained = Checkpoint.load(Path(self.checkpoint), {**self.must_match(), **encoder_facts(encoder)})
        self.linear.load_state_dict(self.trained.tensors)

    def variant_on(self, dataset: str, categories: Sequence[str]) -> str:
        """Training categories are refused or labelled, other categories of the training dataset are labelled."""
        if self.checkpoint is None:
            return self.variant
        label = training_label(Checkpoint.read_facts(Path(self.checkpoint)), dataset, categories, self.allow_seen)
        return f"{self.variant}, {label}" if label else self.variant

    def must_match(self) -> Facts:
        """Which tokens the layers read."""
        blocks = " ".join(str(block) for block in self.blocks)
        return {"method": "clip_ad_plus", "blocks": blocks, "reference_quirks": str(self.reference_quirks)}

    def training_settings(self) -> Facts:
        """What the text vectors depend on, and the temperature."""
        names = ("prompts", "text_vector", "dbscan_eps", "dbscan_min_samples", "temperature")
        return {key: str(getattr(self, key)) for key in names}


class ClipADPlusTransductive(ClipADTransductive, ClipADPlus):
    """SDP+ with the code's image score, which sees all test images of a category and was trained on other data."""

    setting: ClassVar[Setting] = "transductive"

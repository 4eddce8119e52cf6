"""FiSeCLIP (Bai et al., ICCV 2025 workshops, arXiv 2507.11003): a RECONSTRUCTION from the abstract; no code is public.

Public: no training; the other images of the batch are the references of each image; feature matching is combined with
cross-modal alignment; text filters noisy reference features; CLIP's local semantic correlation is restored so that the
filter is more accurate; the filtering is mutual. Everything below is our choice and a key of the YAML.

1. Restored correlation: patch tokens x_j from self-self instead of query-key attention, without feed-forward network:
   AnoCLIP's value-value stream, or with ``attention=qkv_self`` the last block alone with the mean of q-q, k-k and v-v.
   Text log-odds a_j = (x_j . t_a - x_j . t_n) / temperature, probability L_j = sigmoid(a_j).
2. Matching filters text: c_j is the median over the other images of the log-odds of the patch there that looks most
   like j (``consensus``). What text finds abnormal in every image is normal structure; r_j = a_j - c_j is what is left.
3. Text filters matching: a reference patch j is left out if r_j lies more than ``margin`` spreads above the median of
   the batch (spread = 1.4826 x median absolute deviation). Each reference image keeps ``keep_min`` patches at least.
4. Matching: M_j = mean over blocks and neighbourhoods of the distance to the nearest kept patch of the other images.
   MuSc guards itself against anomalous references by an average over the nearest 30 % of images (``share=0.3``); here
   the filter is that guard, so the nearest image alone counts (``share=0``) and rare normal parts find their like.
5. Map: S = M / scale + weight * L * sigmoid(r). Image score: the maximum of the map, plus ``class_weight`` * abnormal
   probability of the class token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Stream, Tap, TextFeatures
from zsad_bench.toolkit.maps import smooth_by_side, upsample
from zsad_bench.toolkit.matching import aggregate, counterparts_median
from zsad_bench.toolkit.mutual import neighbourhood_scores
from zsad_bench.toolkit.settings import Layers, NonNegativeFloat, PositiveFloat, PositiveInt, ShareBelowOne, Sides
from zsad_bench.toolkit.taps import VALUE_VALUE, block_taps
from zsad_bench.toolkit.text_scores import log_odds


@dataclass(kw_only=True, eq=False)
class FiSeCLIP(Method):
    """Mutual filtering of text and matching inside a batch. Every key is a choice of this reconstruction.

    A batch of one has no references and is scored by text alone. A batch of anomalous images only is defined like any
    other: what most of its images share counts as normal.
    """

    setting = "batch"
    name: str = "fiseclip"
    variant: str = "reconstruction"
    prompts: str = "anoclip"
    temperature: PositiveFloat = 0.07  # divides cosines before the softmax
    attention: Literal["vv", "qkv_self", "plain"] = "vv"  # tokens of the text map: both of step 1, or nothing restored
    layers: Layers = None  # blocks whose tokens are matched
    sides: Sides = (1, 3)
    share: ShareBelowOne = 0.0  # of the reference images, nearest first, that are averaged; one image at least
    # Step 3, or soft: softness * L_j * sigmoid(r_j) is added to the distance of a reference patch, or none.
    filter: Literal["hard", "soft", "none"] = "hard"
    consensus: bool = True  # whether step 2 takes place; without it r_j is a_j minus the batch's median
    margin: PositiveFloat = 3.0  # spreads of r above its median that make a reference patch suspicious
    drop: ShareBelowOne | None = None  # a fixed share of the batch's patches is left out instead; None: margin decides
    keep_min: PositiveInt = 8  # reference patches that every image keeps
    softness: NonNegativeFloat = 0.1  # of the soft filter
    # Step 5, sum (M / scale + weight * L), product, match (text only filters) or text alone, whose image score is the
    # mean of the map's maximum and the class token's probability.
    fusion: Literal["mutual", "sum", "product", "match", "text"] = "mutual"
    weight: NonNegativeFloat = 0.05  # of text in the map with mutual and sum
    class_weight: NonNegativeFloat = 0.25  # of the class token's abnormal probability in the image score
    scale: PositiveFloat = 0.25  # matching distance that counts like full text evidence
    sigma: NonNegativeFloat = 4.0  # Gaussian smoothing of the map in pixels at a side of 240

    def request(self) -> FeatureRequest:
        """Step 1: projected tokens for text; unprojected tokens of the chosen blocks for matching."""
        last_block = Stream(("q", "k", "v"), start=self.encoder.n_blocks)
        self.text_tap = {
            "vv": VALUE_VALUE,
            "qkv_self": Tap(-1, last_block, projected=True),
            "plain": Tap(-1, projected=True),
        }[self.attention]
        self.taps = block_taps(self.layers, self.encoder.n_blocks)
        return FeatureRequest(taps=(self.text_tap, *self.taps))

    def take_text(self, text: TextFeatures) -> None:
        """Text vectors of the category."""
        self.text = text.vectors()

    def odds(self, embeddings: Tensor) -> Tensor:
        """Step 1: abnormal log-odds (...) of embeddings (..., D)."""
        return log_odds(embeddings, self.text, self.temperature)

    def look(self, batch: FeatureBatch) -> Tensor:
        """What makes patches similar in step 2: unit vectors (B, N, D) over all blocks and neighbourhoods."""
        parts = [aggregate(batch.patches(tap), batch.grid, side) for tap in self.taps for side in self.sides]
        return F.normalize(torch.cat(parts, dim=-1), dim=-1)

    def residual(self, odds: Tensor, batch: FeatureBatch) -> Tensor:
        """Step 2: r (B, N) from the text log-odds (B, N)."""
        if not self.consensus:
            return odds - odds.median()
        return odds - counterparts_median(self.look(batch), odds, self.encoder.factors)

    def penalty(self, odds: Tensor, residual: Tensor) -> Tensor | None:
        """Step 3: added to the distance of reference patches, (B, N); infinity leaves one out."""
        if self.filter == "none":
            return None
        if self.filter == "soft":
            return self.softness * odds.sigmoid() * residual.sigmoid()
        if self.drop is None:
            suspicious = residual > residual.median() + self.margin * _spread(residual)
        else:
            suspicious = residual > _quantile(residual, 1 - self.drop)
        kept = min(self.keep_min, residual.shape[1])
        suspicious &= residual > residual.kthvalue(kept, dim=1, keepdim=True).values
        return torch.zeros_like(residual).masked_fill(suspicious, torch.inf)

    def matching(self, batch: FeatureBatch, penalty: Tensor | None) -> Tensor:
        """Step 4: M (B, N) in [0, 1] for two images or more."""
        maps = [
            neighbourhood_scores(
                batch.patches(tap), batch.grid, self.sides, (0.0, self.share), penalty, factors=self.encoder.factors
            )
            for tap in self.taps
        ]
        return torch.stack(maps).mean(dim=0)

    def evidence(self, batch: FeatureBatch) -> Tensor:
        """Step 5 before smoothing: S (B, N)."""
        odds = self.odds(batch.patches(self.text_tap))
        language = odds.sigmoid()
        if self.fusion == "text" or len(batch) == 1:
            return language
        if self.fusion == "match" and self.filter == "none":
            return self.matching(batch, None) / self.scale
        residual = self.residual(odds, batch)
        matching = self.matching(batch, self.penalty(odds, residual)) / self.scale
        if self.fusion == "match":
            return matching
        if self.fusion == "product":
            return matching * language
        return matching + self.weight * language * (residual.sigmoid() if self.fusion == "mutual" else 1)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Maps and image scores."""
        grids = self.evidence(batch).unflatten(1, batch.grid)
        maps = smooth_by_side(upsample(grids, batch.image_size), self.sigma)
        peaks = maps.amax(dim=(1, 2))
        whole = self.odds(batch.class_tokens).sigmoid()
        text_alone = self.fusion == "text" or len(batch) == 1
        return Prediction((peaks + whole) / 2 if text_alone else peaks + self.class_weight * whole, maps)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of the bulk: 1.4826 x median absolute deviation, kept above 0."""
    return (1.4826 * (values - values.median()).abs().median()).clamp(min=1e-3)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value that a share of all values does not exceed; ``torch.quantile`` refuses more than 16 million."""
    ordered = values.flatten().sort().values
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

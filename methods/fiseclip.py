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

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Stream, Tap, TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.maps import smooth, upsample
from zsad_bench.toolkit.matching import aggregate, counterparts_median
from zsad_bench.toolkit.mutual import neighbourhood_scores
from zsad_bench.toolkit.settings import check_sides, choose_layers

Attention = Literal["vv", "qkv_self", "plain"]
Filter = Literal["hard", "soft", "none"]
Fusion = Literal["mutual", "sum", "product", "match", "text"]
# Maps are smoothed relative to this image side, so that sigma means the same at every resolution.
SIGMA_SIDE = 240
SMALLEST_SPREAD = 1e-3


class FiSeCLIP(Method):
    """Mutual filtering of text and matching inside a batch. Every key below is a choice of this reconstruction.

    A batch of one has no references and is scored by text alone. A batch of anomalous images only is defined like any
    other: what most of its images share counts as normal.

    Args:
        temperature: divides cosines before the softmax; > 0.
        attention: tokens of the text map: ``vv``, ``qkv_self`` (both of step 1) or ``plain`` (nothing restored).
        layers: blocks whose tokens are matched, 1-based; None means the quarter depths.
        sides: neighbourhood sides in patches, odd.
        share: of the reference images, nearest first, over which distances are averaged; one image at least.
        filter: ``hard`` (step 3), ``soft`` adds ``softness`` * L_j * sigmoid(r_j) to the distance of a reference patch,
            or ``none``.
        consensus: whether step 2 takes place; without it r_j is a_j minus the batch's median.
        margin: spreads of r above its median that make a reference patch suspicious; > 0.
        drop: a fixed share of the batch's patches that the hard filter leaves out, 0 to below 1, instead of what
            ``margin`` decides; None: ``margin``.
        keep_min: reference patches that every image keeps, >= 1.
        softness: of the soft filter, >= 0.
        fusion: ``mutual`` (step 5), ``sum`` (M / scale + weight * L), ``product``, ``match`` (text only filters), or
            ``text`` alone, whose image score is the mean of the map's maximum and the class token's probability.
        weight: of text in the map with ``mutual`` and ``sum``, >= 0.
        class_weight: of the class token's abnormal probability in the image score, >= 0.
        scale: matching distance that counts like full text evidence; > 0.
        sigma: Gaussian smoothing of the map in pixels at a side of 240.
    """

    setting = "batch"

    def __init__(
        self,
        *,
        name: str = "fiseclip",
        variant: str = "reconstruction",
        prompts: str = "anoclip",
        temperature: float = 0.07,
        attention: Attention = "vv",
        layers: Sequence[int] | None = None,
        sides: Sequence[int] = (1, 3),
        share: float = 0.0,
        filter: Filter = "hard",
        consensus: bool = True,
        margin: float = 3.0,
        drop: float | None = None,
        keep_min: int = 8,
        softness: float = 0.1,
        fusion: Fusion = "mutual",
        weight: float = 0.05,
        class_weight: float = 0.25,
        scale: float = 0.25,
        sigma: float = 4.0,
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(name=name, variant=variant, prompts=prompts, reference_quirks=reference_quirks)
        for key, choice, choices in (
            ("attention", attention, get_args(Attention)),
            ("filter", filter, get_args(Filter)),
            ("fusion", fusion, get_args(Fusion)),
        ):
            if choice not in choices:
                raise UserError(f"method.{key}={choice}: choose {', '.join(choices)}")
        for key, value in (("temperature", temperature), ("scale", scale), ("keep_min", keep_min), ("margin", margin)):
            if value <= 0:
                raise UserError(f"method.{key}={value}: must be above 0")
        for key, value in (
            ("softness", softness),
            ("weight", weight),
            ("class_weight", class_weight),
            ("sigma", sigma),
        ):
            if value < 0:
                raise UserError(f"method.{key}={value}: must not be below 0")
        for key, part in (("drop", drop), ("share", share)):
            if part is not None and not 0 <= part < 1:
                raise UserError(f"method.{key}={part}: a share from 0 to below 1")
        self.temperature, self.attention, self.layers = temperature, attention, layers
        self.sides = check_sides(sides, "sides")
        self.share, self.filter, self.consensus, self.margin = share, filter, consensus, margin
        self.drop, self.keep_min, self.softness = drop, keep_min, softness
        self.fusion, self.weight, self.class_weight, self.scale = fusion, weight, class_weight, scale
        self.sigma = sigma

    def request(self) -> FeatureRequest:
        """Projected tokens for text, unprojected tokens of the chosen blocks for matching."""
        streams = {
            "qkv_self": Stream(("q", "k", "v"), start=self.encoder.n_blocks),
            "vv": Stream(("v",), start=1, embedding=True),
            "plain": None,
        }
        self.text_tap = Tap(-1, streams[self.attention], projected=True)
        self.taps = tuple(Tap(layer) for layer in choose_layers(self.layers, self.encoder.n_blocks))
        return FeatureRequest(taps=(self.text_tap, *self.taps))

    def prepare(self, text: TextFeatures | None) -> None:
        """Text vectors of the category."""
        assert text is not None
        self.text = text.vectors()

    def odds(self, embeddings: Tensor) -> Tensor:
        """Step 1: abnormal log-odds (...) of embeddings (..., D)."""
        cosines = F.normalize(embeddings, dim=-1) @ self.text.T
        return (cosines[..., 1] - cosines[..., 0]) / self.temperature

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
        maps = smooth(upsample(grids, batch.image_size), self.sigma * batch.image_size[0] / SIGMA_SIDE)
        peaks = maps.amax(dim=(1, 2))
        whole = self.odds(batch.class_tokens).sigmoid()
        text_alone = self.fusion == "text" or len(batch) == 1
        return Prediction((peaks + whole) / 2 if text_alone else peaks + self.class_weight * whole, maps)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of the bulk: 1.4826 x median absolute deviation, kept above 0."""
    return (1.4826 * (values - values.median()).abs().median()).clamp(min=SMALLEST_SPREAD)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value that a share of all values does not exceed; ``torch.quantile`` refuses more than 16 million."""
    ordered = values.flatten().sort().values
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

"""FiSeCLIP (Bai et al., ICCV 2025 workshops, arXiv 2507.11003): a RECONSTRUCTION from the abstract; no code is public.

Public: no training; the other images of the batch are the references of each image; feature matching is combined with
cross-modal alignment; text filters noisy reference features; CLIP's local semantic correlation is restored so that the
filter is more accurate; the filtering is mutual. Everything below is our choice and a key of the YAML.

1. Restored correlation: patch tokens x_j from self-self instead of query-key attention, without feed-forward network:
   AnoCLIP's value-value stream, or with ``attention=qkv_self`` the last block alone with the mean of q-q, k-k and v-v.
   Text map L_j = softmax([x_j . t_n, x_j . t_a] / temperature)_a.
2. Text filters matching: a reference patch counts only if L_j is neither in the highest share ``drop`` of the batch nor
   more than ``margin`` spreads above the batch's median (log-odds; spread = 1.4826 x median absolute deviation). Each
   reference image keeps at least the ``keep_min`` patches of smallest L_j.
3. Matching as in MuSc (``zsad_bench.matching``): M_j = mean over blocks and neighbourhoods of the distance to the
   nearest kept patch, averaged over the ``share`` nearest reference images.
4. Map: S = M / scale. With ``fusion=mutual`` matching filters text in turn: S = M / scale +
   weight * L * sigmoid((M - m0) / s), m0 and s the median and the spread of M in the batch, so that text evidence
   counts where matching does not find the patch normal.
5. Image score: maximum of the map + class_weight * abnormal probability of the class token.

By default text only filters (``fusion=match``, ``class_weight=0``): that is what helped or did no harm on all data that
we could measure. The preset ``fiseclip_mutual`` has steps 4 and 5 in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.errors import UserError
from zsad_bench.features import FeatureBatch, FeatureRequest, Stream, Tap
from zsad_bench.maps import smooth, upsample
from zsad_bench.matching import aggregate, check_sides, choose_layers, mutual_scores, select
from zsad_bench.method import Method, Prediction
from zsad_bench.prompts import TextFeatures

ATTENTIONS = ("qkv_self", "vv", "plain")
FILTERS = ("hard", "soft", "none")
FUSIONS = ("mutual", "sum", "product", "match", "text")
SHORT_BATCHES = ("borrow", "as_is")
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
        share: of the reference images, nearest first; at least one counts.
        filter: ``hard`` leaves reference patches out, ``soft`` adds ``softness * L_j`` to their distance, ``none``.
        drop: largest share of the batch's patches that the hard filter leaves out; 0 to below 1.
        margin: spreads above the median text log-odds that make a patch suspicious; 0 means ``drop`` alone decides.
        keep_min: reference patches that every image keeps, >= 1.
        softness: of the soft filter, >= 0.
        fusion: ``match`` (text only filters), ``mutual`` (step 4), ``sum`` (M / scale + weight * L), ``product``, or
            ``text`` alone, whose image score is the mean of the map's maximum and the class token's probability.
        weight: of text in the map with ``mutual`` and ``sum``, >= 0.
        class_weight: of the class token's abnormal probability in the image score, >= 0.
        scale: matching distance that counts like full text evidence; > 0.
        sigma: Gaussian smoothing of the map in pixels at a side of 240.
        short_batch: a batch smaller than an earlier one of its category takes references from that one (``borrow``) or
            makes do with its own images (``as_is``).
    """

    setting = "batch"

    def __init__(
        self,
        *,
        name: str = "fiseclip",
        variant: str = "reconstruction",
        prompts: str = "anoclip",
        temperature: float = 0.07,
        attention: str = "vv",
        layers: Sequence[int] | None = None,
        sides: Sequence[int] = (1, 3),
        share: float = 0.3,
        filter: str = "hard",
        drop: float = 0.3,
        margin: float = 6.0,
        keep_min: int = 8,
        softness: float = 0.1,
        fusion: str = "match",
        weight: float = 0.1,
        class_weight: float = 0.0,
        scale: float = 0.25,
        sigma: float = 4.0,
        short_batch: str = "borrow",
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(name=name, variant=variant, prompts=prompts, reference_quirks=reference_quirks)
        for key, choice, choices in (
            ("attention", attention, ATTENTIONS),
            ("filter", filter, FILTERS),
            ("fusion", fusion, FUSIONS),
            ("short_batch", short_batch, SHORT_BATCHES),
        ):
            if choice not in choices:
                raise UserError(f"method.{key}={choice}: choose {', '.join(choices)}")
        for key, value in (("temperature", temperature), ("scale", scale), ("keep_min", keep_min), ("share", share)):
            if value <= 0:
                raise UserError(f"method.{key}={value}: must be above 0")
        for key, value in (
            ("margin", margin),
            ("softness", softness),
            ("weight", weight),
            ("class_weight", class_weight),
            ("sigma", sigma),
        ):
            if value < 0:
                raise UserError(f"method.{key}={value}: must not be below 0")
        for key, value in (("drop", drop), ("share", share)):
            if not 0 <= value < 1:
                raise UserError(f"method.{key}={value}: a share from 0 to below 1")
        self.temperature, self.attention, self.layers = temperature, attention, layers
        self.sides = check_sides(sides, "sides")
        self.share, self.filter, self.drop, self.margin = share, filter, drop, margin
        self.keep_min, self.softness, self.fusion = keep_min, softness, fusion
        self.weight, self.class_weight, self.scale = weight, class_weight, scale
        self.sigma, self.short_batch = sigma, short_batch
        self.lookback = int(short_batch == "borrow")

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
        """Text vectors of the category; the category before is forgotten."""
        assert text is not None
        self.text = text.vectors()
        self._earlier: FeatureBatch | None = None

    def probability(self, embeddings: Tensor) -> Tensor:
        """Abnormal probability (...) of embeddings (..., D)."""
        return (F.normalize(embeddings, dim=-1) @ self.text.T / self.temperature).softmax(dim=-1)[..., 1]

    def penalty(self, language: Tensor) -> Tensor | None:
        """Step 2: added to the distance of reference patches, (B, N) from L (B, N); infinity leaves one out."""
        if self.filter == "none":
            return None
        if self.filter == "soft":
            return self.softness * language
        suspicious = language > _quantile(language, 1 - self.drop)
        if self.margin:
            odds = language.clamp(1e-6, 1 - 1e-6).logit()
            suspicious &= odds > odds.median() + self.margin * _spread(odds)
        kept = min(self.keep_min, language.shape[1])
        suspicious &= language > language.kthvalue(kept, dim=1, keepdim=True).values
        return torch.zeros_like(language).masked_fill(suspicious, torch.inf)

    def matching(self, batch: FeatureBatch, language: Tensor) -> Tensor:
        """Step 3: M (B, N) in [0, 1] for two images or more."""
        penalty = self.penalty(language)
        maps = [
            mutual_scores(aggregate(batch.patches(tap), batch.grid, side), (0.0, self.share), penalty)
            for tap in self.taps
            for side in self.sides
        ]
        return torch.stack(maps).mean(dim=0)

    def fuse(self, language: Tensor, matching: Tensor) -> Tensor:
        """Step 4: S (B, N) from L and M."""
        evidence = matching / self.scale
        if self.fusion == "match":
            return evidence
        if self.fusion == "product":
            return evidence * language
        if self.fusion == "sum":
            return evidence + self.weight * language
        gate = ((matching - matching.median()) / _spread(matching)).sigmoid()
        return evidence + self.weight * language * gate

    def with_references(self, batch: FeatureBatch) -> FeatureBatch:
        """The batch, followed by images of the largest earlier batch if that one was larger."""
        earlier = self._earlier
        if earlier is None or len(batch) >= len(earlier):
            self._earlier = batch
            return batch
        if self.short_batch == "as_is":
            return batch
        by_name = sorted(range(len(earlier)), key=lambda index: earlier.image_ids[index])
        drawn = torch.randperm(len(earlier), generator=self.generator(*sorted(batch.image_ids)))
        chosen = [by_name[index] for index in drawn[: len(earlier) - len(batch)]]
        return FeatureBatch.concatenate([batch, select(earlier, chosen)])

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Maps and image scores of the batch's own images."""
        count = len(batch)
        together = self.with_references(batch)
        language = self.probability(together.patches(self.text_tap))
        text_alone = self.fusion == "text" or len(together) == 1
        evidence = language if text_alone else self.fuse(language, self.matching(together, language))
        grids = evidence[:count].unflatten(1, batch.grid)
        maps = smooth(upsample(grids, batch.image_size), self.sigma * batch.image_size[0] / SIGMA_SIDE)
        peaks = maps.amax(dim=(1, 2))
        whole = self.probability(batch.class_tokens)
        return Prediction((peaks + whole) / 2 if text_alone else peaks + self.class_weight * whole, maps)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of the bulk: 1.4826 x median absolute deviation, kept above 0."""
    return (1.4826 * (values - values.median()).abs().median()).clamp(min=SMALLEST_SPREAD)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value that a share of all values does not exceed; ``torch.quantile`` refuses more than 16 million."""
    ordered = values.flatten().sort().values
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

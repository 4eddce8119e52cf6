"""Dual-Image Enhanced CLIP (Zhang et al., arXiv 2405.04782): a RECONSTRUCTION from the abstract; no code is public.

Public: images come in pairs, each the visual reference of the other; a joint vision-language score; value-value
attention for localisation; test-time adaptation with synthesised anomalies (a linear adapter, pseudo anomalies after
DRAEM). The rest is our choice and a key of the YAML.

1. Pairs: in each of ``n_references`` rounds the batch is split into pairs, as in a round-robin tournament in a random
   order. In an odd batch one image a round has no partner and takes the partner of a later round instead.
2. Vision map: V_p = mean over blocks and neighbourhoods of the smallest cosine distance of patch p to a patch of a
   reference (``zsad_bench.toolkit.matching``).
3. Language map: L_p = softmax([x_p . t_n, x_p . t_a] / temperature)_a of the value-value token x_p (AnoCLIP).
4. Joint map: S = (1 - weight) L + weight V / scale. The scale is fixed, so scores of different batches are comparable.
   Image score: (1 - weight) * class token's abnormal probability + weight * max V / scale, V smoothed like the map.
5. Adaptation (``adapt``), anew for every group of an image and its references: pseudo anomalies are pasted into
   ``copies`` copies of each and encoded; f(x) = (1 - blend) x + blend (W x + b), identity at the start, is fitted with
   AdamW to focal + dice loss between L of f(x) and the masks; then L of step 3 is taken from f(x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, TextFeatures
from zsad_bench.toolkit.losses import dice_loss, focal_loss
from zsad_bench.toolkit.maps import smooth_by_side, upsample
from zsad_bench.toolkit.matching import aggregate, nearest
from zsad_bench.toolkit.settings import Layers, NonNegativeFloat, PositiveFloat, PositiveInt, Share, Sides
from zsad_bench.toolkit.taps import VALUE_VALUE, block_taps
from zsad_bench.toolkit.text_scores import abnormal_probability

from .dual_image_anomalies import paste

# A patch counts as pseudo-anomalous from this share of its pixels.
PATCH_SHARE = 0.25


@dataclass(kw_only=True, eq=False)
class DualImage(Method):
    """Pairs of a batch as each other's reference. A batch of one has no partner: it is scored by text alone."""

    setting = "batch"
    name: str = "dual_image"
    variant: str = "reconstruction"
    prompts: str = "anoclip"
    n_references: PositiveInt = 1  # rounds of pairing; a batch has at most its size minus one
    temperature: PositiveFloat = 0.07  # divides cosines before the softmax
    layers: Layers = None  # blocks whose tokens are matched
    sides: Sides = (1, 3)
    fusion: Literal["joint", "text", "match"] = "joint"  # step 4, or one part alone
    weight: Share = 0.3  # of vision in the joint scores
    scale: PositiveFloat = 0.25  # matching distance that counts like full text evidence
    sigma: NonNegativeFloat = 4.0  # Gaussian smoothing of maps in pixels at a side of 240
    adapt: bool = False  # step 5
    copies: PositiveInt = 4  # pseudo-anomalous copies of each image of a group
    steps: PositiveInt = 5  # of optimisation, a group
    lr: PositiveFloat = 0.0003  # of AdamW
    blend: Annotated[float, Interval(gt=0, le=1)] = 0.5  # share of the adapter in f

    def pairs(self, image_ids: Sequence[str]) -> list[list[int]]:
        """Step 1: indices of each image's references; depends on the set of names, not on their order."""
        by_name = sorted(range(len(image_ids)), key=lambda index: image_ids[index])
        seats = self.random(*sorted(image_ids)).permutation(len(by_name))
        return tournament(len(by_name), self.n_references, [by_name[seat] for seat in seats])

    def request(self) -> FeatureRequest:
        """Value-value tokens for text, unprojected tokens of the chosen blocks for matching; pixels to adapt."""
        self.taps = block_taps(self.layers, self.encoder.n_blocks)
        return FeatureRequest(taps=(VALUE_VALUE, *self.taps), pixels=self.adapt)

    def take_text(self, text: TextFeatures) -> None:
        """Text vectors of the category."""
        with torch.inference_mode(False):  # tensors that autograd may use, whatever the caller's mode
            self.text = text.vectors()

    def probability(self, embeddings: Tensor) -> Tensor:
        """Abnormal probability (...) of embeddings (..., D)."""
        return abnormal_probability(embeddings, self.text, self.temperature)

    def vision(self, batch: FeatureBatch, pairs: Sequence[Sequence[int]]) -> Tensor:
        """Step 2: V (B, N) in [0, 1]."""
        maps = []
        for tap in self.taps:
            for side in self.sides:
                features = aggregate(batch.patches(tap), batch.grid, side)
                nearest_of_all = [
                    nearest(own, torch.stack([features[other] for other in others])).amin(dim=-1)
                    for own, others in zip(features, pairs, strict=True)
                ]
                maps.append(torch.stack(nearest_of_all))
        return torch.stack(maps).mean(dim=0)

    def fit(self, batch: FeatureBatch, group: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Step 5: weight (D, D) and bias (D,) of the adapter for one group of images of the batch."""
        assert batch.pixels is not None
        assert batch.encode is not None
        random = self.random("pseudo", *(batch.image_ids[index] for index in group))
        pasted = [paste(batch.pixels[index], random) for index in group for _ in range(self.copies)]
        pixels, masks = (torch.stack(part) for part in zip(*pasted, strict=True))
        tokens = batch.encode(pixels, FeatureRequest(taps=(VALUE_VALUE,))).patches(VALUE_VALUE)
        targets = (F.adaptive_avg_pool2d(masks[:, None], batch.grid) >= PATCH_SHARE).flatten(1)
        with torch.inference_mode(False), torch.enable_grad():
            tokens, goal = tokens.clone(), targets.clone().to(tokens)
            weight = torch.eye(tokens.shape[-1], device=batch.device).requires_grad_()
            bias = torch.zeros(tokens.shape[-1], device=batch.device).requires_grad_()
            # Decay towards 0 would pull the adapter away from the identity, where it starts.
            optimiser = torch.optim.AdamW([weight, bias], lr=self.lr, weight_decay=0.0)
            for _ in range(self.steps):
                language = self.probability(self.adapted(tokens, weight, bias))
                loss = focal_loss(language, goal) + dice_loss(language, goal)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return weight.detach(), bias.detach()

    def adapted(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """f(x) of step 5 for tokens (..., D)."""
        return (1 - self.blend) * tokens + self.blend * F.linear(tokens, weight, bias)

    def language(self, batch: FeatureBatch, pairs: Sequence[Sequence[int]]) -> Tensor:
        """Step 3, after step 5 if adapting: L (B, N) in (0, 1)."""
        tokens = batch.patches(VALUE_VALUE)
        if not self.adapt:
            return self.probability(tokens)
        fitted: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        maps = []
        for image, references in enumerate(pairs):
            group = tuple(sorted({image, *references}, key=lambda index: batch.image_ids[index]))
            if group not in fitted:
                fitted[group] = self.fit(batch, group)
            maps.append(self.probability(self.adapted(tokens[image], *fitted[group])))
        return torch.stack(maps)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Joint maps and scores."""

        def to_map(values: Tensor) -> Tensor:
            return smooth_by_side(upsample(values.unflatten(1, batch.grid), batch.image_size), self.sigma)

        pairs = self.pairs(batch.image_ids)
        share = {"joint": self.weight, "text": 0.0, "match": 1.0}[self.fusion] if len(batch) > 1 else 0.0
        scores = batch.class_tokens.new_zeros(len(batch))
        maps = batch.class_tokens.new_zeros(len(batch), *batch.image_size)
        if share < 1:
            maps = maps + (1 - share) * to_map(self.language(batch, pairs))
            scores = scores + (1 - share) * self.probability(batch.class_tokens)
        if share > 0:
            seen = share * to_map(self.vision(batch, pairs) / self.scale)
            maps, scores = maps + seen, scores + seen.amax(dim=(1, 2))
        return Prediction(scores, maps)


def tournament(n_images: int, rounds: int, order: Sequence[int]) -> list[list[int]]:
    """References of every image: ``rounds`` others each (at most all), partners of a round-robin tournament.

    Args:
        n_images: images of the batch.
        rounds: references wanted per image.
        order: the seats, a permutation of the images.

    Returns:
        Per image the indices of its references. In an even batch every relation is mutual.
    """
    seats = [*order, None] if n_images % 2 else list(order)
    partners: list[list[int]] = [[] for _ in range(n_images)]
    for turn in range(len(seats) - 1):
        circle = [seats[0], *(seats[1 + (turn + place) % (len(seats) - 1)] for place in range(len(seats) - 1))]
        for one, other in zip(circle, reversed(circle), strict=True):
            if one is not None and other is not None:
                partners[one].append(other)
    return [found[:rounds] for found in partners]

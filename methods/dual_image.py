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
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Stream, Tap, TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.maps import smooth, upsample
from zsad_bench.toolkit.matching import aggregate, nearest
from zsad_bench.toolkit.settings import check_sides, choose_layers

from .clip_ad_plus import dice_loss, focal_loss
from .pseudo_anomalies import paste

TEXT_TAP = Tap(-1, Stream(("v",), start=1, embedding=True), projected=True)
Fusion = Literal["joint", "text", "match"]
SIGMA_SIDE = 240
# A patch counts as pseudo-anomalous from this share of its pixels.
PATCH_SHARE = 0.25


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


class DualImage(Method):
    """Pairs of a batch as each other's reference. A batch of one has no partner: it is scored by text alone.

    Args:
        n_references: rounds of pairing, >= 1; a batch has at most its size minus one.
        temperature: divides cosines before the softmax; > 0.
        layers: blocks whose tokens are matched, 1-based; None means the quarter depths.
        sides: neighbourhood sides in patches, odd.
        fusion: ``joint``, or one part alone: ``text``, ``match``.
        weight: of vision in the joint scores, 0 to 1.
        scale: matching distance that counts like full text evidence; > 0.
        sigma: Gaussian smoothing of maps in pixels at a side of 240.
        adapt: test-time adaptation, step 5.
        copies: pseudo-anomalous copies of each image of a group, >= 1.
        steps: optimisation steps a group, >= 1.
        lr: learning rate of AdamW; > 0.
        blend: share of the adapter in f, above 0 to 1.
    """

    setting = "batch"

    def __init__(
        self,
        *,
        name: str = "dual_image",
        variant: str = "reconstruction",
        prompts: str = "anoclip",
        n_references: int = 1,
        temperature: float = 0.07,
        layers: Sequence[int] | None = None,
        sides: Sequence[int] = (1, 3),
        fusion: Fusion = "joint",
        weight: float = 0.3,
        scale: float = 0.25,
        sigma: float = 4.0,
        adapt: bool = False,
        copies: int = 4,
        steps: int = 5,
        lr: float = 0.0003,
        blend: float = 0.5,
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(name=name, variant=variant, prompts=prompts, reference_quirks=reference_quirks)
        if fusion not in get_args(Fusion):
            raise UserError(f"method.fusion={fusion}: choose {', '.join(get_args(Fusion))}")
        for key, value in (("temperature", temperature), ("scale", scale), ("lr", lr), ("blend", blend)):
            if value <= 0:
                raise UserError(f"method.{key}={value}: must be above 0")
        for key, number in (("n_references", n_references), ("copies", copies), ("steps", steps)):
            if number < 1:
                raise UserError(f"method.{key}={number}: must be 1 or more")
        for key, share in (("weight", weight), ("blend", blend)):
            if not 0 <= share <= 1:
                raise UserError(f"method.{key}={share}: a share from 0 to 1")
        if sigma < 0:
            raise UserError(f"method.sigma={sigma}: must not be below 0")
        self.n_references, self.temperature, self.layers = n_references, temperature, layers
        self.sides = check_sides(sides, "sides")
        self.fusion, self.weight, self.scale, self.sigma = fusion, weight, scale, sigma
        self.adapt, self.copies, self.steps, self.lr, self.blend = adapt, copies, steps, lr, blend

    def request(self) -> FeatureRequest:
        """Value-value tokens for text, unprojected tokens of the chosen blocks for matching; pixels to adapt."""
        self.taps = tuple(Tap(layer) for layer in choose_layers(self.layers, self.encoder.n_blocks))
        return FeatureRequest(taps=(TEXT_TAP, *self.taps), pixels=self.adapt)

    def prepare(self, text: TextFeatures | None) -> None:
        """Text vectors of the category."""
        assert text is not None
        with torch.inference_mode(False):  # tensors that autograd may use, whatever the caller's mode
            self.text = text.vectors()

    def probability(self, embeddings: Tensor) -> Tensor:
        """Abnormal probability (...) of embeddings (..., D)."""
        return (F.normalize(embeddings, dim=-1) @ self.text.T / self.temperature).softmax(dim=-1)[..., 1]

    def pairs(self, image_ids: Sequence[str]) -> list[list[int]]:
        """Step 1: indices of each image's references; depends on the set of names, not on their order."""
        by_name = sorted(range(len(image_ids)), key=lambda index: image_ids[index])
        seats = self.random(*sorted(image_ids)).permutation(len(by_name))
        return tournament(len(by_name), self.n_references, [by_name[seat] for seat in seats])

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
        tokens = batch.encode(pixels, FeatureRequest(taps=(TEXT_TAP,))).patches(TEXT_TAP)
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
        tokens = batch.patches(TEXT_TAP)
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
            maps = upsample(values.unflatten(1, batch.grid), batch.image_size)
            return smooth(maps, self.sigma * batch.image_size[0] / SIGMA_SIDE)

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

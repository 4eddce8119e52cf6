"""ClipEncoder: an open_clip model with its preprocessing, device and precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from zsad_bench.contract import FeatureBatch, FeatureRequest, Tap
from zsad_bench.contract.features import CLASS, tap_name, view_name, window_name
from zsad_bench.contract.views import VIEWS, augmented_views
from zsad_bench.core.errors import UserError
from zsad_bench.core.laps import Lap, Laps, untimed
from zsad_bench.encoder import tower
from zsad_bench.encoder.base import PIXELS, Encoder, Tokenizer
from zsad_bench.encoder.compiled import CompiledWalk, Walked
from zsad_bench.encoder.memory import Chunks
from zsad_bench.encoder.plan import EncoderPlan
from zsad_bench.encoder.precision import PRECISIONS
from zsad_bench.encoder.text_tower import TextTower
from zsad_bench.encoder.text_tower import supported as text_tower_supported


class ClipEncoder(Encoder):
    """Images and prompts to CLIP features; see :func:`load_encoder` for how to get one."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, plan: EncoderPlan) -> None:
        super().__init__(plan)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.visual = cast(VisionTransformer, model.visual)
        self.chunks = Chunks(plan.chunk_size)
        self._woken: set[FeatureRequest] = set()

    @cached_property
    def tower(self) -> tower.Tower:
        """The image tower, ready to be walked; made when it is first needed."""
        return tower.Tower(self.visual, pack=False if self.plan.compile else None)

    @cached_property
    def _compiled(self) -> CompiledWalk | None:
        return CompiledWalk(self.tower) if self.plan.compile else None

    def _walk(self, images: Tensor, taps: tuple[Tap, ...], lap: Lap = untimed) -> Walked:
        if self._compiled is not None:
            return self._compiled(images, taps, lap)
        return tower.dense_forward(self.tower, images, taps, lap)

    def ready(self, request: FeatureRequest | None = None) -> None:
        """See :meth:`Encoder.ready`. A CPU has little to wake up; elsewhere blank images are encoded once a request."""
        if request is None:
            _ = self._text_tower
            return
        _ = self.tower
        resolved = request.resolve(self.spec.n_blocks)
        if (self.device.type == "cpu" and not self.plan.compile) or resolved in self._woken:
            return
        self._woken.add(resolved)
        size = self.spec.image_size
        self.encode(torch.zeros(min(self.chunks.size, 16), 3, size, size, device=self.device), resolved)
        self.meter.take()

    @torch.inference_mode()
    def encode(self, pixels: Tensor, request: FeatureRequest, image_ids: Sequence[str] = ()) -> FeatureBatch:
        """See :meth:`Encoder.encode`."""
        size = self.spec.image_size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(f"pixels must be (B, 3, {size}, {size}), got {tuple(pixels.shape)}")
        if any(not 1 <= side <= min(self.spec.grid) for side in request.windows):
            raise ValueError(f"windows of {request.windows} patches do not fit the grid {self.spec.grid}")
        ids = tuple(image_ids) or tuple(str(index) for index in range(len(pixels)))
        parts = self.chunks.run(lambda part: self._encode_chunk(pixels[part], request, ids[part]), len(pixels))
        for _, seconds in parts:
            self.meter.add(seconds)
        batch = FeatureBatch.concatenate([part for part, _ in parts])
        if not request.pixels:
            return batch
        return replace(batch, pixels=pixels.to(self.device, torch.float32), encode=self.encode)

    def _encode_chunk(
        self, pixels: Tensor, request: FeatureRequest, image_ids: tuple[str, ...]
    ) -> tuple[FeatureBatch, dict[str, float]]:
        """Features of a chunk, and the seconds of :meth:`parts`."""
        laps = Laps(self.device)

        def rounded(features: Tensor, name: str) -> Tensor:
            result = self._rounded(features)
            laps.lap(name)
            return result

        pixels = pixels.to(self.device)
        images = self._as_input(pixels)
        laps.lap(PIXELS)
        resolved = {tap: tap.resolve(self.spec.n_blocks) for tap in request.taps}
        targets = tuple(sorted(set(resolved.values()), key=repr))
        class_tokens, taken = self._walk(images, targets, laps.lap)
        class_tokens = rounded(class_tokens, CLASS)
        tokens = {tap: rounded(taken[tap], tap_name(tap)) for tap in targets}
        windows = {}
        if request.windows:
            windows = tower.window_forward(self.tower, images, self.spec.grid, request.windows, laps.lap)
        features = FeatureBatch(
            image_ids=image_ids,
            class_tokens=class_tokens,
            tokens={tap: tokens[target] for tap, target in resolved.items()},
            grid=self.spec.grid,
            image_size=(self.spec.image_size, self.spec.image_size),
            windows={side: rounded(vectors, window_name(side)) for side, vectors in windows.items()},
            views={
                **({0: class_tokens} if 0 in request.views else {}),
                **self._views(pixels, request.views, laps.lap),
            },
        )
        return features, laps.seconds()

    def _as_input(self, pixels: Tensor) -> Tensor:
        return pixels.to(PRECISIONS[self.plan.precision])

    def _views(self, pixels: Tensor, views: Sequence[int], lap: Lap) -> dict[int, Tensor]:
        """Class tokens (B, D) of the augmented views of a chunk, as many views at a time as fill a chunk.

        Which views go together depends on the size of the chunk only: a view has the same bits whichever others are
        wanted, for the price of those that nobody wants in a group of which one is wanted. Those that are
        wanted share the time of their group: ``lap`` hears of each.
        """
        derived = range(1, len(VIEWS))
        at_once = max(1, self.chunks.size // len(pixels))
        tokens: dict[int, Tensor] = {}
        for group in (derived[start : start + at_once] for start in range(0, len(derived), at_once)):
            if set(group).isdisjoint(views):
                continue
            images = self._as_input(augmented_views(pixels.float(), group).flatten(0, 1))
            encoded = self._rounded(self._walk(images, ())[0]).unflatten(0, (len(pixels), len(group)))
            found = zip(group, encoded.unbind(dim=1), strict=True)
            tokens |= {view: vectors for view, vectors in found if view in views}
            lap(*(view_name(view) for view in group if view in views))
        return tokens

    def _rounded(self, features: Tensor) -> Tensor:
        """Float32 with values that the storage type holds exactly."""
        stored = features.to(self.plan.storage)
        # Only float16 has a smaller range; the question makes the host wait for the device.
        narrow = self.plan.storage is torch.float16
        if narrow and not torch.isfinite(stored).all() and torch.isfinite(features).all():
            raise UserError(
                f"encoder.feature_bits={self.plan.feature_bits}: {self.spec.name} has a feature that is too large for "
                "16 bits; use encoder.feature_bits=32"
            )
        return stored.float()

    @cached_property
    def _text_tower(self) -> TextTower | None:
        return TextTower(self.model) if text_tower_supported(self.model) else None

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str], chunk_size: int = 64) -> Tensor:
        """Text embeddings (n, D) float32, not normalised; unusual text towers encode ``chunk_size`` at a time."""
        tokens = self.tokenizer(list(prompts))
        if self._text_tower is not None:
            return self._text_tower.encode(tokens).float()
        encode = cast(Callable[[Tensor], Tensor], self.model.encode_text)
        return torch.cat([encode(chunk).float() for chunk in tokens.to(self.plan.device).split(chunk_size)])

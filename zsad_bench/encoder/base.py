"""What the engine uses of an encoder, whether its weights are in memory or not."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zsad_bench.contract import EncoderSpec, FeatureBatch, FeatureRequest
from zsad_bench.contract.features import CLASS, tap_name, view_name, window_name
from zsad_bench.core.laps import Laps, Meter
from zsad_bench.core.machine import device_name
from zsad_bench.data.geometry import Geometry, image_to_array
from zsad_bench.encoder import tower
from zsad_bench.encoder.compiled import compiled_parts
from zsad_bench.encoder.normalisation import normalise
from zsad_bench.encoder.plan import EncoderPlan
from zsad_bench.encoder.weights import Weights
from zsad_bench.text.cache import TextCache

# Pixels to the device, and normalised there; the same for every request.
PIXELS = "pixels"


class Tokenizer(Protocol):
    """Texts to token ids (n, context_length)."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids (n, context_length), int64."""


class Encoder(ABC):
    """What the engine uses of an encoder, whether its weights are in memory or not.

    Attributes:
        plan: what the encoder is.
        texts: the text embeddings of all prompts so far.
        meter: seconds of :meth:`normalise` and :meth:`encode` by part (:meth:`parts`).
    """

    def __init__(self, plan: EncoderPlan) -> None:
        self.plan = plan
        self.meter = Meter()
        self.texts = TextCache(self, plan.device)

    @property
    def spec(self) -> EncoderSpec:
        """Dimensions."""
        return self.plan.spec

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the input."""
        return self.plan.geometry

    @property
    def weights(self) -> Weights:
        """Where the weights come from."""
        return self.plan.weights

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.plan.device

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``."""
        return self.plan.precision

    @property
    def device_name(self) -> str:
        """What the model runs on, in words."""
        return device_name(self.device)

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images to a normalised float32 tensor (B, 3, S, S)."""
        return self.normalise(np.stack([image_to_array(image, self.geometry) for image in images]))

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Resized pixels (B, S, S, 3) as the tower takes them: (B, 3, S, S) float32 on the device.

        They travel as bytes. On their way to a CUDA device they lie in pinned memory, so that the host need not wait.
        """
        laps = Laps(self.device)
        lying = torch.from_numpy(pixels)
        if self.device.type == "cuda" and torch.cuda.is_available():
            lying = lying.pin_memory()
        moved = normalise(lying.to(self.device, non_blocking=True), self.plan.mean, self.plan.std)
        laps.lap(PIXELS)
        self.meter.add(laps.seconds())
        return moved

    def parts(self, request: FeatureRequest) -> frozenset[str]:
        """Names of the pieces of work that encoding with this request alone consists of; each is timed by itself."""
        blocks = self.spec.n_blocks
        resolved = request.resolve(blocks)
        walk = compiled_parts(resolved.taps) if self.plan.compile else tower.walk_parts(resolved.taps, blocks)
        parts = {PIXELS, CLASS, *walk, *map(tap_name, resolved.taps)}
        if resolved.windows:
            parts |= {tower.WINDOWS, *map(window_name, resolved.windows)}
        return frozenset(parts | {view_name(view) for view in resolved.views if view})

    @abstractmethod
    def ready(self, request: FeatureRequest | None = None) -> None:
        """Do now what is done once and is not encoding: read weights, lay them out, compile, wake up a GPU.

        Args:
            request: what will be encoded; None makes ready for text.
        """

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that the encoder was never trained on; empty if it does not declare its vocabulary."""
        known = self.plan.vocabulary
        return [] if known is None else [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in known]

    @abstractmethod
    def encode(self, pixels: Tensor, request: FeatureRequest, image_ids: Sequence[str] = ()) -> FeatureBatch:
        """Everything ``request`` asks for, for normalised pixels (B, 3, S, S), chunk by chunk.

        Features are float32 tensors on the encoder's device, whose values are rounded to ``feature_bits``. They are
        made in inference mode: autograd takes them only after ``clone()`` outside of it.

        Args:
            pixels: on any device.
            request: what is wanted.
            image_ids: names of the images; by default their positions.

        Raises:
            ValueError: pixels of another shape, taps outside the tower, windows larger than the grid.
            UserError: a feature is too large for 16 bits.
        """

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (n, D) float32 on the encoder's device, not normalised."""

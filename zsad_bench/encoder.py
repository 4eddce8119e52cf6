"""ClipEncoder: an open_clip model with its preprocessing, device and precision."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Protocol, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from zsad_bench import dense
from zsad_bench.chunks import Chunks
from zsad_bench.compiled import CompiledWalk
from zsad_bench.encoder_plan import EncoderPlan, EncoderSpec, plan_encoder
from zsad_bench.errors import UserError
from zsad_bench.features import FeatureBatch, FeatureRequest, Tap
from zsad_bench.precision import PRECISIONS
from zsad_bench.preprocess import Geometry, image_to_array, normalise
from zsad_bench.prompts import TextCache
from zsad_bench.text_tower import TextTower
from zsad_bench.text_tower import supported as text_tower_supported
from zsad_bench.views import VIEWS, augmented_views
from zsad_bench.weights import ModelConfig, Weights, load_weights

RANDOM_SEED = 0


class Tokenizer(Protocol):
    """Texts to token ids (n, context_length)."""

    def __call__(self, texts: list[str]) -> Tensor: ...


class Encoder(ABC):
    """What the engine uses of an encoder, whether its weights are in memory or not.

    Attributes:
        plan: what the encoder is.
        texts: the text embeddings of all prompts so far.
    """

    def __init__(self, plan: EncoderPlan) -> None:
        self.plan = plan
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

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images to a normalised float32 tensor (B, 3, S, S)."""
        return self.normalise(np.stack([image_to_array(image, self.geometry) for image in images]))

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Resized pixels (B, S, S, 3) as the tower takes them: (B, 3, S, S) float32."""
        return normalise(torch.from_numpy(pixels), self.plan.mean, self.plan.std)

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


class ClipEncoder(Encoder):
    """Images and prompts to CLIP features; see :func:`load_encoder` for how to get one."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, plan: EncoderPlan) -> None:
        super().__init__(plan)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.visual = cast(VisionTransformer, model.visual)
        self.chunks = Chunks(plan.chunk_size)

    @cached_property
    def tower(self) -> dense.Tower:
        """The image tower, ready to be walked; made when it is first needed."""
        return dense.Tower(self.visual, pack=False if self.plan.compile else None)

    @cached_property
    def _walk(self) -> Callable[[Tensor, tuple[Tap, ...]], tuple[Tensor, dict[Tap, Tensor]]]:
        return CompiledWalk(self.tower) if self.plan.compile else partial(dense.dense_forward, self.tower)

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
        batch = FeatureBatch.concatenate(parts)
        if not request.pixels:
            return batch
        return replace(batch, pixels=pixels.to(self.device, torch.float32), encode=self.encode)

    def _encode_chunk(self, pixels: Tensor, request: FeatureRequest, image_ids: tuple[str, ...]) -> FeatureBatch:
        pixels = pixels.to(self.device)
        images = self._as_input(pixels)
        resolved = {tap: tap.resolve(self.spec.n_blocks) for tap in request.taps}
        class_tokens, taken = self._walk(images, tuple(sorted(set(resolved.values()), key=repr)))
        windows = dense.window_forward(self.tower, images, self.spec.grid, request.windows) if request.windows else {}
        class_tokens = self._rounded(class_tokens)
        return FeatureBatch(
            image_ids=image_ids,
            class_tokens=class_tokens,
            tokens={tap: self._rounded(taken[target]) for tap, target in resolved.items()},
            grid=self.spec.grid,
            image_size=(self.spec.image_size, self.spec.image_size),
            windows={side: self._rounded(vectors) for side, vectors in windows.items()},
            views={**({0: class_tokens} if 0 in request.views else {}), **self._views(pixels, request.views)},
        )

    def _as_input(self, pixels: Tensor) -> Tensor:
        return pixels.to(PRECISIONS[self.plan.precision])

    def _views(self, pixels: Tensor, views: Sequence[int]) -> dict[int, Tensor]:
        """Class tokens (B, D) of the augmented views of a chunk, as many views at a time as fill a chunk.

        Which views go together depends on the size of the chunk only: a view has the same bits whichever others are
        wanted, for the price of those that nobody wants in a group of which one is wanted.
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


class LazyEncoder(Encoder):
    """An encoder that reads its weights only when something must be encoded: stored features need no model."""

    def __init__(self, plan: EncoderPlan) -> None:
        super().__init__(plan)
        self._loaded: ClipEncoder | None = None

    @property
    def loaded(self) -> bool:
        """Whether the weights were needed."""
        return self._loaded is not None

    def load(self) -> ClipEncoder:
        """The encoder itself."""
        if self._loaded is None:
            self._loaded = build_encoder(self.plan)
            self._loaded.texts = self.texts
        return self._loaded

    def encode(self, pixels: Tensor, request: FeatureRequest, image_ids: Sequence[str] = ()) -> FeatureBatch:
        """See :meth:`Encoder.encode`."""
        return self.load().encode(pixels, request, image_ids)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """See :meth:`Encoder.encode_text`."""
        return self.load().encode_text(prompts)


def _build(config: ModelConfig, image_size: int, precision: str, name: str) -> nn.Module:
    """The bare model. Initialised under a fixed seed, so that random weights are the same everywhere."""
    config = deepcopy(config)
    config["vision_cfg"] = {**config["vision_cfg"], "image_size": image_size}
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    model_class = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        try:
            return cast(nn.Module, model_class(**config, cast_dtype=open_clip.get_cast_dtype(precision)))
        except (TypeError, RuntimeError, AssertionError, ValueError, KeyError) as error:
            raise UserError(f"encoder.model={name}: open_clip cannot build this config ({error})") from None


def _tokenizer(model: str, config: ModelConfig) -> Tokenizer:
    if model.endswith(".json"):
        if "hf_tokenizer_name" in config["text_cfg"]:
            raise UserError(
                f"encoder.model={model}: text_cfg.hf_tokenizer_name works for registered open_clip models only"
            )
        return open_clip.SimpleTokenizer(context_length=cast(int, config["text_cfg"].get("context_length", 77)))
    return cast(Tokenizer, open_clip.get_tokenizer(model))


def load_encoder(
    model: str = "ViT-B-16-plus-240",
    pretrained: str | None = "laion400m_e32",
    image_size: int | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    resize: str = "squash",
    chunk_size: int | str | None = "auto",
    sha256: str | None = None,
    feature_bits: int = 32,
    compile: bool = False,
) -> ClipEncoder:
    """Load any ViT CLIP of open_clip.

    Args:
        model: an open_clip model name, or the path of a model config JSON.
        pretrained: an open_clip tag, the path of a weights file of any form that
            :func:`~zsad_bench.state_dicts.read_state` reads, or None for random weights.
        image_size: side of the square input in pixels, a multiple of the patch size; None is the model's own. Position
            embeddings are interpolated, in float32 whatever the type of the weights and the precision are.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; the weights themselves are cast. ``auto`` takes what is fastest here,
            see :mod:`zsad_bench.precision`. Features come out as float32.
        resize: ``squash`` or ``shortest``, see :class:`~zsad_bench.preprocess.Geometry`.
        chunk_size: images that go through the tower at once; throughput and memory only. ``auto`` or None fits it to
            the device; whatever it is, it is halved when memory runs out.
        sha256: refuse a weights file with another checksum.
        feature_bits: 16 rounds features to the 16 bits in which they are stored (bfloat16 with ``bf16``, where nothing
            is lost, else float16), so that results are the same with and without stored features; 32 keeps float32.
        compile: run the dense walk through ``torch.compile``, which takes a minute or more for every new set of taps.

    Raises:
        UserError: anything of the above that does not exist, fit or load, in one line with the remedy.
    """
    return build_encoder(
        plan_encoder(
            model, pretrained, image_size, device, precision, resize, chunk_size, sha256, feature_bits, compile
        )
    )


def build_encoder(plan: EncoderPlan) -> ClipEncoder:
    """Build the model and read its weights.

    Raises:
        UserError: open_clip cannot build it, it is not a plain ViT, or the weights do not fit.
    """
    name = plan.spec.name
    clip = _build(plan.config, plan.geometry.size, plan.precision, name)
    reason = dense.unsupported_reason(cast(nn.Module, clip.visual))
    if reason:
        raise UserError(
            f"encoder.model={name}: {reason}; choose a plain ViT CLIP such as ViT-B-16-plus-240 or ViT-L-14"
        )
    load_weights(clip, plan.weights, name)
    if PRECISIONS[plan.precision] is not torch.float32:
        open_clip.convert_weights_to_lp(clip, dtype=PRECISIONS[plan.precision])
    return ClipEncoder(clip.to(plan.device), _tokenizer(plan.model, plan.config), plan)


@lru_cache(maxsize=2)
def shared_encoder(
    model: str,
    pretrained: str | None,
    image_size: int | None,
    device: str,
    precision: str,
    resize: str,
    chunk_size: int | str | None,
    sha256: str | None,
    feature_bits: int,
    compile: bool,
) -> LazyEncoder:
    """An encoder that is kept for the process: the jobs of a sweep load CLIP once, and only if they need it."""
    return LazyEncoder(
        plan_encoder(
            model, pretrained, image_size, device, precision, resize, chunk_size, sha256, feature_bits, compile
        )
    )

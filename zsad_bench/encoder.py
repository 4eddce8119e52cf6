"""ClipEncoder: an open_clip model with its preprocessing, device and precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import open_clip
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from zsad_bench import dense
from zsad_bench.errors import UserError
from zsad_bench.features import FeatureBatch, FeatureRequest
from zsad_bench.preprocess import CLIP_MEAN, CLIP_STD, Geometry, image_to_array, normalise
from zsad_bench.prompts import TextCache
from zsad_bench.weights import ModelConfig, Weights, file_metadata, find_weights, load_weights, read_model_config

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RANDOM_SEED = 0


class Tokenizer(Protocol):
    """Texts to token ids (n, context_length)."""

    def __call__(self, texts: list[str]) -> Tensor: ...


@dataclass(frozen=True)
class EncoderSpec:
    """What a method may know of the encoder.

    Attributes:
        name: open_clip model name, or the stem of the config file.
        weights: label of the weights.
        n_blocks: blocks of the image tower.
        width: channels of unprojected tokens.
        embed_dim: channels of projected tokens and text embeddings.
        patch_size: pixels per patch side.
        image_size: side of the square input in pixels.
        grid: patches (h, w).
    """

    name: str
    weights: str
    n_blocks: int
    width: int
    embed_dim: int
    patch_size: int
    image_size: int
    grid: tuple[int, int]


class ClipEncoder:
    """Images and prompts to CLIP features; see :func:`load_encoder` for how to get one."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        name: str,
        weights: Weights,
        geometry: Geometry,
        device: torch.device,
        precision: str,
        chunk_size: int,
        mean: tuple[float, ...] = CLIP_MEAN,
        std: tuple[float, ...] = CLIP_STD,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.weights = weights
        self.geometry = geometry
        self.device = device
        self.precision = precision
        self.chunk_size = chunk_size
        self.mean, self.std = mean, std
        visual = self.visual = cast(VisionTransformer, model.visual)
        self.spec = EncoderSpec(
            name=name,
            weights=weights.label,
            n_blocks=visual.transformer.layers,
            width=visual.transformer.width,
            embed_dim=visual.output_dim,
            patch_size=visual.patch_size[0],
            image_size=geometry.size,
            grid=(geometry.size // visual.patch_size[0], geometry.size // visual.patch_size[1]),
        )
        self.texts: TextCache | None = None
        self.vocabulary: frozenset[str] | None = None
        if weights.path is not None:
            words = file_metadata(weights.path).get("vocabulary")
            self.vocabulary = frozenset(words.split()) if words else None

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images to a normalised float32 tensor (B, 3, S, S)."""
        arrays = np.stack([image_to_array(image, self.geometry) for image in images])
        return normalise(torch.from_numpy(arrays), self.mean, self.std)

    @torch.inference_mode()
    def encode(self, pixels: Tensor, request: FeatureRequest, image_ids: Sequence[str] = ()) -> FeatureBatch:
        """Everything ``request`` asks for, for normalised pixels (B, 3, S, S), chunk by chunk, in float32.

        Raises:
            ValueError: pixels of another shape, taps outside the tower, windows larger than the grid.
        """
        size = self.spec.image_size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(f"pixels must be (B, 3, {size}, {size}), got {tuple(pixels.shape)}")
        if any(not 1 <= side <= min(self.spec.grid) for side in request.windows):
            raise ValueError(f"windows of {request.windows} patches do not fit the grid {self.spec.grid}")
        ids = tuple(image_ids) or tuple(str(index) for index in range(len(pixels)))
        chunks = zip(pixels.split(self.chunk_size), range(0, len(pixels), self.chunk_size), strict=True)
        parts = [self._encode_chunk(chunk, request, ids[start : start + len(chunk)]) for chunk, start in chunks]
        batch = FeatureBatch.concatenate(parts)
        if not request.pixels:
            return batch
        return FeatureBatch(
            batch.image_ids,
            batch.class_tokens,
            batch.tokens,
            batch.grid,
            batch.image_size,
            batch.windows,
            pixels,
            self.encode,
        )

    def _encode_chunk(self, pixels: Tensor, request: FeatureRequest, image_ids: tuple[str, ...]) -> FeatureBatch:
        images = pixels.to(self.device, PRECISIONS[self.precision])
        resolved = {tap: tap.resolve(self.spec.n_blocks) for tap in request.taps}
        class_tokens, taken = dense.dense_forward(self.visual, images, sorted(set(resolved.values()), key=repr))
        windows = {
            side: dense.window_forward(self.visual, images, self.spec.grid, side).float() for side in request.windows
        }
        return FeatureBatch(
            image_ids=image_ids,
            class_tokens=class_tokens.float(),
            tokens={tap: taken[target].float() for tap, target in resolved.items()},
            grid=self.spec.grid,
            image_size=(self.spec.image_size, self.spec.image_size),
            windows=windows,
        )

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str], chunk_size: int = 64) -> Tensor:
        """Text embeddings (n, D) float32, not normalised."""
        tokens = self.tokenizer(list(prompts)).to(self.device)
        encode = cast(Callable[[Tensor], Tensor], self.model.encode_text)
        return torch.cat([encode(chunk).float() for chunk in tokens.split(chunk_size)])

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that the encoder was never trained on; empty if it does not declare its vocabulary."""
        if self.vocabulary is None:
            return []
        return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in self.vocabulary]


def _choose_device(device: str) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    kind = device.split(":")[0]
    if kind not in available:
        raise UserError(f"encoder.device={device}: unknown; choose auto, cpu, cuda or mps")
    if not available[kind]:
        raise UserError(f"encoder.device={device}: torch finds no such device here; use encoder.device=auto")
    return torch.device(device)


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
    chunk_size: int = 8,
    sha256: str | None = None,
) -> ClipEncoder:
    """Load any ViT CLIP of open_clip.

    Args:
        model: an open_clip model name, or the path of a model config JSON.
        pretrained: an open_clip tag, the path of a ``.pt`` or ``.safetensors`` file, or None for random weights.
        image_size: side of the square input in pixels, a multiple of the patch size; None is the model's own. Position
            embeddings are interpolated.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; the weights themselves are cast. Features come out as float32.
        resize: ``squash`` or ``shortest``, see :class:`~zsad_bench.preprocess.Geometry`.
        chunk_size: images that go through the tower at once; throughput and memory only.
        sha256: refuse a weights file with another checksum.

    Raises:
        UserError: anything of the above that does not exist, fit or load, in one line with the remedy.
    """
    if precision not in PRECISIONS:
        raise UserError(f"encoder.precision={precision}: choose from {', '.join(PRECISIONS)}")
    if resize not in ("squash", "shortest"):
        raise UserError(f"encoder.resize={resize}: choose squash or shortest")
    if chunk_size < 1:
        raise UserError(f"encoder.chunk_size={chunk_size}: must be at least 1")
    config = read_model_config(model)
    name = Path(model).stem if model.endswith(".json") else model
    size = _image_size(config, image_size, name)
    target = _choose_device(device)
    weights = find_weights(model, pretrained, sha256)
    clip = _build(config, size, precision, name)
    reason = dense.unsupported_reason(cast(nn.Module, clip.visual))
    if reason:
        raise UserError(
            f"encoder.model={name}: {reason}; choose a plain ViT CLIP such as ViT-B-16-plus-240 or ViT-L-14"
        )
    load_weights(clip, weights, name)
    if PRECISIONS[precision] is not torch.float32:
        open_clip.convert_weights_to_lp(clip, dtype=PRECISIONS[precision])
    mean, std = _pixel_statistics(model, pretrained)
    return ClipEncoder(
        clip.to(target),
        _tokenizer(model, config),
        name=name,
        weights=weights,
        geometry=Geometry(size, resize),
        device=target,
        precision=precision,
        chunk_size=chunk_size,
        mean=mean,
        std=std,
    )


def _image_size(config: ModelConfig, image_size: int | None, name: str) -> int:
    vision = config["vision_cfg"]
    patch, native = vision.get("patch_size"), vision.get("image_size", 224)
    if not isinstance(patch, int) or not isinstance(native, int) or not isinstance(vision.get("layers"), int):
        raise UserError(
            f"encoder.model={name}: not a plain ViT on square images; choose e.g. ViT-B-16-plus-240 or ViT-L-14"
        )
    size = native if image_size is None else image_size
    if size < patch or size % patch:
        nearest = max(patch, round(size / patch) * patch)
        raise UserError(
            f"encoder.image_size={size}: must be a multiple of the patch size {patch}; the nearest is {nearest}"
        )
    return size


def _pixel_statistics(model: str, pretrained: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that a tag was trained with; CLIP's own for local files and random weights."""
    tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
    return tuple(tag.get("mean") or CLIP_MEAN), tuple(tag.get("std") or CLIP_STD)


@lru_cache(maxsize=2)
def shared_encoder(
    model: str,
    pretrained: str | None,
    image_size: int | None,
    device: str,
    precision: str,
    resize: str,
    chunk_size: int,
    sha256: str | None,
) -> ClipEncoder:
    """:func:`load_encoder`, kept for the process: the jobs of a sweep load CLIP once."""
    return load_encoder(model, pretrained, image_size, device, precision, resize, chunk_size, sha256)

"""An encoder before its weights are read: dimensions, preprocessing, precision, and the key of its features."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import open_clip
import torch

from zsad_bench.config.schema import EncoderConfig
from zsad_bench.contract import EncoderSpec
from zsad_bench.core.checksums import file_sha256
from zsad_bench.core.errors import UserError
from zsad_bench.data.geometry import Geometry
from zsad_bench.encoder.memory import automatic_chunk_size
from zsad_bench.encoder.model_files import ModelConfig, file_metadata, read_model_config
from zsad_bench.encoder.normalisation import CLIP_MEAN, CLIP_STD
from zsad_bench.encoder.precision import resolve_precision
from zsad_bench.encoder.weights import Weights, find_weights

FEATURE_BITS = (16, 32)
# Raised when a change of the code changes features, so that stored ones of older versions are not used.
FEATURES_VERSION = 1


@dataclass(frozen=True)
class EncoderPlan:
    """An encoder before its weights are read: everything that its configuration says, checked.

    Attributes:
        model: name or config file, as given.
        config: open_clip's model config.
        weights: where the weights come from.
        geometry: how an image becomes the input.
        device: where the model runs.
        precision: ``fp32``, ``bf16`` or ``fp16``, never ``auto``.
        chunk_size: images that go through the tower at once, to begin with.
        feature_bits: 16 or 32, see :func:`load_encoder`.
        compile: whether the dense walk goes through ``torch.compile``.
        mean, std: pixel statistics of the weights.
        spec: dimensions.
    """

    model: str
    config: ModelConfig
    weights: Weights
    geometry: Geometry
    device: torch.device
    precision: str
    chunk_size: int
    feature_bits: int
    compile: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spec: EncoderSpec

    @cached_property
    def key(self) -> str:
        """Hash of everything that features depend on: weights, model, preprocessing, precision. 24 hex digits.

        The device and the chunk size are left out, because stored features are meant to serve machines of every kind.
        ``compile`` counts: compiled bf16 code rounds at other places, and moved metrics by 0.3 points on the demo.
        """
        content = {
            "weights": "random" if self.weights.path is None else file_sha256(self.weights.path),
            "config": self.config,
            "geometry": asdict(self.geometry),
            "statistics": [self.mean, self.std],
            "precision": [self.precision, self.feature_bits, self.compile],
            "version": FEATURES_VERSION,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]

    @cached_property
    def vocabulary(self) -> frozenset[str] | None:
        """The words that the text tower was trained on, where the weights declare them."""
        words = None if self.weights.path is None else file_metadata(self.weights.path).get("vocabulary")
        return frozenset(words.split()) if words else None

    @property
    def storage(self) -> torch.dtype:
        """The type that features are rounded to and stored in."""
        if self.feature_bits == 32:
            return torch.float32
        return torch.bfloat16 if self.precision == "bf16" else torch.float16


def plan_encoder(keys: EncoderConfig) -> EncoderPlan:
    """Check an encoder's keys and find its weights, without reading them; see :func:`load_encoder`."""
    if keys.resize not in ("squash", "shortest"):
        raise UserError(f"encoder.resize={keys.resize}: choose squash or shortest")
    if keys.feature_bits not in FEATURE_BITS:
        raise UserError(f"encoder.feature_bits={keys.feature_bits}: choose 16 or 32")
    device = choose_device(keys.device)
    precision = resolve_precision(keys.precision, device)
    spec = replace(encoder_spec(keys.model, keys.pretrained, keys.image_size), precision=precision)
    mean, std = _pixel_statistics(keys.model, keys.pretrained)
    return EncoderPlan(
        model=keys.model,
        config=read_model_config(keys.model),
        weights=find_weights(keys.model, keys.pretrained, keys.sha256),
        geometry=Geometry(spec.image_size, keys.resize),
        device=device,
        precision=precision,
        chunk_size=_chunk_size(keys.chunk_size, spec, device),
        feature_bits=keys.feature_bits,
        compile=keys.compile,
        mean=mean,
        std=std,
        spec=spec,
    )


def weights_label(pretrained: str | None) -> str:
    """What result rows call weights: the tag, the file's name, or ``random``."""
    return "random" if pretrained is None else Path(pretrained).name


def encoder_spec(model: str, pretrained: str | None, image_size: int | None) -> EncoderSpec:
    """Dimensions of an encoder, from its model config alone.

    Raises:
        UserError: no such model, not a plain ViT, or an image size that does not fit.
    """
    config = read_model_config(model)
    name = Path(model).stem if model.endswith(".json") else model
    size = _image_size(config, image_size, name)
    vision = config["vision_cfg"]
    patch = cast(int, vision["patch_size"])
    return EncoderSpec(
        name=name,
        weights=weights_label(pretrained),
        n_blocks=cast(int, vision["layers"]),
        width=cast(int, vision.get("width", 768)),
        embed_dim=config["embed_dim"],
        patch_size=patch,
        image_size=size,
        grid=(size // patch, size // patch),
    )


def _chunk_size(wanted: int | str | None, spec: EncoderSpec, device: torch.device) -> int:
    if wanted is None or wanted == "auto":
        return automatic_chunk_size(1 + spec.grid[0] * spec.grid[1], spec.width, device)
    if isinstance(wanted, str) or wanted < 1:
        raise UserError(f"encoder.chunk_size={wanted}: must be a whole number of at least 1, or auto")
    return wanted


def choose_device(device: str) -> torch.device:
    """The device of ``encoder.device``; raises UserError if there is none of that kind."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    kind = device.split(":", maxsplit=1)[0]
    if kind not in available:
        raise UserError(f"encoder.device={device}: unknown; choose auto, cpu, cuda or mps")
    if not available[kind]:
        raise UserError(f"encoder.device={device}: torch finds no such device here; use encoder.device=auto")
    return torch.device(device)


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

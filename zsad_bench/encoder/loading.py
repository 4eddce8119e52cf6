"""From a model name, weights and a device to an encoder, loaded now or when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import lru_cache
from typing import cast

import open_clip
import torch
from torch import Tensor, nn

from zsad_bench.config.schema import EncoderConfig
from zsad_bench.contract import FeatureBatch, FeatureRequest
from zsad_bench.core.errors import UserError
from zsad_bench.encoder import tower
from zsad_bench.encoder.base import Encoder, Tokenizer
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.model_files import ModelConfig
from zsad_bench.encoder.plan import EncoderPlan, plan_encoder
from zsad_bench.encoder.precision import PRECISIONS
from zsad_bench.encoder.weights import load_weights

RANDOM_SEED = 0


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
            self._loaded.texts, self._loaded.meter = self.texts, self.meter
        return self._loaded

    def ready(self, request: FeatureRequest | None = None) -> None:
        """See :meth:`Encoder.ready`."""
        self.load().ready(request)

    def encode(self, pixels: Tensor, request: FeatureRequest, image_ids: Sequence[str] = ()) -> FeatureBatch:
        """See :meth:`Encoder.encode`."""
        return self.load().encode(pixels, request, image_ids)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """See :meth:`Encoder.encode_text`."""
        return self.load().encode_text(prompts)


@contextmanager
def _without_memory() -> Iterator[None]:
    """Parameters of modules that are made meanwhile lie on the meta device: nobody draws or keeps numbers for them.

    Buffers are made as always; those that no checkpoint has, such as attention masks, are ready.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _build(config: ModelConfig, image_size: int, precision: str, name: str, initialise: bool = True) -> nn.Module:
    """The bare model. Initialised under a fixed seed, so that random weights are the same everywhere.

    Args:
        config: open_clip's.
        image_size: side of the input in pixels.
        precision: name of the number format, for what open_clip casts.
        name: of the model, for messages.
        initialise: False leaves the parameters without memory, for weights that are read afterwards.
    """
    config = deepcopy(config)
    config["vision_cfg"] = {**config["vision_cfg"], "image_size": image_size}
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    model_class = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng(devices=[]), nullcontext() if initialise else _without_memory():
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
            :func:`~zsad_bench.encoder.state_dicts.read_state` reads, or None for random weights.
        image_size: side of the square input in pixels, a multiple of the patch size; None is the model's own. Position
            embeddings are interpolated, in float32 whatever the type of the weights and the precision are.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; the weights themselves are cast. ``auto``: what suits the device,
            see :mod:`zsad_bench.encoder.precision`. Features come out as float32.
        resize: ``squash`` or ``shortest``, see :class:`~zsad_bench.data.geometry.Geometry`.
        chunk_size: images that go through the tower at once; throughput and memory only. ``auto`` or None fits it to
            the device; whatever it is, it is halved when memory runs out.
        sha256: refuse a weights file with another checksum.
        feature_bits: 16 rounds features to the 16 bits in which they are stored (bfloat16 with ``bf16``, where nothing
            is lost, else float16), so that results are the same with and without stored features; 32 keeps float32.
        compile: run the dense walk through ``torch.compile``, which takes a minute or more for every new set of taps.

    Raises:
        UserError: anything of the above that does not exist, fit or load, in one line with the remedy.

    Example:
        >>> files = "pkg://zsad_bench/demo_encoder/demo_clip"  # the small encoder that comes with the package
        >>> encoder = load_encoder(f"{files}.json", f"{files}.safetensors")
        >>> encoder.spec.n_blocks, encoder.spec.image_size, encoder.spec.grid
        (4, 112, (14, 14))
    """
    return build_encoder(
        plan_encoder(
            EncoderConfig(
                model=model,
                pretrained=pretrained,
                image_size=image_size,
                resize=resize,
                device=device,
                precision=precision,
                chunk_size=chunk_size,
                sha256=sha256,
                feature_bits=feature_bits,
                compile=compile,
            )
        )
    )


def build_encoder(plan: EncoderPlan) -> ClipEncoder:
    """Build the model and read its weights.

    Raises:
        UserError: open_clip cannot build it, it is not a plain ViT, or the weights do not fit.
    """
    name = plan.spec.name
    clip = _build(plan.config, plan.geometry.size, plan.precision, name, initialise=plan.weights.path is None)
    reason = tower.unsupported_reason(cast(nn.Module, clip.visual))
    if reason:
        raise UserError(
            f"encoder.model={name}: {reason}; choose a plain ViT CLIP such as ViT-B-16-plus-240 or ViT-L-14"
        )
    load_weights(clip, plan.weights, name)
    if PRECISIONS[plan.precision] is not torch.float32:
        open_clip.convert_weights_to_lp(clip, dtype=PRECISIONS[plan.precision])
    return ClipEncoder(clip.to(plan.device), _tokenizer(plan.model, plan.config), plan)


@lru_cache(maxsize=2)
def shared_encoder(keys: EncoderConfig) -> LazyEncoder:
    """An encoder that is kept for the process: the jobs of a sweep load CLIP once, and only if they need it."""
    return LazyEncoder(plan_encoder(keys))

"""Every configuration in ``conf/method``, ready to run with the tiny encoder. No test here."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.contract import EncoderSpec, Method, Prediction, TrainableMethod
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.training.checkpoint import Checkpoint, encoder_facts

NAMES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "method").glob("*.yaml"))
N_IMAGES = 8


@lru_cache(maxsize=2)
def encoder(precision: str = "fp32") -> ClipEncoder:
    return load_encoder(str(TINY_MODEL), None, precision=precision)


def photos(count: int, seed: int = 5) -> torch.Tensor:
    """Smooth noise with a square in every other image: neighbouring patches look alike, as in photos."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 12, 12, generator=random)
    images = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear")
    images[::2, :, 8:24, 16:32] += 1.5
    return images


def flat(*colours: int) -> torch.Tensor:
    """Images of one grey value each, 0 black to 255 white, through the encoder's own preprocessing."""
    return encoder().preprocess([Image.new("RGB", (60, 40), (colour,) * 3) for colour in colours])


def names(count: int = N_IMAGES) -> list[str]:
    return [f"plate/{index}.png" for index in range(count)]


@cache
def config_of(name: str) -> DictConfig:
    return compose_config([f"method={name}"]).method


def make(config: DictConfig, folder: Path, spec: EncoderSpec | None = None) -> Method:
    """A method on an encoder, by default the tiny one; a trainable one gets fresh parameters through a checkpoint."""
    spec = spec or encoder().spec
    plugin = build(config, Method, "method")
    if isinstance(plugin, TrainableMethod):
        parameters = plugin.begin_training(spec, seed=0)
        path = folder / "checkpoint.safetensors"
        facts = {**plugin.must_match(), **encoder_facts(spec)}
        Checkpoint(dict(parameters.state_dict()), facts).save(path)
        plugin = build(cast(DictConfig, OmegaConf.merge(config, {"checkpoint": str(path)})), Method, "method")
    plugin.attach(spec, seed=3)
    return plugin


def start(method: Method, class_name: str = "plate", precision: str = "fp32") -> None:
    """Begin a category: text features, and references for few-shot methods."""
    used = encoder(precision)
    ensemble = load_ensemble(method.prompts) if method.prompts else None
    method.prepare(used.texts.features(ensemble, class_name) if ensemble else None)
    if method.k_shot:
        references = torch.rand(method.k_shot, 3, 48, 48, generator=torch.Generator().manual_seed(9))
        method.take_references(used.encode(references, method.request()))


def predict(
    method: Method,
    pixels: torch.Tensor,
    image_ids: list[str],
    batch_size: int,
    precision: str = "fp32",
    class_name: str = "plate",
) -> Prediction:
    """A whole category through a method."""
    request = method.request()
    start(method, class_name, precision)
    parts = []
    for first in range(0, len(pixels), batch_size):
        chosen = slice(first, first + batch_size)
        parts.append(method.predict(encoder(precision).encode(pixels[chosen], request, image_ids[chosen])))
    final = list(method.finalize(parts))
    return Prediction(torch.cat([part.scores for part in final]), torch.cat([part.maps for part in final]))


def assert_same(actual: Prediction, expected: Prediction, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual.scores, expected.scores, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(actual.maps, expected.maps, atol=tolerance, rtol=tolerance)

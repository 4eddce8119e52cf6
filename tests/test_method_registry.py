"""What every method must keep, over the whole registry: a new method adds no line here."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY_MODEL
from zsad_bench.checkpoint import Checkpoint, encoder_facts
from zsad_bench.config import compose_config
from zsad_bench.encoder import ClipEncoder, load_encoder
from zsad_bench.features import FeatureBatch
from zsad_bench.method import Method, Prediction
from zsad_bench.plugins import build
from zsad_bench.prompts import load_ensemble
from zsad_bench.training import TrainableMethod

NAMES = sorted(path.stem for path in (Path(__file__).resolve().parents[1] / "conf" / "method").glob("*.yaml"))
N_IMAGES = 6


@lru_cache(maxsize=1)
def encoder() -> ClipEncoder:
    return load_encoder(str(TINY_MODEL), None)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Smooth noise with a square in some images: neighbouring patches look alike, as in photos."""
    random = torch.Generator().manual_seed(5)
    coarse = torch.randn(N_IMAGES, 3, 12, 12, generator=random)
    images = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear")
    images[::2, :, 8:24, 16:32] += 1.5
    return images


@pytest.fixture
def method(request: pytest.FixtureRequest, tmp_path: Path) -> Method:
    return make(request.param, tmp_path)


def make(name: str, folder: Path) -> Method:
    """A method ready for the tiny encoder; trainable ones get fresh parameters through a checkpoint."""
    config = compose_config([f"method={name}"]).method
    plugin = build(config, Method, "method")
    if isinstance(plugin, TrainableMethod):
        parameters = plugin.begin_training(encoder().spec, seed=0)
        facts = {**plugin.must_match(), **encoder_facts(encoder().spec)}
        path = folder / "checkpoint.safetensors"
        Checkpoint(dict(parameters.state_dict()), facts).save(path)
        plugin = build({**config, "checkpoint": str(path)}, Method, "method")
    plugin.attach(encoder().spec, seed=3)
    return plugin


def start(method: Method, class_name: str = "plate") -> None:
    ensemble = load_ensemble(method.prompts) if method.prompts else None
    method.prepare(encoder().texts.features(ensemble, class_name) if ensemble else None)
    if method.k_shot:
        references = torch.rand(method.k_shot, 3, 48, 48, generator=torch.Generator().manual_seed(9))
        method.take_references(encoder().encode(references, method.request()))


def predict(method: Method, pixels: torch.Tensor, names: list[str], batch_size: int) -> Prediction:
    """A whole category through a method."""
    start(method)
    parts = []
    for first in range(0, len(pixels), batch_size):
        chosen = slice(first, first + batch_size)
        features: FeatureBatch = encoder().encode(pixels[chosen], method.request(), names[chosen])
        parts.append(method.predict(features))
    final = method.finalize(parts)
    return Prediction(torch.cat([part.scores for part in final]), torch.cat([part.maps for part in final]))


def names(count: int = N_IMAGES) -> list[str]:
    return [f"plate/{index}.png" for index in range(count)]


def assert_same(actual: Prediction, expected: Prediction, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual.scores, expected.scores, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(actual.maps, expected.maps, atol=tolerance, rtol=tolerance)


every_method = pytest.mark.parametrize("method", NAMES, indirect=True)


@every_method
def test_shapes_types_and_batch_sizes(method: Method, pixels: torch.Tensor) -> None:
    """Methods that see one image give the same for batch sizes 1, 3 and 6; with quirks they may leak."""
    predictions = [predict(method, pixels, names(), size) for size in (N_IMAGES, 3, 1)]
    for prediction in predictions:
        assert prediction.scores.shape == (N_IMAGES,)
        assert prediction.maps.shape == (N_IMAGES, 48, 48)
        assert torch.isfinite(prediction.scores).all()
        assert torch.isfinite(prediction.maps).all()
    if method.setting in ("single", "few_shot", "auxiliary") and not method.reference_quirks:
        for prediction in predictions[1:]:
            assert_same(prediction, predictions[0])


@every_method
def test_order_within_a_batch_does_not_matter(method: Method, pixels: torch.Tensor) -> None:
    if method.reference_quirks:
        pytest.skip("reproduces a code whose results may depend on the order")
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    straight = predict(method, pixels, names(), N_IMAGES)
    shuffled = predict(method, pixels[order], [names()[index] for index in order], N_IMAGES)
    assert_same(shuffled, Prediction(straight.scores[order], straight.maps[order]))


@every_method
def test_nothing_is_left_of_the_category_before(method: Method, pixels: torch.Tensor) -> None:
    first = predict(method, pixels, names(), 4)
    predict(method, pixels.flip(0) * 2, names(), 3)
    assert_same(predict(method, pixels, names(), 4), first, tolerance=0)


@every_method
def test_flat_images_give_finite_numbers(method: Method) -> None:
    flat = torch.stack([torch.full((3, 48, 48), value) for value in (-1.8, 0.0, 2.0)])
    prediction = predict(method, flat, names(3), 3)
    assert torch.isfinite(prediction.scores).all()
    assert torch.isfinite(prediction.maps).all()


@every_method
def test_half_precision_features_rank_alike(method: Method, pixels: torch.Tensor) -> None:
    """Features rounded to bfloat16 move scores far less than images differ."""
    if method.setting == "transductive" or method.reference_quirks:
        pytest.skip("ranks within the category are compared for the plain variant of the method")
    start(method)
    features = encoder().encode(pixels, method.request(), names())
    exact = method.predict(features).maps
    start(method)
    rounded = replace(
        features,
        class_tokens=features.class_tokens.bfloat16().float(),
        tokens={tap: tokens.bfloat16().float() for tap, tokens in features.tokens.items()},
        windows={side: tokens.bfloat16().float() for side, tokens in features.windows.items()},
    )
    ranks = [np.argsort(np.argsort(maps.flatten().numpy())) for maps in (exact, method.predict(rounded).maps)]
    assert np.corrcoef(ranks)[0, 1] > 0.99

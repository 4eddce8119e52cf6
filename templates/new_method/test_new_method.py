"""NewMethod: its steps by hand, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from new_method import LAST, NewMethod
from torch.testing import assert_close

from zsad_bench import UserError, load_encoder
from zsad_bench.contract import FeatureBatch, TextFeatures
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.text.ensembles import load_ensemble


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    files = "pkg://zsad_bench/demo_encoder/demo_clip"
    return load_encoder(f"{files}.json", f"{files}.safetensors")


@pytest.fixture(scope="module")
def text(encoder: ClipEncoder) -> TextFeatures:
    return encoder.texts.features(load_ensemble("winclip"), "plate")


def batch_of(encoder: ClipEncoder, method: NewMethod, count: int) -> FeatureBatch:
    side = encoder.spec.image_size
    pixels = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return encoder.encode(pixels, method.request())


def test_the_map_is_the_probability_of_the_abnormal_text(encoder: ClipEncoder, text: TextFeatures) -> None:
    method = NewMethod(sigma=0.0)
    method.attach(encoder.spec)
    method.prepare(text)
    batch = batch_of(encoder, method, 2)
    prediction = method.predict(batch)
    tokens = batch.patches(LAST)
    normal, abnormal = text.vectors()
    first = [float(torch.cosine_similarity(tokens[1, 0], vector, dim=0)) / 0.07 for vector in (normal, abnormal)]
    expected = torch.tensor(first).softmax(dim=0)[1]
    assert_close(prediction.maps[1, 0, 0], expected, atol=1e-5, rtol=1e-5)  # a corner pixel is its patch
    assert_close(prediction.scores, prediction.maps.flatten(1).max(dim=1).values)


@pytest.mark.parametrize(("key", "value"), [("temperature", 0.0), ("sigma", -1.0)])
def test_values_out_of_range_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"method.{key}={value}: must be"):
        NewMethod(**{key: value})


# With a reference code: store its arrays beside this file, and compare to a tolerance that docs/methods.md names.
# def test_official_maps(...): assert_close(ours, recorded, atol=1e-5, rtol=0)

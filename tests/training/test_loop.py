"""Training: a method gets, of every image of a batch, that image's own features, whatever kinds it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench import load_encoder
from zsad_bench.contract import (
    EncoderSpec,
    Facts,
    FeatureBatch,
    FeatureRequest,
    Prediction,
    Sample,
    Stream,
    Tap,
    TextFeatures,
    TrainableMethod,
)
from zsad_bench.data.geometry import image_to_array
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.training.loop import TrainingOptions, train

TAPS = (Tap(2), Tap(-1, Stream(("v",)), projected=True), Tap(-1, class_only=True))
REQUEST = FeatureRequest(taps=TAPS, windows=(2,), views=(0, 17), pixels=True)


class Noting(TrainableMethod):
    """Learns nothing of use, and keeps every batch that it was shown."""

    setting = "auxiliary"

    def __init__(self) -> None:
        super().__init__(name="noting", prompts="winclip")
        self.batches: list[FeatureBatch] = []

    def begin_training(self, encoder: EncoderSpec, seed: int) -> nn.Module:
        self.layer = nn.Linear(encoder.embed_dim, 1)
        return self.layer

    def training_request(self) -> FeatureRequest:
        return REQUEST

    def text_vectors(self, text: TextFeatures) -> Tensor:
        return torch.stack([text.normal.mean(dim=0), text.abnormal.mean(dim=0)])

    def training_loss(self, batch: FeatureBatch, text: Tensor, masks: Tensor) -> Tensor:
        assert len(text) == len(masks) == len(batch)
        self.batches.append(batch)
        return self.layer(batch.class_tokens).square().mean()

    def must_match(self) -> Facts:
        return {}

    def training_settings(self) -> Facts:
        return {}

    def request(self) -> FeatureRequest:
        return REQUEST

    def prepare(self, text: TextFeatures | None) -> None:
        raise NotImplementedError

    def predict(self, batch: FeatureBatch) -> Prediction:
        raise NotImplementedError


@pytest.mark.parametrize("memory_mb", [0, 64])
def test_every_image_comes_with_its_own_features(tmp_path: Path, photo_folder: Path, memory_mb: int) -> None:
    dataset, encoder = MVTec(root=photo_folder, name="photos"), load_encoder(str(TINY_MODEL), None)
    options = TrainingOptions(epochs=2, batch_size=5, shuffle=True, memory_mb=memory_mb)
    method = Noting()
    train(method, dataset, encoder, options, tmp_path / "out.safetensors")
    samples = {sample.image_id: sample for sample in dataset.samples("plate")}
    assert sorted(name for batch in method.batches[:3] for name in batch.image_ids) == sorted(samples)
    assert [len(batch) for batch in method.batches] == [5, 5, 2] * 2

    def alone(sample: Sample) -> FeatureBatch:
        pixels = image_to_array(dataset.read_image(sample), encoder.geometry)[None].copy()
        return encoder.encode(encoder.normalise(pixels), REQUEST, [sample.image_id])

    for batch in method.batches:
        expected = FeatureBatch.concatenate([alone(samples[name]) for name in batch.image_ids])
        torch.testing.assert_close(batch.class_tokens, expected.class_tokens)
        assert batch.pixels is not None
        torch.testing.assert_close(batch.pixels, expected.pixels)
        for kind in ("tokens", "windows", "views"):
            found, wanted = getattr(batch, kind), getattr(expected, kind)
            assert set(found) == set(wanted)
            for key, values in wanted.items():
                torch.testing.assert_close(found[key], values)
                assert values.flatten(1).std(dim=0).max() > 1e-3  # images differ, so a mix would be seen
        assert batch.encode is not None
        torch.testing.assert_close(batch.encode(batch.pixels, FeatureRequest()).class_tokens, batch.class_tokens)

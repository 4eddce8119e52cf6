"""What the engine shows a method, and what it does with the predictions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.miniatures import save_image
from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench import load_dataset
from zsad_bench.config.schema import EncoderConfig
from zsad_bench.contract import Dataset, FeatureBatch, FeatureRequest, Method, Prediction, TextFeatures
from zsad_bench.core.console import Listener
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import LazyEncoder
from zsad_bench.encoder.plan import plan_encoder
from zsad_bench.engine.evaluator import EvaluationOptions, Evaluator
from zsad_bench.feature_store.disk_store import DiskStore
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.results.rows import CategoryResult

seen: list[tuple[str, ...]] = []


class Position(Method):
    """Scores an image by the number of the call that showed it, and writes down what it was shown."""

    setting = "batch"

    def request(self) -> FeatureRequest:
        return FeatureRequest()

    def prepare(self, text: TextFeatures | None) -> None:
        seen.clear()

    def predict(self, batch: FeatureBatch) -> Prediction:
        seen.append(batch.image_ids)
        scores = torch.full((len(batch),), float(len(seen)))
        return Prediction(scores, scores[:, None, None].expand(-1, *batch.image_size))


@pytest.fixture
def plates(photo_folder: Path) -> Dataset:
    """33 images, one more than two batches of 16."""
    for index in range(12, 33):
        pixels = np.full((9, 9, 3), index, np.uint8)
        save_image(photo_folder / "plate" / "test" / "good" / f"{index:03}.png", pixels)
    return load_dataset("mvtec", root=str(photo_folder))


def evaluate(encoder: ClipEncoder, dataset: Dataset, skip: bool = False, **options: object) -> CategoryResult:
    source = FeatureSource(dataset, encoder, skip_unreadable=skip)
    evaluator = Evaluator(source, Position(name="position"), EvaluationOptions(**options))  # type: ignore[arg-type]
    return evaluator.evaluate("plate", dataset.samples("plate")).result


def test_a_short_last_batch_is_filled_and_second_predictions_are_dropped(
    tiny_encoder: ClipEncoder, plates: Dataset
) -> None:
    result = evaluate(tiny_encoder, plates, batch_size=16)
    assert [len(batch) for batch in seen] == [16, 16, 16]
    assert len(set(seen[0]) | set(seen[1]) | set(seen[2])) == 33
    first_call = {name: number for number, batch in reversed(list(enumerate(seen, 1))) for name in batch}
    assert {image.image_id: image.score for image in result.images} == first_call
    assert {image.image_id: image.batch for image in result.images} == {
        name: call - 1 for name, call in first_call.items()
    }
    assert result.filled_with == seen[2][1:]
    assert result.n_images == 33
    assert result.n_skipped == 0
    assert "batch" not in result.notes


def test_the_last_batch_may_be_kept_short_or_dropped(tiny_encoder: ClipEncoder, plates: Dataset) -> None:
    kept = evaluate(tiny_encoder, plates, batch_size=16, last_batch="keep")
    assert [len(batch) for batch in seen] == [16, 16, 1]
    assert kept.n_images == 33
    dropped = evaluate(tiny_encoder, plates, batch_size=16, last_batch="drop")
    assert [len(batch) for batch in seen] == [16, 16]
    assert (dropped.n_images, dropped.n_skipped) == (32, 1)
    assert "last_batch=drop: 1 images left out" in dropped.notes
    with pytest.raises(UserError, match=r"33 images are fewer than batch_size=40.*last_batch=fill"):
        evaluate(tiny_encoder, plates, batch_size=40, last_batch="drop")


def test_a_small_category_is_one_batch_and_the_row_says_so(tiny_encoder: ClipEncoder, plates: Dataset) -> None:
    result = evaluate(tiny_encoder, plates, batch_size=40)
    assert [len(batch) for batch in seen] == [33]
    assert "batch of 33: the category has fewer images than batch_size=40" in result.notes
    assert "batch of" not in evaluate(tiny_encoder, plates, batch_size="all").notes


def test_unreadable_images_leave_no_batch_short(tiny_encoder: ClipEncoder, plates: Dataset) -> None:
    for sample in plates.samples("plate")[5:12:3]:
        sample.path.write_bytes(sample.path.read_bytes()[:30])
    result = evaluate(tiny_encoder, plates, skip=True, batch_size=8)
    assert [len(batch) for batch in seen] == [8, 8, 8, 8]
    assert (result.n_images, result.n_skipped) == (30, 3)
    assert len(set().union(*seen)) == 30


def test_the_callers_method_stays_as_it_was(tiny_encoder: ClipEncoder, plates: Dataset) -> None:
    method = Position(name="position")
    method.attach(tiny_encoder.spec, seed=0)
    before = dict(vars(method))
    Evaluator(FeatureSource(plates, tiny_encoder), method, EvaluationOptions(seed=3))
    assert vars(method) == before


class Greedy(Method):
    """Holds so many MiB while it predicts."""

    setting = "single"

    def __init__(self, mib: int) -> None:
        super().__init__(name=f"greedy{mib}", variant="x", prompts=None)
        self.mib = mib

    def request(self) -> FeatureRequest:
        return FeatureRequest()

    def prepare(self, text: TextFeatures | None) -> None:
        """It reads no text."""

    def predict(self, batch: FeatureBatch) -> Prediction:
        held = torch.ones(self.mib << 18)
        height, width = batch.image_size
        return Prediction(batch.class_tokens[:, 0] + held.sum() * 0, torch.zeros(len(batch), height, width))


@pytest.mark.parametrize("stored", [False, True])
def test_memory_is_the_methods_and_not_that_of_the_job_before(
    stored: bool, photo_folder: Path, tiny_encoder: ClipEncoder, tmp_path: Path
) -> None:
    dataset = load_dataset("mvtec", root=str(photo_folder))
    store = DiskStore(tmp_path / "store", 1.0) if stored else None
    peaks = []
    for mib in (300, 0):
        evaluator = Evaluator(FeatureSource(dataset, tiny_encoder, store), Greedy(mib), EvaluationOptions(4))
        timing = evaluator.evaluate("plate", dataset.samples("plate")).result.timing
        peaks.append(float(timing["peak_memory_mb"]))
        assert "peak_gpu_memory_mb" not in timing
        assert timing["encoded_on"] == timing["device"]
        assert timing["charged_text"] == 0.0
    assert 290 < peaks[0] < 500
    assert peaks[1] < 100


def test_reading_weights_is_not_encoding(photo_folder: Path) -> None:
    dataset, watched = load_dataset("mvtec", root=str(photo_folder)), []

    class Watched(LazyEncoder):
        """Says in which stage it reads its weights."""

        def load(self) -> ClipEncoder:
            if not self.loaded:
                watched.append(stages[-1])
            return super().load()

    stages: list[str] = []

    @contextmanager
    def time(stage: str) -> Iterator[None]:
        stages.append(stage)
        yield
        stages.pop()

    encoder = Watched(plan_encoder(EncoderConfig(str(TINY_MODEL), device="cpu", chunk_size=8, feature_bits=32)))
    samples, listener = dataset.samples("plate"), Listener(time=time)
    features = FeatureSource(dataset, encoder).category("plate", samples, FeatureRequest(), None, listener)
    assert len(list(features.batches([samples]))) == 1
    assert watched == ["setup"]

"""One category through a method: batches -> features -> predictions -> metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsad_bench import console
from zsad_bench.batching import choose_references, compose_batches
from zsad_bench.data import Sample
from zsad_bench.encoder import Encoder
from zsad_bench.environment import facts, peak_memory_mb
from zsad_bench.errors import UserError
from zsad_bench.evaluation import evaluate_images, evaluate_pixels, fingerprint, read_masks
from zsad_bench.feature_source import FeatureSource
from zsad_bench.features import FeatureBatch, FeatureRequest
from zsad_bench.labels import dataset_label
from zsad_bench.listener import Listener
from zsad_bench.maps import resize_maps
from zsad_bench.method import Method, Prediction
from zsad_bench.preprocess import Geometry
from zsad_bench.prompts import PromptEnsemble, TextFeatures, load_ensemble
from zsad_bench.results import CategoryResult, ImageResult
from zsad_bench.seeds import named_seed
from zsad_bench.sharding import Predicted, Shard
from zsad_bench.stacks import Stack
from zsad_bench.summaries import PixelSummary, summarise


@dataclass(frozen=True)
class EvaluationOptions:
    """The protocol's variables, as in ``conf/config.yaml``."""

    batch_size: int | str = 8
    seed: int = 0
    evaluation_size: int | None = None
    sweep200: bool = False


@dataclass(frozen=True)
class CategoryOutput:
    """A category's result, its pixel histograms, and the n maps (H, W) of its samples for making pictures."""

    result: CategoryResult
    samples: list[Sample]
    maps: Stack[np.float32]
    summary: PixelSummary | None = None


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


class Evaluator:
    """A method on a dataset with an encoder, ready to evaluate one category after another.

    Args:
        source: the dataset, the encoder, and where features come from.
        method: the plugin.
        options: the protocol's variables.
        wanted: what other methods will ask of the same images; encoded in the same pass if there is one.
        folder: where anomaly maps that are too many for memory lie for the moment; None for the system's folder.

    Raises:
        UserError: on construction, when the method's settings do not fit the encoder, its prompts do not exist, or it
            refuses the dataset.
    """

    def __init__(
        self,
        source: FeatureSource,
        method: Method,
        options: EvaluationOptions,
        wanted: FeatureRequest | None = None,
        folder: Path | None = None,
    ) -> None:
        self.source, self.method, self.options, self.wanted, self.folder = source, method, options, wanted, folder
        self.dataset, self.encoder = source.dataset, source.encoder
        self.ensemble = load_ensemble(method.prompts) if method.prompts else None
        method.attach(self.encoder.spec, options.seed)
        method.variant_on(dataset_label(self.dataset), self.dataset.categories)
        self.request = method.request()
        if self.ensemble is not None:
            warn_unknown_states(self.encoder, self.ensemble)

    def evaluate(
        self,
        category: str,
        samples: Sequence[Sample],
        advance: Callable[[int], None] = lambda _: None,
        listener: Listener | None = None,
    ) -> CategoryOutput:
        """Predict and measure one category.

        Args:
            category: of all the samples.
            samples: its images.
            advance: hears how many images each predicted batch had.
            listener: hears how encoding goes on.

        Raises:
            UserError: an unreadable image (unless skipped), a mask of another size, scores that are not finite.
        """
        return self.measure(category, samples, self.predict(category, samples, None, advance, listener))

    def predict(
        self,
        category: str,
        samples: Sequence[Sample],
        shard: Shard | None = None,
        advance: Callable[[int], None] = lambda _: None,
        listener: Listener | None = None,
    ) -> Predicted:
        """Predictions of all batches of a category, or of those of a shard; see :meth:`evaluate`."""
        watch = _Stopwatch()
        with watch.time("text"):
            self.method.prepare(self._text(category))
        if self.method.k_shot:
            with watch.time("encode"):
                self.method.take_references(self._references(category))
        batches = self._compose(category, samples)
        mine = range(len(batches)) if shard is None else shard.batches(len(batches))
        # Batches before the first one of a shard are predicted only for what the method remembers of them.
        start = max(0, mine.start - self._lookback(shard))
        chosen = batches[start : mine.stop] if mine else []
        done: list[str] = []
        unreadable: list[str] = []
        scores: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
        maps = Stack(np.float32, self.folder)
        numbers: list[int] = []
        timed = replace(listener or Listener(), time=watch.time)
        found = self.source.batches(category, chosen, self.request, self.wanted, timed, samples)
        for number, batch in enumerate(found, start=start):
            prediction = None
            if batch.features is not None:
                with watch.time("score"):
                    prediction = self.method.predict(batch.features)
            if number not in mine:
                continue
            unreadable += map(str, batch.unreadable)
            if prediction is not None:
                done += [sample.image_id for sample in batch.samples]
                scores.append(self._keep(category, prediction, maps))
                numbers.append(number)
            advance(len(batch.samples) + len(batch.unreadable))
        sizes = tuple(map(len, scores[1:]))
        joined = np.concatenate(scores)
        return Predicted(tuple(done), joined, maps, sizes, tuple(numbers), tuple(unreadable), watch.seconds)

    def measure(self, category: str, samples: Sequence[Sample], predicted: Predicted) -> CategoryOutput:
        """Metrics of the predictions of a whole category; see :meth:`evaluate`."""
        if not predicted.image_ids:
            raise UserError(
                f"{self.dataset.name}/{category}: no image could be read; the first: {predicted.unreadable[0]}"
            )
        by_id = {sample.image_id: sample for sample in samples}
        done = [by_id[name] for name in predicted.image_ids]
        batches = np.repeat(predicted.numbers, predicted.sizes).tolist()
        watch = _Stopwatch(dict(predicted.seconds))
        with watch.time("score"):
            scores, maps = self._finish(category, predicted)
        with watch.time("metrics"):
            metrics, notes, summary = self._measure(done, scores, maps)
        images = [
            ImageResult(sample.image_id, sample.label, sample.defect_type, float(score), number, sample.group)
            for sample, score, number in zip(done, scores, batches, strict=True)
        ]
        result = CategoryResult(
            category=category,
            n_images=len(done),
            n_anomalous=sum(sample.label == 1 for sample in done),
            n_skipped=len(predicted.unreadable),
            metrics=metrics,
            notes="; ".join([f"left out: {error}" for error in predicted.unreadable] + notes),
            fingerprint=fingerprint(samples),
            images=tuple(sorted(images, key=lambda image: image.image_id)),
            timing=self._timing(watch, len(done)),
        )
        return CategoryOutput(result, done, maps, summary)

    def _lookback(self, shard: Shard | None) -> int:
        if shard is None:
            return 0
        if self.method.lookback is None:
            raise UserError(
                f"shard={shard.index}/{shard.count}: with these settings, predictions of {self.method.name} depend on "
                "all batches before them; use shard_by=category"
            )
        return self.method.lookback

    def _text(self, category: str) -> TextFeatures | None:
        if self.ensemble is None:
            return None
        readable = self.ensemble.class_names == "readable"
        name = self.dataset.class_name(category) if readable else category
        return self.encoder.texts.features(self.ensemble, name, self.dataset.is_texture(category))

    def _references(self, category: str) -> FeatureBatch:
        seed = named_seed(self.options.seed, self.dataset.name, category, "references")
        chosen = choose_references(self.dataset, category, self.method.k_shot, seed)
        return self.source.references(category, chosen, self.request)

    def _compose(self, category: str, samples: Sequence[Sample]) -> list[list[Sample]]:
        seed = named_seed(self.options.seed, self.dataset.name, category)
        return compose_batches(samples, self.options.batch_size, seed)

    def _finish(self, category: str, predicted: Predicted) -> tuple[NDArray[np.float32], Stack[np.float32]]:
        predictions = predicted.predictions
        final = self.method.finalize(predictions)
        if final is predictions:
            return predicted.scores, predicted.maps
        maps = Stack(np.float32, self.folder)
        return np.concatenate([self._keep(category, prediction, maps) for prediction in final]), maps

    def _keep(self, category: str, prediction: Prediction, maps: Stack[np.float32]) -> NDArray[np.float32]:
        """Add a prediction's maps to ``maps``; its scores (B,)."""
        scores, fresh = prediction.scores.float().cpu().numpy(), prediction.maps.float().cpu().numpy()
        if not np.isfinite(scores).all() or not np.isfinite(fresh).all():
            raise UserError(
                f"{self.dataset.name}/{category}: method {self.method.name} gave scores or maps that are not finite; "
                "check its settings, or use encoder.precision=fp32"
            )
        for anomaly_map in fresh:
            maps.append(anomaly_map)
        return scores

    def _measure(
        self, samples: list[Sample], scores: NDArray[np.float32], maps: Stack[np.float32]
    ) -> tuple[dict[str, float], list[str], PixelSummary | None]:
        size, folder = self.options.evaluation_size or self.encoder.geometry.size, self.folder
        masks = read_masks(self.dataset, samples, Geometry(size, self.encoder.geometry.resize), folder)
        image_values, image_notes = evaluate_images(samples, scores)
        if maps.shape[1:] != (size, size):
            maps = Stack.of((resize_maps(anomaly_map[None], size)[0] for anomaly_map in maps), np.float32, folder)
        pixel_values, pixel_notes = evaluate_pixels(samples, masks, maps, self.options.sweep200, folder)
        summary = summarise([sample.image_id for sample in samples], masks, maps, folder)
        return {**image_values, **pixel_values}, image_notes + pixel_notes, summary

    def _timing(self, watch: _Stopwatch, n_images: int) -> dict[str, float | str]:
        seconds = {f"seconds_{stage}": round(value, 4) for stage, value in watch.seconds.items()}
        speed = n_images / max(sum(watch.seconds.values()), 1e-9)
        machine: dict[str, float | str] = {
            "peak_memory_mb": peak_memory_mb(),
            "precision": self.encoder.precision,
            **facts(self.encoder.device),
        }
        return {**seconds, "images_per_second": round(speed, 3), **machine}


def warn_unknown_states(encoder: Encoder, ensemble: PromptEnsemble) -> None:
    """Warn of state phrases of which the encoder knows no word: their embeddings say nothing about the state."""
    deaf = set()
    for phrase in (*ensemble.normal, *ensemble.abnormal):
        words = re.findall(r"[a-z0-9]+", phrase.replace("{}", " ").lower())
        if words and len(encoder.unknown_words(" ".join(words))) == len(words):
            deaf.add(" ".join(words))
    if deaf:
        console.warn(
            f"the encoder {encoder.spec.name} was never trained on the state words {', '.join(sorted(deaf))} "
            f"of the prompts {ensemble.name}; these prompts carry no information for it"
        )

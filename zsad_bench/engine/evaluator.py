"""One category through a method: batches -> features -> predictions -> metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsad_bench.contract import FeatureRequest, Method, Prediction, Sample, TextFeatures
from zsad_bench.core.console import Listener
from zsad_bench.core.errors import UserError
from zsad_bench.core.laps import charge
from zsad_bench.core.machine import facts
from zsad_bench.core.memory import PeakMemory
from zsad_bench.core.seeds import named_seed
from zsad_bench.core.spooled import Stack
from zsad_bench.data.geometry import Geometry
from zsad_bench.data.images import UnreadableImage
from zsad_bench.engine.batches import Batch, category_references, compose_batches, shuffled
from zsad_bench.engine.dataset_names import dataset_label
from zsad_bench.engine.identity import fingerprint
from zsad_bench.engine.measure import evaluate_images, evaluate_pixels, read_masks
from zsad_bench.engine.meters import Meters
from zsad_bench.engine.predictions import Predicted, Predictions
from zsad_bench.engine.stopwatch import SCORE, SETUP
from zsad_bench.engine.unknown_words import warn_unknown_states
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.results.rows import CategoryResult, ImageResult
from zsad_bench.statistics.histograms import PixelSummary
from zsad_bench.text.cache import TEXT
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.toolkit.maps import resize_maps


@dataclass(frozen=True)
class EvaluationOptions:
    """The protocol's variables, as in ``conf/config.yaml``."""

    batch_size: int | str = 8
    last_batch: str = "fill"
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
        # A copy: the caller's method keeps the encoder and the seed that it was attached to.
        self.source, self.method, self.options, self.wanted, self.folder = source, copy(method), options, wanted, folder
        self.dataset, self.encoder = source.dataset, source.encoder
        self.ensemble = load_ensemble(method.prompts) if method.prompts else None
        self.method.attach(self.encoder.spec, options.seed)
        self.method.variant_on(dataset_label(self.dataset), self.dataset.categories)
        self.request = self.method.request()
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
            advance: hears how many more images are done.
            listener: hears how encoding goes on.

        Raises:
            UserError: an unreadable image (unless skipped), a mask of another size, scores that are not finite, or no
                image that could be scored.
        """
        with PeakMemory(self.encoder.device) as memory:
            meters = Meters(self.encoder.device, memory)
            return self._evaluate(category, samples, advance, listener or Listener(), meters)

    def _evaluate(
        self,
        category: str,
        samples: Sequence[Sample],
        advance: Callable[[int], None],
        listener: Listener,
        meters: Meters,
    ) -> CategoryOutput:
        references = category_references(self.dataset, category, self.method.k_shot, self.options.seed)
        read = fingerprint(samples, references)
        watch, timed = meters.watch, meters.listener(listener)
        text = self._text(category, meters)
        features = self.source.category(category, samples, self.request, self.wanted, timed)
        advance(len(features.unreadable))
        # What was encoded now, perhaps for other methods too, is none of this one's memory.
        meters.memory.settle()
        with watch.time(SCORE):
            self.method.prepare(text)
        if self.method.k_shot:
            gallery = self.source.references(category, references, self.request, timed)
            with watch.time(SCORE):
                self.method.take_references(gallery)
        readable = [sample for sample in samples if sample.image_id not in features.unreadable]
        batches = self._compose(category, readable, next(iter(features.unreadable.values()), None))
        scores: list[NDArray[np.float32]] = []
        maps = Stack(np.float32, self.folder)
        found = features.batches([batch.samples for batch in batches])
        for batch, own in zip(batches, found, strict=True):
            with watch.time(SCORE):
                prediction = self.method.predict(own)
            scores.append(self._keep(category, prediction, maps, batch.n_new))
            advance(batch.n_new)
        predicted = Predicted(batches, np.concatenate(scores), maps)
        with watch.time(SCORE):
            final_scores, final_maps = self._finish(category, predicted)
        with watch.time("metrics"):
            metrics, notes, summary = self._measure(predicted.samples, final_scores, final_maps)
        left_out = [f"left out: {error}" for error in features.unreadable.values()]
        notes = [*left_out, *self._batch_notes(batches, len(readable)), *notes]
        images = [
            ImageResult(sample.image_id, sample.label, sample.defect_type, float(score), number, sample.group)
            for sample, score, number in zip(predicted.samples, final_scores, _numbers(batches), strict=True)
        ]
        result = CategoryResult(
            category=category,
            n_images=len(images),
            n_anomalous=sum(sample.label == 1 for sample in predicted.samples),
            n_skipped=len(samples) - len(images),
            metrics=metrics,
            notes="; ".join(notes),
            fingerprint=read,
            images=tuple(sorted(images, key=lambda image: image.image_id)),
            filled_with=tuple(sample.image_id for sample in batches[-1].samples[batches[-1].n_new :]),
            timing={**meters.timing(len(images)), "precision": self.encoder.precision, **facts(self.encoder.device)},
        )
        return CategoryOutput(result, predicted.samples, final_maps, summary)

    def _compose(self, category: str, readable: Sequence[Sample], error: UnreadableImage | None) -> list[Batch]:
        """The batches of a category; raises UserError if there is none."""
        options, name = self.options, self.dataset.name
        order = shuffled(readable, named_seed(options.seed, name, category))
        fill = named_seed(options.seed, name, category, "last batch")
        batches = compose_batches(order, options.batch_size, fill, options.last_batch)
        if not batches and error is not None and not readable:
            raise UserError(f"{name}/{category}: no image could be read; the first: {error}")
        if not batches:
            raise UserError(
                f"{name}/{category}: {len(readable)} images are fewer than batch_size={options.batch_size}, and "
                "last_batch=drop leaves none; use a smaller batch_size, or last_batch=fill"
            )
        return batches

    def _batch_notes(self, batches: Sequence[Batch], n_readable: int) -> list[str]:
        """What a row must say of images without a batch, and of batches that are smaller than its batch size."""
        wanted, size = self.options.batch_size, len(batches[0].samples)
        dropped = n_readable - sum(batch.n_new for batch in batches)
        notes = [f"last_batch=drop: {dropped} images left out"] if dropped else []
        if wanted != "all" and size < int(wanted):
            notes.append(f"batch of {size}: the category has fewer images than batch_size={wanted}")
        return notes

    def _text(self, category: str, meters: Meters) -> TextFeatures | None:
        """Text features of a category; whoever encoded them, the method is charged what that took."""
        if self.ensemble is None:
            return None
        readable = self.ensemble.class_names == "readable"
        name = self.dataset.class_name(category) if readable else category
        texture, texts = self.dataset.is_texture(category), self.encoder.texts
        prompts = [prompt for state in self.ensemble.write(name, texture) for prompt in state]
        if texts.may_encode and not texts.knows(prompts):
            with meters.watch.time(SETUP):
                self.encoder.ready()
        with meters.watch.time("text"):
            features = texts.features(self.ensemble, name, texture)
        cost = texts.cost(prompts)
        meters.text.add(charge([cost] if cost else [], {TEXT}))
        return features

    def _finish(self, category: str, predicted: Predicted) -> tuple[NDArray[np.float32], Stack[np.float32]]:
        predictions = Predictions(predicted)
        final = self.method.finalize(predictions)
        if final is predictions:
            return predicted.scores, predicted.maps
        maps = Stack(np.float32, self.folder)
        return np.concatenate([self._keep(category, prediction, maps) for prediction in final]), maps

    def _keep(
        self, category: str, prediction: Prediction, maps: Stack[np.float32], count: int | None = None
    ) -> NDArray[np.float32]:
        """Add the maps of the first ``count`` images (all by default) to ``maps``; their scores (count,).

        Here, and only here, results leave the device.
        """
        scores = prediction.scores[:count].float().cpu().numpy()
        fresh = prediction.maps[:count].float().cpu().numpy()
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
        pixels = evaluate_pixels(samples, masks, maps, self.options.sweep200, folder)
        return {**image_values, **pixels.metrics}, image_notes + pixels.notes, pixels.summary


def _numbers(batches: Sequence[Batch]) -> list[int]:
    """The number of its batch for each image, in the order of scores."""
    return [number for number, batch in enumerate(batches) for _ in batch.new]

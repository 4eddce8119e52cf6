"""One category through a method: batches -> features -> predictions -> metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from zsad_bench import console
from zsad_bench.batching import LoadedBatch, choose_references, compose_batches, load_batches
from zsad_bench.data import Dataset, Sample
from zsad_bench.encoder import ClipEncoder
from zsad_bench.environment import facts, peak_memory_mb
from zsad_bench.errors import UserError
from zsad_bench.evaluation import evaluate_images, evaluate_pixels, fingerprint, read_masks
from zsad_bench.features import FeatureBatch
from zsad_bench.maps import resize_maps
from zsad_bench.method import Method, Prediction
from zsad_bench.preprocess import Geometry, normalise
from zsad_bench.prompts import PromptEnsemble, TextCache, TextFeatures, load_ensemble
from zsad_bench.results import CategoryResult, ImageResult
from zsad_bench.seeds import named_seed
from zsad_bench.summaries import PixelSummary, summarise


@dataclass(frozen=True)
class EvaluationOptions:
    """The protocol's variables, as in ``conf/config.yaml``."""

    batch_size: int | str = 8
    seed: int = 0
    evaluation_size: int | None = None
    sweep200: bool = False
    skip_unreadable: bool = False


@dataclass(frozen=True)
class CategoryOutput:
    """A category's result, its pixel histograms, and the maps (n, H, W) float32 of its samples for making pictures."""

    result: CategoryResult
    samples: list[Sample]
    maps: NDArray[np.float32]
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

    Raises:
        UserError: on construction, when the method's settings do not fit the encoder or its prompts do not exist.
    """

    def __init__(self, dataset: Dataset, method: Method, encoder: ClipEncoder, options: EvaluationOptions) -> None:
        self.dataset, self.method, self.encoder, self.options = dataset, method, encoder, options
        self.ensemble = load_ensemble(method.prompts) if method.prompts else None
        method.attach(encoder.spec, options.seed)
        self.request = method.request()
        if self.ensemble is not None:
            warn_unknown_states(encoder, self.ensemble)

    def evaluate(
        self, category: str, samples: Sequence[Sample], advance: Callable[[int], None] = lambda _: None
    ) -> CategoryOutput:
        """Predict and measure one category; ``advance`` hears how many images each batch had.

        Raises:
            UserError: an unreadable image (unless skipped), a mask of another size, scores that are not finite.
        """
        watch = _Stopwatch()
        with watch.time("text"):
            self.method.prepare(self._text(category))
        if self.method.k_shot:
            with watch.time("encode"):
                self.method.take_references(self._references(category))
        done: list[Sample] = []
        unreadable: list[UserError] = []
        predictions: list[Prediction] = []
        batches: list[int] = []
        for number, loaded in enumerate(self._batches(category, samples, watch)):
            unreadable += loaded.unreadable
            if loaded.samples:
                done += loaded.samples
                batches += [number] * len(loaded.samples)
                predictions.append(self._predict(loaded, watch))
            advance(len(loaded.samples) + len(loaded.unreadable))
        if not done:
            raise UserError(f"{self.dataset.name}/{category}: no image could be read; the first: {unreadable[0]}")
        with watch.time("score"):
            scores, maps = self._finish(category, predictions)
        with watch.time("metrics"):
            metrics, notes, summary = self._measure(done, scores, maps)
        images = [
            ImageResult(sample.image_id, sample.label, sample.defect_type, float(score), number)
            for sample, score, number in zip(done, scores, batches, strict=True)
        ]
        result = CategoryResult(
            category=category,
            n_images=len(done),
            n_anomalous=sum(sample.label == 1 for sample in done),
            n_skipped=len(unreadable),
            metrics=metrics,
            notes="; ".join([f"left out: {error}" for error in unreadable] + notes),
            fingerprint=fingerprint(samples),
            images=tuple(sorted(images, key=lambda image: image.image_id)),
            timing=self._timing(watch, len(done)),
        )
        return CategoryOutput(result, done, maps, summary)

    def _text(self, category: str) -> TextFeatures | None:
        if self.ensemble is None:
            return None
        readable = self.ensemble.class_names == "readable"
        name = self.dataset.class_name(category) if readable else category
        return text_cache(self.encoder).features(self.ensemble, name, self.dataset.is_texture(category))

    def _references(self, category: str) -> FeatureBatch:
        seed = named_seed(self.options.seed, self.dataset.name, category, "references")
        chosen = choose_references(self.dataset, category, self.method.k_shot, seed)
        pixels = self.encoder.preprocess([self.dataset.read_image(sample) for sample in chosen])
        return self.encoder.encode(pixels, self.request, [sample.image_id for sample in chosen])

    def _batches(self, category: str, samples: Sequence[Sample], watch: _Stopwatch) -> Iterator[LoadedBatch]:
        seed = named_seed(self.options.seed, self.dataset.name, category)
        batches = compose_batches(samples, self.options.batch_size, seed)
        loader = load_batches(self.dataset, batches, self.encoder.geometry, self.options.skip_unreadable)
        while True:
            with watch.time("load"):
                loaded = next(loader, None)
            if loaded is None:
                return
            yield loaded

    def _predict(self, loaded: LoadedBatch, watch: _Stopwatch) -> Prediction:
        with watch.time("encode"):
            pixels = normalise(torch.from_numpy(loaded.pixels), self.encoder.mean, self.encoder.std)
            features = self.encoder.encode(pixels, self.request, [sample.image_id for sample in loaded.samples])
        with watch.time("score"):
            return self.method.predict(features)

    def _finish(self, category: str, predictions: list[Prediction]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        final = self.method.finalize(predictions)
        scores = torch.cat([prediction.scores for prediction in final]).float().cpu().numpy()
        maps = torch.cat([prediction.maps for prediction in final]).float().cpu().numpy()
        if not np.isfinite(scores).all() or not np.isfinite(maps).all():
            raise UserError(
                f"{self.dataset.name}/{category}: method {self.method.name} gave scores or maps that are not finite; "
                "check its settings, or use encoder.precision=fp32"
            )
        return scores, maps

    def _measure(
        self, samples: list[Sample], scores: NDArray[np.float32], maps: NDArray[np.float32]
    ) -> tuple[dict[str, float], list[str], PixelSummary | None]:
        size = self.options.evaluation_size or self.encoder.geometry.size
        masks = read_masks(self.dataset, samples, Geometry(size, self.encoder.geometry.resize))
        image_values, image_notes = evaluate_images(samples, scores)
        resized = resize_maps(maps, size)
        pixel_values, pixel_notes = evaluate_pixels(samples, masks, resized, self.options.sweep200)
        summary = summarise([sample.image_id for sample in samples], masks, resized)
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


def text_cache(encoder: ClipEncoder) -> TextCache:
    """The text embeddings of an encoder, kept with it so that all jobs share them."""
    if encoder.texts is None:
        encoder.texts = TextCache(encoder)
    return encoder.texts


def warn_unknown_states(encoder: ClipEncoder, ensemble: PromptEnsemble) -> None:
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

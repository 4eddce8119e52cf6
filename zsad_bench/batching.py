"""Which images a method sees together, and how they are read while the encoder is busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsad_bench.data import Dataset, Sample, UnreadableImage
from zsad_bench.errors import UserError
from zsad_bench.preprocess import Geometry, image_to_array

LOADER_THREADS = 2


def limited(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most ``limit`` samples, spread evenly over the sorted list; about half anomalous where there are any."""
    if limit is None or limit >= len(samples):
        return list(samples)
    anomalous = [sample for sample in samples if sample.label == 1]
    others = [sample for sample in samples if sample.label != 1]
    n_anomalous = min(len(anomalous), max(limit - len(others), (limit + 1) // 2))
    return sorted(
        _spread(anomalous, n_anomalous) + _spread(others, limit - n_anomalous), key=lambda sample: sample.image_id
    )


def choose_references(dataset: Dataset, category: str, k_shot: int, seed: int) -> list[Sample]:
    """``k_shot`` normal training images, drawn by ``seed``; a larger ``k_shot`` keeps those of a smaller one.

    Raises:
        UserError: the category has fewer.
    """
    normal = [sample for sample in dataset.listed(category, "train") if sample.label == 0]
    if len(normal) < k_shot:
        raise UserError(
            f"{dataset.root}: category {category} has {len(normal)} normal training images, fewer than "
            f"method.k_shot={k_shot}; lower k_shot or use a zero-shot method"
        )
    order = np.random.default_rng(seed).permutation(len(normal))
    return [normal[index] for index in order[:k_shot]]


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    return [samples[index] for index in np.linspace(0, len(samples) - 1, count).round().astype(int)] if count else []


def compose_batches(samples: Sequence[Sample], batch_size: int | str, seed: int) -> list[list[Sample]]:
    """Batches of one category, in a random order drawn from ``seed``.

    On disk images are sorted by defect type: without shuffling a batch would hold normal images only, or one kind of
    defect only, and methods that compare the images of a batch would be judged on that accident. The last batch may be
    smaller. ``all`` makes one batch.
    """
    order = np.random.default_rng(seed).permutation(len(samples))
    size = len(samples) if batch_size == "all" else int(batch_size)
    shuffled = [samples[index] for index in order]
    return [shuffled[start : start + size] for start in range(0, len(shuffled), size)]


@dataclass(frozen=True)
class LoadedBatch:
    """Images of one batch as (B, S, S, 3) uint8; unreadable ones are left out and counted."""

    samples: tuple[Sample, ...]
    pixels: NDArray[np.uint8]
    unreadable: tuple[UnreadableImage, ...]


def load_batches(
    dataset: Dataset, batches: Sequence[Sequence[Sample]], geometry: Geometry, skip_unreadable: bool
) -> Iterator[LoadedBatch]:
    """Read and resize batch after batch, one batch ahead of the consumer, in order.

    Raises:
        UnreadableImage: unless ``skip_unreadable``; names the file.
    """

    def read(sample: Sample) -> NDArray[np.uint8]:
        return image_to_array(dataset.read_image(sample, geometry.size), geometry)

    with ThreadPoolExecutor(LOADER_THREADS) as pool:
        pending: list[Future[NDArray[np.uint8]]] = (
            [pool.submit(read, sample) for sample in batches[0]] if batches else []
        )
        try:
            for position, batch in enumerate(batches):
                current = pending
                following = batches[position + 1] if position + 1 < len(batches) else ()
                pending = [pool.submit(read, sample) for sample in following]
                yield _gather(batch, current, skip_unreadable)
        finally:
            for future in pending:
                future.cancel()


def _gather(batch: Sequence[Sample], futures: list[Future[NDArray[np.uint8]]], skip_unreadable: bool) -> LoadedBatch:
    kept, arrays, unreadable = [], [], []
    for sample, future in zip(batch, futures, strict=True):
        try:
            arrays.append(future.result())
            kept.append(sample)
        except UnreadableImage as error:
            if not skip_unreadable:
                raise
            unreadable.append(error)
    pixels = np.stack(arrays) if arrays else np.empty((0, 0, 0, 3), np.uint8)
    return LoadedBatch(tuple(kept), pixels, tuple(unreadable))

"""Images are read and resized in threads of their own while the encoder is busy."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from zsad_bench.contract import Dataset, Sample
from zsad_bench.data.geometry import Geometry, image_to_array
from zsad_bench.data.images import UnreadableImage

# More threads than this seldom read faster, and each holds a whole photo.
MOST_WORKERS = 8
# Images that are read ahead of the encoder, and as many more for each worker.
AHEAD, AHEAD_PER_WORKER = 32, 4

Read = Callable[[Sample], NDArray[np.uint8]]


def loader_workers(workers: int | None = None) -> int:
    """Threads that read images; None are as many as this process has cores, at most :data:`MOST_WORKERS`."""
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def images_ahead(workers: int) -> int:
    """How many images are read ahead: enough to keep the encoder busy, few enough to hold in memory."""
    return AHEAD + AHEAD_PER_WORKER * workers


@dataclass(frozen=True)
class LoadedBatch:
    """Images of one batch as (B, S, S, 3) uint8."""

    samples: tuple[Sample, ...]
    pixels: NDArray[np.uint8]


def reader(dataset: Dataset, geometry: Geometry) -> Read:
    """Reads and resizes an image: (S, S, 3) uint8; raises UnreadableImage."""
    return lambda sample: image_to_array(dataset.read_image(sample, geometry.size), geometry)


def load_batches(
    dataset: Dataset, batches: Sequence[Sequence[Sample]], geometry: Geometry, workers: int | None = None
) -> Iterator[LoadedBatch]:
    """Read and resize batch after batch in order, some images (:func:`images_ahead`) ahead of the consumer.

    Pillow decodes without Python's lock, so threads read in parallel. The images are the same for any number of them.

    Args:
        dataset: reads the images.
        batches: of images.
        geometry: how an image becomes the input.
        workers: threads, see :func:`loader_workers`.

    Raises:
        UnreadableImage: names the file.
    """
    read, workers = reader(dataset, geometry), loader_workers(workers)
    waiting = iter([sample for batch in batches for sample in batch])
    pending: deque[Future[NDArray[np.uint8]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                pending.extend(
                    pool.submit(read, sample)
                    for sample in islice(waiting, max(0, len(batch) + images_ahead(workers) - len(pending)))
                )
                arrays = [pending.popleft().result() for _ in batch]
                yield LoadedBatch(tuple(batch), np.stack(arrays) if arrays else np.empty((0, 0, 0, 3), np.uint8))
        finally:
            for future in pending:
                future.cancel()


def unreadable_images(
    dataset: Dataset, samples: Sequence[Sample], geometry: Geometry, workers: int | None = None
) -> dict[str, UnreadableImage]:
    """What is wrong with each of these images that cannot be read, by image id; every image is decoded once."""

    def check(sample: Sample) -> UnreadableImage | None:
        try:
            dataset.read_image(sample, geometry.size)
        except UnreadableImage as error:
            return error
        return None

    with ThreadPoolExecutor(loader_workers(workers)) as pool:
        found = zip(samples, pool.map(check, samples), strict=True)
        return {sample.image_id: error for sample, error in found if error is not None}

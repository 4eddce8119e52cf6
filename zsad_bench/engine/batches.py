"""Which images a method sees together, and how they are read while the encoder is busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.errors import UserError
from zsad_bench.core.seeds import named_seed
from zsad_bench.core.sequences import evenly_spaced


def limited(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most ``limit`` samples, spread evenly over the sorted list; about half anomalous where there are any."""
    if limit is None or limit >= len(samples):
        return list(samples)
    anomalous = [sample for sample in samples if sample.label == 1]
    others = [sample for sample in samples if sample.label != 1]
    n_anomalous = min(len(anomalous), max(limit - len(others), (limit + 1) // 2))
    chosen = evenly_spaced(anomalous, n_anomalous) + evenly_spaced(others, limit - n_anomalous)
    return sorted(chosen, key=lambda sample: sample.image_id)


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


def category_references(dataset: Dataset, category: str, k_shot: int, seed: int) -> list[Sample]:
    """The references of a category in a job with this seed, see :func:`choose_references`; none for ``k_shot`` 0."""
    if not k_shot:
        return []
    return choose_references(dataset, category, k_shot, named_seed(seed, dataset.name, category, "references"))


@dataclass(frozen=True)
class Batch:
    """Images that a method sees together.

    Attributes:
        samples: all of them.
        n_new: the first so many are scored here; the others fill the batch, were scored in an earlier one, and their
            second prediction is dropped.
    """

    samples: tuple[Sample, ...]
    n_new: int

    @property
    def new(self) -> tuple[Sample, ...]:
        """The images that are scored here."""
        return self.samples[: self.n_new]


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The images of a category in a random order drawn from ``seed``.

    On disk images are sorted by defect type: without shuffling a batch would hold normal images only, or one kind of
    defect only, and methods that compare the images of a batch would be judged on that accident.
    """
    return [samples[index] for index in np.random.default_rng(seed).permutation(len(samples))]


def compose_batches(order: Sequence[Sample], batch_size: int | str, seed: int, last_batch: str = "fill") -> list[Batch]:
    """Batches of one category: consecutive runs of its shuffled images.

    Every batch has exactly ``batch_size`` images, so that every image is judged together with equally many others. What
    happens to a short last batch says ``last_batch``: ``fill`` adds images of earlier batches, ``keep`` leaves it
    short, ``drop`` leaves its images out. A category with fewer images than ``batch_size`` is one batch.

    Args:
        order: the images of the category that can be read, see :func:`shuffled`.
        batch_size: images of a batch, or ``all``.
        seed: draws what fills the last batch, without replacement.
        last_batch: ``fill``, ``keep`` or ``drop``.

    Returns:
        Batches in order; none without images, or if ``drop`` leaves nothing.
    """
    size = len(order) if batch_size == "all" else int(batch_size)
    runs = [tuple(order[start : start + size]) for start in range(0, len(order), max(size, 1))]
    missing = size - len(runs[-1]) if runs else 0
    batches = [Batch(run, len(run)) for run in runs]
    if not missing or last_batch == "keep":
        return batches
    if last_batch == "drop":
        return batches[:-1]
    earlier = order[: len(order) - len(runs[-1])]
    drawn = np.random.default_rng(seed).permutation(len(earlier))[:missing]
    return [*batches[:-1], Batch(runs[-1] + tuple(earlier[index] for index in drawn), len(runs[-1]))]

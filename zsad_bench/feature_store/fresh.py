"""Features that are kept nowhere: every group of images is read and encoded when its turn comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Sample
from zsad_bench.core.console import Listener
from zsad_bench.core.laps import Charge
from zsad_bench.feature_store.category import GROUP, CategoryFeatures
from zsad_bench.feature_store.loading import load_batches, unreadable_images

if TYPE_CHECKING:
    from zsad_bench.feature_store.source import FeatureSource


class FreshFeatures(CategoryFeatures):
    """Features that are kept nowhere: every batch is read and encoded when its turn comes."""

    def __init__(
        self, source: FeatureSource, samples: Sequence[Sample], request: FeatureRequest, listener: Listener
    ) -> None:
        source.require_encoding("features=off keeps no features")
        self.source, self.request, self.listener = source, request, listener
        self.unreadable = {}
        if source.skip_unreadable:
            # Batches can only be composed once it is known which images there are, hence a decoding of its own.
            with listener.time("load"):
                self.unreadable = unreadable_images(source.dataset, samples, source.encoder.geometry, source.workers)

    def batches(self, batches: Sequence[Sequence[Sample]]) -> Iterator[FeatureBatch]:
        """See :class:`CategoryFeatures`. Images are encoded in groups, whatever the batch size, as for the store."""
        images = [sample for batch in batches for sample in batch]
        groups = [images[start : start + GROUP] for start in range(0, len(images), GROUP)]
        return regroup(self._encoded(groups), [len(batch) for batch in batches])

    def _encoded(self, groups: Sequence[Sequence[Sample]]) -> Iterator[FeatureBatch]:
        source = self.source
        loader = load_batches(source.dataset, groups, source.encoder.geometry, source.workers)
        while True:
            with self.listener.time("load"):
                loaded = next(loader, None)
            if loaded is None:
                return
            names = [sample.image_id for sample in loaded.samples]
            features = self._encode(loaded.pixels, self.request, names)
            yield replace(features, encode=self._encode) if self.request.pixels else features

    def _encode(
        self, pixels: NDArray[np.uint8] | Tensor, request: FeatureRequest, image_ids: Sequence[str] = ()
    ) -> FeatureBatch:
        features, cost = self.source.encode(pixels, request, image_ids, self.listener)
        self.listener.charge(Charge(len(pixels) * cost.total, frozenset({cost.device})))
        return features


def regroup(parts: Iterable[FeatureBatch], sizes: Sequence[int]) -> Iterator[FeatureBatch]:
    """The same images in the same order, in batches of other sizes; nothing is taken before it is needed."""
    taken = iter(parts)
    part, begin = None, 0
    for size in sizes:
        pieces: list[FeatureBatch] = []
        missing = size
        while missing:
            if part is None or begin == len(part):
                part, begin = next(taken), 0
            end = min(begin + missing, len(part))
            pieces.append(part if end - begin == len(part) else part.select(range(begin, end)))
            missing, begin = missing - (end - begin), end
        yield FeatureBatch.concatenate(pieces)

"""Where a method's features come from: stored ones, and the encoder for what is missing.

The images of a category are encoded in groups that depend on nothing but the sorted list of its files. So features do
not depend on the batch size, on the method that asked first, or on where an earlier run was interrupted; and several
processes that need the same category share its groups among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zsad_bench.contract import Dataset, FeatureBatch, FeatureRequest, Sample
from zsad_bench.core.console import Listener
from zsad_bench.core.errors import UserError
from zsad_bench.core.laps import Cost
from zsad_bench.encoder.base import Encoder
from zsad_bench.feature_store.category import CategoryFeatures
from zsad_bench.feature_store.fresh import FreshFeatures
from zsad_bench.feature_store.loading import loader_workers
from zsad_bench.feature_store.store import FeatureStore
from zsad_bench.feature_store.stored import StoredFeatures


class FeatureSource:
    """Features of the images of a dataset.

    Args:
        dataset: reads the images.
        encoder: loaded only if something must be encoded.
        store: keeps features; None encodes every batch anew.
        skip_unreadable: leave unreadable images out and count them instead of stopping.
        may_encode: False refuses to use the encoder for images.
        workers: threads that read images; None are as many as there are cores, at most 8. They change no number.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoder: Encoder,
        store: FeatureStore | None = None,
        *,
        skip_unreadable: bool = False,
        may_encode: bool = True,
        workers: int | None = None,
    ) -> None:
        self.dataset, self.encoder, self.store = dataset, encoder, store
        self.workers = loader_workers(workers)
        self.skip_unreadable, self.may_encode = skip_unreadable, may_encode
        self._crowded = False

    def category(
        self,
        category: str,
        samples: Sequence[Sample],
        request: FeatureRequest,
        wanted: FeatureRequest | None = None,
        listener: Listener | None = None,
    ) -> CategoryFeatures:
        """Make the features of a category available: with a store, what is missing in it is encoded now.

        Args:
            category: of all the samples.
            samples: all images of the category.
            request: what the method needs.
            wanted: what other methods will need of the same images; encoded in the same pass if there is one.
            listener: hears of progress and times.

        Raises:
            UnreadableImage: unless unreadable images are skipped; names the file.
            UserError: encoding is not allowed and features are missing, or the store cannot be written.
        """
        listener = listener or Listener()
        if self.store is None:
            return FreshFeatures(self, samples, request, listener)
        found = StoredFeatures(self, self.store, category, request, listener)
        found.ensure(samples, wanted)
        return found

    def references(
        self, category: str, samples: Sequence[Sample], request: FeatureRequest, listener: Listener | None = None
    ) -> FeatureBatch:
        """Features of normal reference images; all must be readable."""
        strict = FeatureSource(self.dataset, self.encoder, self.store, may_encode=self.may_encode, workers=self.workers)
        (batch,) = strict.category(category, samples, request, listener=listener).batches([samples])
        return batch

    def encode(
        self,
        pixels: NDArray[np.uint8] | Tensor,
        request: FeatureRequest,
        image_ids: Sequence[str],
        listener: Listener,
    ) -> tuple[FeatureBatch, Cost]:
        """Encode images now, and say what one of them took.

        Args:
            pixels: resized (B, S, S, 3), or normalised (B, 3, S, S).
            request: what is wanted.
            image_ids: names of the images.
            listener: hears of times; getting ready is not encoding.
        """
        encoder = self.encoder
        with listener.time("setup"):
            encoder.ready(request)
        with listener.time("encode"):
            encoder.meter.take()
            normalised = pixels if isinstance(pixels, Tensor) else encoder.normalise(pixels)
            batch = encoder.encode(normalised, request, image_ids)
            seconds = encoder.meter.take()
        return batch, Cost({part: value / len(pixels) for part, value in seconds.items()}, encoder.device_name)

    def require_encoding(self, reason: str) -> None:
        """Raise UserError if the encoder must not be used."""
        if not self.may_encode:
            raise UserError(f"overwrite=cached: {reason}; run without it to encode them")

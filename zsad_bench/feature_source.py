"""Where a method's features come from: stored ones, and the encoder for what is missing.

The images of a category are encoded in groups that depend on nothing but the sorted list of its files. So features do
not depend on the batch size, on the method that asked first, or on where an earlier run was interrupted; and several
processes that need the same category share its groups among themselves.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zsad_bench import console
from zsad_bench.batching import LOADER_THREADS, load_batches, unreadable_images
from zsad_bench.core.names import safe_name
from zsad_bench.data import Dataset, Sample, UnreadableImage
from zsad_bench.encoder import Encoder
from zsad_bench.errors import UserError
from zsad_bench.feature_items import assemble, items_of, split, stack
from zsad_bench.features import FeatureBatch, FeatureRequest
from zsad_bench.listener import Listener
from zsad_bench.preprocess import image_to_array
from zsad_bench.store import FeatureStore

# Images that are encoded and stored together: what an interrupted run loses at most.
GROUP = 16
_WAIT_SECONDS = 0.05
_DERIVED = "derived"


class CategoryFeatures(ABC):
    """The features of one category's images, batch after batch.

    Attributes:
        unreadable: what is wrong with each image that is left out, by image id.
    """

    unreadable: dict[str, UnreadableImage]

    @abstractmethod
    def batches(self, batches: Sequence[Sequence[Sample]]) -> Iterator[FeatureBatch]:
        """The features of batch after batch of readable images, on the encoder's device wherever they come from.

        Raises:
            UnreadableImage: an image that can no longer be read; names the file.
            UserError: encoding is not allowed and features are missing, or the store cannot be written.
        """


class FeatureSource:
    """Features of the images of a dataset.

    Args:
        dataset: reads the images.
        encoder: loaded only if something must be encoded.
        store: keeps features; None encodes every batch anew.
        skip_unreadable: leave unreadable images out and count them instead of stopping.
        may_encode: False refuses to use the encoder for images.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoder: Encoder,
        store: FeatureStore | None = None,
        *,
        skip_unreadable: bool = False,
        may_encode: bool = True,
    ) -> None:
        self.dataset, self.encoder, self.store = dataset, encoder, store
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
            return _FreshFeatures(self, samples, request, listener)
        found = _StoredFeatures(self, self.store, category, request, listener)
        found.ensure(samples, wanted)
        return found

    def references(self, category: str, samples: Sequence[Sample], request: FeatureRequest) -> FeatureBatch:
        """Features of normal reference images; all must be readable."""
        strict = FeatureSource(self.dataset, self.encoder, self.store, may_encode=self.may_encode)
        (batch,) = strict.category(category, samples, request).batches([samples])
        return batch

    def require_encoding(self, reason: str) -> None:
        """Raise UserError if the encoder must not be used."""
        if not self.may_encode:
            raise UserError(f"overwrite=cached: {reason}; run without it to encode them")


class _FreshFeatures(CategoryFeatures):
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
                self.unreadable = unreadable_images(source.dataset, samples, source.encoder.geometry)

    def batches(self, batches: Sequence[Sequence[Sample]]) -> Iterator[FeatureBatch]:
        """See :class:`CategoryFeatures`."""
        encoder = self.source.encoder
        loader = load_batches(self.source.dataset, batches, encoder.geometry)
        while True:
            with self.listener.time("load"):
                loaded = next(loader, None)
            if loaded is None:
                return
            with self.listener.time("encode"):
                names = [sample.image_id for sample in loaded.samples]
                features = encoder.encode(encoder.normalise(loaded.pixels), self.request, names)
            yield features


class _StoredFeatures(CategoryFeatures):
    """The features of one category, with a store."""

    def __init__(
        self,
        source: FeatureSource,
        store: FeatureStore,
        category: str,
        request: FeatureRequest,
        listener: Listener,
    ) -> None:
        self.source, self.store, self.listener = source, store, listener
        self.category, self.request = category, request
        encoder, dataset = source.encoder, source.dataset
        self.blocks = encoder.spec.n_blocks
        self.place = f"{encoder.plan.key}/{safe_name(dataset.name)}/{safe_name(category)}"
        self.unreadable = {}
        self._loading: dict[str, Future[NDArray[np.uint8]]] = {}

    def key(self, sample: Sample) -> str:
        """Content key; an unreadable file gets one that nothing is stored under."""
        try:
            return self.source.dataset.content_key(sample)
        except UnreadableImage as error:
            self._refuse(sample, error)
            return f"unreadable {sample.image_id}"

    def _refuse(self, sample: Sample, error: UnreadableImage) -> None:
        if not self.source.skip_unreadable:
            raise error
        self.unreadable[sample.image_id] = error

    def ensure(self, population: Sequence[Sample], wanted: FeatureRequest | None) -> None:
        """Encode what is missing, group by group; groups that another process works on are left to it."""
        samples = sorted(population, key=lambda sample: sample.image_id)
        own = items_of(self.request, self.blocks)
        every = own | (items_of(wanted, self.blocks) if wanted else {})
        keys = {sample.image_id: self.key(sample) for sample in samples}
        missing = self.store.missing(self.place, keys.values(), own)
        groups = [list(samples[start : start + GROUP]) for start in range(0, len(samples), GROUP)]
        todo = [group for group in groups if any(keys[sample.image_id] in missing for sample in group)]
        if not todo:
            return
        self.source.require_encoding(f"{self.category}: features of {len(missing)} images are not stored")
        self.listener.starts(sum(map(len, todo)))
        waiting, refused = deque(todo), 0
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            while waiting:
                group = waiting.popleft()
                with self.store.claim(self.place, _task(keys[sample.image_id] for sample in group)) as mine:
                    if mine:
                        self._encode(group, keys, every, pool, waiting[0] if waiting else ())
                if mine or not self._lacking(group, keys, own):
                    self.listener.encoded(len(group))
                    refused = 0
                    continue
                waiting.append(group)
                refused += 1
                if refused >= len(waiting):  # every group left is in the hands of another process
                    time.sleep(_WAIT_SECONDS)
                    refused = 0

    def _lacking(
        self, group: Sequence[Sample], keys: dict[str, str], names: dict[str, FeatureRequest]
    ) -> dict[str, set[str]]:
        readable = [keys[sample.image_id] for sample in group if sample.image_id not in self.unreadable]
        return self.store.missing(self.place, readable, names)

    def _encode(
        self,
        group: Sequence[Sample],
        keys: dict[str, str],
        every: dict[str, FeatureRequest],
        pool: ThreadPoolExecutor,
        ahead: Sequence[Sample],
    ) -> None:
        """Read, encode and store one group; the next one is read meanwhile."""
        if not self._lacking(group, keys, every):
            return
        with self.listener.time("load"):
            self._start_reading(group, pool)
            self._start_reading(ahead, pool)
            arrays = {sample.image_id: self._result(sample, self._loading.pop(sample.image_id)) for sample in group}
        readable = [sample for sample in group if arrays[sample.image_id] is not None]
        lacking = self._lacking(readable, keys, every)
        if not lacking:
            return
        names = [name for name in every if any(name in absent for absent in lacking.values())]
        needed = FeatureRequest()
        for name in names:
            needed = needed.union(every[name])
        pixels = np.stack([array for array in arrays.values() if array is not None])
        with self.listener.time("encode"):
            batch = self.source.encoder.encode(self.source.encoder.normalise(pixels), needed)
        with self.listener.time("read"):
            self._put(self.place, [keys[sample.image_id] for sample in readable], split(batch, names, self.blocks))

    def _put(self, place: str, keys: Sequence[str], items: Mapping[str, Tensor]) -> None:
        storage = self.source.encoder.plan.storage
        self.store.put(place, keys, {name: part.to(storage) for name, part in items.items()})

    def _start_reading(self, group: Sequence[Sample], pool: ThreadPoolExecutor) -> None:
        geometry = self.source.encoder.geometry

        def read(sample: Sample) -> NDArray[np.uint8]:
            return image_to_array(self.source.dataset.read_image(sample, geometry.size), geometry)

        for sample in group:
            if sample.image_id not in self._loading:
                self._loading[sample.image_id] = pool.submit(read, sample)

    def _result(self, sample: Sample, future: Future[NDArray[np.uint8]]) -> NDArray[np.uint8] | None:
        try:
            return future.result()
        except UnreadableImage as error:
            self._refuse(sample, error)
            return None

    def batches(self, batches: Sequence[Sequence[Sample]]) -> Iterator[FeatureBatch]:
        """See :class:`CategoryFeatures`. What the store no longer holds is encoded for its batch alone."""
        encoder = self.source.encoder
        loader = load_batches(self.source.dataset, batches, encoder.geometry) if self.request.pixels else None
        for batch in batches:
            features = self._gather(batch)
            if loader is not None:
                pixels = encoder.normalise(next(loader).pixels).to(encoder.device)
                features = replace(features, pixels=pixels, encode=self.encode_derived)
            yield features

    def _gather(self, batch: Sequence[Sample]) -> FeatureBatch:
        with self.listener.time("read"):
            names = list(items_of(self.request, self.blocks))
            rows = self.store.get(self.place, [self.key(sample) for sample in batch], names)
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            return self._encode_again(batch)
        return self._assemble(found, self.request, [sample.image_id for sample in batch])

    def _assemble(
        self, rows: Sequence[Mapping[str, Tensor]], request: FeatureRequest, names: Sequence[str]
    ) -> FeatureBatch:
        """Stored rows as a batch on the encoder's device."""
        encoder = self.source.encoder
        return assemble(stack(rows, encoder.device), request, encoder.spec, names)

    def _encode_again(self, samples: Sequence[Sample]) -> FeatureBatch:
        self.source.require_encoding(f"{self.category}: stored features were damaged or removed")
        if not self.source._crowded:
            self.source._crowded = True
            console.warn(
                f"{self.category}: stored features were removed before they were used; unless another program did it, "
                "features.max_gb is too small for one category, and images are encoded more than once"
            )
        with self.listener.time("load"):
            (loaded,) = load_batches(self.source.dataset, [samples], self.source.encoder.geometry)
        with self.listener.time("encode"):
            names = [sample.image_id for sample in samples]
            return self.source.encoder.encode(self.source.encoder.normalise(loaded.pixels), self.request, names)

    def encode_derived(self, pixels: Tensor, request: FeatureRequest) -> FeatureBatch:
        """Features of images that a method made (B, 3, S, S), known again by their pixels.

        Naming them takes one copy of the pixels to the host; without a store there is none.
        """
        place = f"{self.source.encoder.plan.key}/{_DERIVED}/{safe_name(self.source.dataset.name)}"
        keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels.float().cpu().numpy()]
        items = items_of(request, self.blocks)
        names = [str(number) for number in range(len(pixels))]
        rows = self.store.get(place, keys, list(items))
        if all(row is not None for row in rows):
            return self._assemble([row for row in rows if row is not None], request, names)
        self.source.require_encoding(f"{self.category}: features of derived images are not stored")
        batch = self.source.encoder.encode(pixels, request, names)
        self._put(place, keys, split(batch, list(items), self.blocks))
        return batch


def _task(keys: Iterable[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:16]

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
from zsad_bench.batching import images_ahead, load_batches, loader_workers, reader, unreadable_images
from zsad_bench.core.laps import Charge, Cost, charge
from zsad_bench.core.names import safe_name
from zsad_bench.data import Dataset, Sample, UnreadableImage
from zsad_bench.encoder import Encoder
from zsad_bench.errors import UserError
from zsad_bench.feature_items import assemble, items_of, split, stack
from zsad_bench.features import FeatureBatch, FeatureRequest
from zsad_bench.listener import Listener
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
            return _FreshFeatures(self, samples, request, listener)
        found = _StoredFeatures(self, self.store, category, request, listener)
        found.ensure(samples, wanted)
        return found

    def references(
        self, category: str, samples: Sequence[Sample], request: FeatureRequest, listener: Listener | None = None
    ) -> FeatureBatch:
        """Features of normal reference images; all must be readable."""
        strict = FeatureSource(
            self.dataset, self.encoder, self.store, may_encode=self.may_encode, workers=self.workers
        )
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
                self.unreadable = unreadable_images(
                    source.dataset, samples, source.encoder.geometry, source.workers
                )

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
        self.parts = encoder.parts(request)
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
        ahead = -(-images_ahead(self.source.workers) // GROUP)
        with ThreadPoolExecutor(self.source.workers) as pool:
            while waiting:
                group = waiting.popleft()
                with self.store.claim(self.place, _task(keys[sample.image_id] for sample in group)) as mine:
                    if mine:
                        self._encode(group, keys, every, pool, list(waiting)[:ahead])
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
        ahead: Sequence[Sequence[Sample]],
    ) -> None:
        """Read, encode and store one group; the next ones are read meanwhile."""
        if not self._lacking(group, keys, every):
            return
        with self.listener.time("load"):
            self._start_reading(group, pool)
            for following in ahead:
                self._start_reading(following, pool)
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
        batch, cost = self.source.encode(pixels, needed, [sample.image_id for sample in readable], self.listener)
        with self.listener.time("read"):
            found = split(batch, names, self.blocks)
            self._put(self.place, [keys[sample.image_id] for sample in readable], found, cost)

    def _put(self, place: str, keys: Sequence[str], items: Mapping[str, Tensor], cost: Cost) -> None:
        storage = self.source.encoder.plan.storage
        self.store.put(place, keys, {name: part.to(storage) for name, part in items.items()}, cost)

    def _start_reading(self, group: Sequence[Sample], pool: ThreadPoolExecutor) -> None:
        read = reader(self.source.dataset, self.source.encoder.geometry)
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
        encoder, workers = self.source.encoder, self.source.workers
        loader = load_batches(self.source.dataset, batches, encoder.geometry, workers) if self.request.pixels else None
        for batch in batches:
            features = self._gather(batch)
            if loader is not None:
                with self.listener.time("load"):
                    pixels = encoder.normalise(next(loader).pixels)
                features = replace(features, pixels=pixels, encode=self.encode_derived)
            yield features

    def _gather(self, batch: Sequence[Sample]) -> FeatureBatch:
        with self.listener.time("read"):
            names, keys = list(items_of(self.request, self.blocks)), [self.key(sample) for sample in batch]
            rows = self.store.get(self.place, keys, names)
            found = [row for row in rows if row is not None]
            if len(found) == len(rows):
                self._charge(self.place, keys, names, self.parts)
                return self._assemble(found, self.request, [sample.image_id for sample in batch])
        return self._encode_again(batch)

    def _charge(self, place: str, keys: Sequence[str], names: Sequence[str], parts: frozenset[str]) -> None:
        """Charge what is handed out of the store, by what it took when it was encoded."""
        for costs in self.store.costs(place, keys, names):
            self.listener.charge(charge(costs, parts))

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
            (loaded,) = load_batches(
                self.source.dataset, [samples], self.source.encoder.geometry, self.source.workers
            )
        names = [sample.image_id for sample in samples]
        batch, cost = self.source.encode(loaded.pixels, self.request, names, self.listener)
        self.listener.charge(Charge(len(samples) * cost.total, frozenset({cost.device})))
        return batch

    def encode_derived(self, pixels: Tensor, request: FeatureRequest) -> FeatureBatch:
        """Features of images that a method made (B, 3, S, S), known again by their pixels.

        Naming them takes one copy of the pixels to the host; without a store there is none.
        """
        place = f"{self.source.encoder.plan.key}/{_DERIVED}/{safe_name(self.source.dataset.name)}"
        items = items_of(request, self.blocks)
        names = [str(number) for number in range(len(pixels))]
        with self.listener.time("read"):
            keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels.float().cpu().numpy()]
            rows = self.store.get(place, keys, list(items))
            if all(row is not None for row in rows):
                self._charge(place, keys, list(items), self.source.encoder.parts(request))
                return self._assemble([row for row in rows if row is not None], request, names)
        self.source.require_encoding(f"{self.category}: features of derived images are not stored")
        batch, cost = self.source.encode(pixels, request, names, self.listener)
        self.listener.charge(Charge(len(pixels) * cost.total, frozenset({cost.device})))
        with self.listener.time("read"):
            self._put(place, keys, split(batch, list(items), self.blocks), cost)
        return batch


def regroup(parts: Iterable[FeatureBatch], sizes: Sequence[int]) -> Iterator[FeatureBatch]:
    """The same images in the same order, in batches of other sizes; nothing is taken before it is needed."""
    taken = iter(parts)
    part, begin = None, 0
    for size in sizes:
        pieces: list[FeatureBatch] = []
        while size:
            if part is None or begin == len(part):
                part, begin = next(taken), 0
            end = min(begin + size, len(part))
            pieces.append(part if end - begin == len(part) else part.select(range(begin, end)))
            size, begin = size - (end - begin), end
        yield FeatureBatch.concatenate(pieces)


def _task(keys: Iterable[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:16]

"""The features of one category, out of a store, and into it what is missing there."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Sample
from zsad_bench.core import console
from zsad_bench.core.console import Listener
from zsad_bench.core.laps import Charge, Cost, charge
from zsad_bench.core.names import safe_name
from zsad_bench.data.images import UnreadableImage
from zsad_bench.feature_store.category import GROUP, CategoryFeatures
from zsad_bench.feature_store.loading import images_ahead, load_batches, reader
from zsad_bench.feature_store.parts import assemble, items_of, split, stack
from zsad_bench.feature_store.store import FeatureStore

if TYPE_CHECKING:
    from zsad_bench.feature_store.source import FeatureSource

_WAIT_SECONDS = 0.05
# Features that were encoded just now and need not be read back before they are used.
HELD_BYTES = 128 << 20
_DERIVED = "derived"


class StoredFeatures(CategoryFeatures):
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
        self.own = items_of(request, self.blocks)
        self.names = list(self.own)
        self.place = f"{encoder.plan.key}/{safe_name(dataset.name)}/{safe_name(category)}"
        self.unreadable = {}
        self._held: dict[str, Mapping[str, Tensor]] = {}
        self._room = HELD_BYTES
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
        every = self.own | (items_of(wanted, self.blocks) if wanted else {})
        keys = {sample.image_id: self.key(sample) for sample in samples}
        missing = self.store.missing(self.place, keys.values(), self.own)
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
                if mine or not self._lacking(group, keys, self.own):
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
            self._keep([keys[sample.image_id] for sample in readable], found, cost)

    def _keep(self, keys: Sequence[str], items: Mapping[str, Tensor], cost: Cost) -> None:
        """Store features of images, and hold those that this method will ask for, as far as memory allows."""
        stored = self._put(self.place, keys, items, cost)
        own = {name: stored[name] for name in self.names if name in stored}
        size = sum(part.nbytes for part in own.values())
        if len(own) < len(self.names) or size > self._room:
            return
        self._room -= size
        self._held |= {key: {name: part[row] for name, part in own.items()} for row, key in enumerate(keys)}

    def _put(self, place: str, keys: Sequence[str], items: Mapping[str, Tensor], cost: Cost) -> dict[str, Tensor]:
        """Store parts; returns them as they are stored, in the memory of the host."""
        storage = self.source.encoder.plan.storage
        stored = {name: part.to(storage).cpu() for name, part in items.items()}
        self.store.put(place, keys, stored, cost)
        return stored

    def _rows(self, keys: Sequence[str]) -> list[Mapping[str, Tensor] | None]:
        """What the method asks of images, in memory from encoding or else out of the store."""
        stored = [key for key in keys if key not in self._held]
        read = dict(zip(stored, self.store.get(self.place, stored, self.names), strict=True)) if stored else {}
        return [self._held.get(key, read.get(key)) for key in keys]

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
            names, keys = self.names, [self.key(sample) for sample in batch]
            rows = self._rows(keys)
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
            (loaded,) = load_batches(self.source.dataset, [samples], self.source.encoder.geometry, self.source.workers)
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


def _task(keys: Iterable[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:16]

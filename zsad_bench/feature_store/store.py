"""Features that were encoded before, keyed by image content and encoder: the interface, and a store in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from zsad_bench.core.laps import Cost

GIGABYTE = 1 << 30


class FeatureStore(ABC):
    """Rows of named features by place (encoder, dataset, category) and content key."""

    @abstractmethod
    def missing(self, place: str, keys: Iterable[str], names: Iterable[str]) -> dict[str, set[str]]:
        """Content key -> names that are not stored; keys of which everything is stored are left out."""

    @abstractmethod
    def put(self, place: str, keys: Sequence[str], items: Mapping[str, Tensor], cost: Cost | None = None) -> None:
        """Keep (n, ...) tensors of n images, and what encoding one of these images took."""

    @abstractmethod
    def costs(self, place: str, keys: Sequence[str], names: Sequence[str]) -> list[list[Cost]]:
        """Per image what the passes took that made its features; those that were not timed are left out."""

    @abstractmethod
    def get(self, place: str, keys: Sequence[str], names: Sequence[str]) -> list[dict[str, Tensor] | None]:
        """Per image its rows, or None if anything is missing (or turns out to be damaged)."""

    @contextmanager
    def claim(self, place: str, task: str) -> Iterator[bool]:
        """Whether this process may do a task; False while another one does it. Held until the block ends."""
        yield True


class MemoryStore(FeatureStore):
    """Features kept in this process; beyond ``max_gb`` the places used longest ago are dropped."""

    def __init__(self, max_gb: float) -> None:
        self._limit = max_gb * GIGABYTE
        self._places: OrderedDict[str, dict[tuple[str, str], Tensor]] = OrderedDict()
        self._costs: dict[str, dict[tuple[str, str], Cost]] = {}
        self._bytes: dict[str, int] = {}

    def missing(self, place: str, keys: Iterable[str], names: Iterable[str]) -> dict[str, set[str]]:
        """See :class:`FeatureStore`."""
        rows, wanted = self._touch(place), set(names)
        lacking = {key: {name for name in wanted if (key, name) not in rows} for key in keys}
        return {key: absent for key, absent in lacking.items() if absent}

    def put(self, place: str, keys: Sequence[str], items: Mapping[str, Tensor], cost: Cost | None = None) -> None:
        """See :class:`FeatureStore`."""
        rows = self._touch(place)
        if cost is not None:
            self._costs.setdefault(place, {}).update({(key, name): cost for key in keys for name in items})
        for name, tensor in items.items():
            for key, row in zip(keys, tensor.cpu(), strict=True):
                rows[key, name] = row
                self._bytes[place] = self._bytes.get(place, 0) + row.numel() * row.element_size()
        while sum(self._bytes.values()) > self._limit and len(self._places) > 1:
            oldest, _ = self._places.popitem(last=False)
            self._bytes.pop(oldest, None)
            self._costs.pop(oldest, None)

    def get(self, place: str, keys: Sequence[str], names: Sequence[str]) -> list[dict[str, Tensor] | None]:
        """See :class:`FeatureStore`."""
        rows = self._touch(place)
        found = [{name: rows[key, name] for name in names if (key, name) in rows} for key in keys]
        return [row if len(row) == len(names) else None for row in found]

    def costs(self, place: str, keys: Sequence[str], names: Sequence[str]) -> list[list[Cost]]:
        """See :class:`FeatureStore`."""
        known = self._costs.get(place, {})
        return [distinct(known.get((key, name)) for name in names) for key in keys]

    def _touch(self, place: str) -> dict[tuple[str, str], Tensor]:
        rows = self._places.setdefault(place, {})
        self._places.move_to_end(place)
        return rows


def distinct(costs: Iterable[Cost | None]) -> list[Cost]:
    """Each pass once."""
    return list({id(cost): cost for cost in costs if cost is not None}.values())

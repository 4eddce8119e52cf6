"""Features on disk, keyed by image content and encoder.

A shard is one safetensors file with the features of a few images of one category::

    <root>/<encoder key>/<dataset>/<category>/<random name>.safetensors

Its tensors are the named parts of :mod:`zsad_bench.feature_store.parts`, one row per image; its metadata hold the
content keys of the images, what encoding took (:class:`~zsad_bench.core.laps.Cost`), and a CRC-32 of every row, which
is compared whenever the row is read. A shard is written under another name, then renamed, and never changed afterwards,
so any number of processes and machines may share a folder. A damaged shard is deleted, and what was in it is encoded
again. Lock files are in ``<root>/locks``.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.core.laps import Cost
from zsad_bench.feature_store.store import GIGABYTE, FeatureStore, distinct

# After exceeding its limit the store is emptied to this share of it, so that not every new shard asks for room again.
ROOM = 0.9
# The size of the whole store is counted again after a process has written this share of what is left below the limit,
# so that up to so many processes stay within it; and not more often than after LEAST_WRITTEN of the limit.
SHARE_OF_REST = 1 / 16
LEAST_WRITTEN = 1 / 256
# A half-written shard of a process that was killed; younger ones may belong to a process that is still writing.
ABANDONED_SECONDS = 3600
# How old the noted time of a shard's last use may be: what a category works with is younger than what nobody uses.
USE_SECONDS = 60
# Tasks share so many lock files, which are never deleted: all who want one want the same file.
LOCK_FILES = 1024
_SHARD = ".safetensors"
_DRAFT = ".draft"
_LOCKS = "locks"


@dataclass
class _Place:
    """What is known of one folder: (key, name) -> shard file and row, costs by file, and the files looked at."""

    rows: dict[tuple[str, str], tuple[Path, int]] = field(default_factory=dict)
    costs: dict[Path, Cost] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


class DiskStore(FeatureStore):
    """Features on disk, shared by processes and machines; the shards used longest ago make room for new ones.

    Args:
        root: folder of the store.
        max_gb: upper limit in GiB of the size of everything in it, whichever process wrote it. It may be exceeded by
            the shards just written, and by a 256th for each process of more than 16 that write at the same time.
    """

    def __init__(self, root: Path, max_gb: float) -> None:
        self.root = root
        self._limit = int(max_gb * GIGABYTE)
        self._places: dict[str, _Place] = {}
        self._written: int | None = None
        self._may_write = 0
        self._used: dict[Path, float] = {}

    def missing(self, place: str, keys: Iterable[str], names: Iterable[str]) -> dict[str, set[str]]:
        """See :class:`FeatureStore`. What is there counts as used from now on."""
        rows, wanted, lacking = self._look(place).rows, set(names), {}
        for key in keys:
            found = {name: rows[key, name][0] for name in wanted if (key, name) in rows}
            if len(found) < len(wanted):
                lacking[key] = wanted - found.keys()
            for path in set(found.values()):
                self._use(path)
        return lacking

    def put(self, place: str, keys: Sequence[str], items: Mapping[str, Tensor], cost: Cost | None = None) -> None:
        """See :class:`FeatureStore`. Raises UserError if the folder cannot be written."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in items.items()}
        checks = {name: [_checksum(row) for row in tensor] for name, tensor in tensors.items()}
        path = self.root / place / f"{uuid.uuid4().hex}{_SHARD}"
        draft = path.with_suffix(_DRAFT)
        metadata = {"keys": json.dumps(list(keys)), "checks": json.dumps(checks)} | (cost.to_metadata() if cost else {})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file(tensors, draft, metadata)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"features.root={self.root}: cannot be written ({getattr(error, 'strerror', None) or error}); free "
                "space, choose another features.root, or set features=memory or features=off"
            ) from None
        self._register(self._places.setdefault(place, _Place()), path, list(keys), list(tensors), cost)
        self._used[path] = time.time()
        self._count(path)

    def get(self, place: str, keys: Sequence[str], names: Sequence[str]) -> list[dict[str, Tensor] | None]:
        """See :class:`FeatureStore`."""
        known = self._look(place)
        found: list[dict[str, Tensor]] = [{} for _ in keys]
        by_shard: dict[Path, list[tuple[int, str, int]]] = {}
        for position, key in enumerate(keys):
            for name in names:
                if (key, name) in known.rows:
                    path, row = known.rows[key, name]
                    by_shard.setdefault(path, []).append((position, name, row))
        for path, wanted in by_shard.items():
            try:
                self._read(path, wanted, found)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                self._discard(known, path, error)
        return [row if len(row) == len(names) else None for row in found]

    def costs(self, place: str, keys: Sequence[str], names: Sequence[str]) -> list[list[Cost]]:
        """See :class:`FeatureStore`."""
        known = self._places.get(place, _Place())
        found = []
        for key in keys:
            paths = [known.rows[key, name][0] for name in names if (key, name) in known.rows]
            found.append(distinct(known.costs.get(path) for path in paths))
        return found

    @contextmanager
    def claim(self, place: str, task: str) -> Iterator[bool]:
        """See :class:`FeatureStore`.

        A lock of the operating system, so that a killed process leaves nothing locked. Two tasks may share a lock file
        by chance: one of them then waits for the other.
        """
        number = zlib.crc32(f"{place}\0{task}".encode()) % LOCK_FILES
        with _locked(self.root / _LOCKS / f"{number:03x}.lock") as mine:
            yield mine

    def _look(self, place: str) -> _Place:
        """The place's index, with the shards that other processes have written since the last look."""
        known = self._places.setdefault(place, _Place())
        try:
            present = {path.name for path in (self.root / place).iterdir() if path.suffix == _SHARD}
        except (FileNotFoundError, NotADirectoryError):
            present = set()
        if gone := known.seen - present:  # made room for others, or damaged
            known.rows = {row: found for row, found in known.rows.items() if found[0].name not in gone}
            known.costs = {path: cost for path, cost in known.costs.items() if path.name not in gone}
            known.seen -= gone
        for name in sorted(present - known.seen):
            path = self.root / place / name
            try:
                with safe_open(path, framework="pt") as shard:
                    metadata, names = shard.metadata(), list(shard.keys())
                self._register(known, path, json.loads(metadata["keys"]), names, Cost.from_metadata(metadata))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                self._discard(known, path, error)
        return known

    def _register(self, known: _Place, path: Path, keys: list[str], names: list[str], cost: Cost | None) -> None:
        known.seen.add(path.name)
        if cost is not None:
            known.costs[path] = cost
        known.rows.update({(key, name): (path, row) for row, key in enumerate(keys) for name in names})

    def _read(self, path: Path, wanted: list[tuple[int, str, int]], found: list[dict[str, Tensor]]) -> None:
        """Copy rows out of a memory-mapped shard; raises ValueError if one does not have its checksum."""
        with safe_open(path, framework="pt") as shard:
            checks = json.loads(shard.metadata()["checks"])
            slices = {name: shard.get_slice(name) for name in {name for _, name, _ in wanted}}
            for position, name, row in wanted:
                value = slices[name][row : row + 1][0].clone()
                if _checksum(value) != checks[name][row]:
                    raise ValueError("wrong checksum")
                found[position][name] = value
        self._use(path)

    def _use(self, path: Path) -> None:
        """Note that a shard is in use: the time of its last use decides what makes room, in any process."""
        now = time.time()
        if now - self._used.get(path, 0.0) > USE_SECONDS:
            self._used[path] = now
            with suppress(OSError):  # made room for others, or the folder can only be read
                os.utime(path)

    def _discard(self, known: _Place, path: Path, error: Exception) -> None:
        if path.exists():
            console.warn(f"{path}: damaged ({error}); its features are encoded again")
            path.unlink(missing_ok=True)
        known.rows = {row: where for row, where in known.rows.items() if where[0] != path}
        known.seen.discard(path.name)

    def _count(self, fresh: Path) -> None:
        """Count the store's bytes, whoever wrote them, if this process has written enough since it last did."""
        with suppress(FileNotFoundError):  # another process made room
            self._written = None if self._written is None else self._written + fresh.stat().st_size
        if self._written is not None and self._written <= self._may_write:
            return
        size = sum(size for _, size, _ in self._shards())
        if size > self._limit:
            size = self._make_room(fresh, size)
        self._written = 0
        self._may_write = int(max(SHARE_OF_REST * (self._limit - size), LEAST_WRITTEN * self._limit))

    def _make_room(self, fresh: Path, size: int) -> int:
        """Delete the shards used longest ago, those of the category at work last; returns how many bytes are left."""
        with _locked(self.root / _LOCKS / "room.lock") as mine:
            if not mine:  # another process is at it
                return size
            shards = sorted(self._shards(), key=lambda shard: (shard[2].parent == fresh.parent, *shard))
            size = sum(size for _, size, _ in shards)
            for _, freed, path in shards:
                if size <= ROOM * self._limit:
                    break
                if path != fresh:
                    path.unlink(missing_ok=True)
                    size -= freed
        return size

    def _shards(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every shard; abandoned drafts are deleted on the way."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder) / name
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                if name.endswith(_SHARD):
                    yield state.st_mtime, state.st_size, path
                elif name.endswith(_DRAFT) and time.time() - state.st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether a lock file could be locked at once; it stays there when the lock is released.

    A file that is deleted while others wait for it is locked by them and made anew by a third, and Windows refuses to
    delete a file that is open.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # a file system without locks: at worst two processes do the same work
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def _checksum(row: Tensor) -> int:
    return zlib.crc32(np.ascontiguousarray(row.reshape(-1).contiguous().view(torch.uint8).numpy()).data)

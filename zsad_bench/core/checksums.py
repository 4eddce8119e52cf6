"""SHA-256 of files by content, remembered between processes for as long as a file does not change.

A large dataset is read once: ``$ZSAD_CACHE/checksums`` (by default ``~/.cache/zsad-bench/checksums``) holds one JSON
file per folder with, for each file, its checksum and the state in which it was read: size, times of the last change of
content (mtime) and of the entry (ctime), in nanoseconds, and the inode. A file in another state is read again. The time
of the entry cannot be set by programs that copy files with their old dates, so a photo that was replaced by another one
of the same name, size and date is noticed. Losing the index costs time and nothing else.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic

# Bytes that are read before fresh checksums are written: what a killed process has to read again.
_SAVE_AFTER = 256 << 20
# A file that is changed twice within the resolution of its clock keeps its times. What was changed so recently is not
# remembered: whole seconds are kept by file systems with a resolution of one or two seconds.
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
_SECOND_NS = 1_000_000_000
_THREADS = 2

State = tuple[int, int, int, int]
Entries = dict[str, tuple[State, str]]


def cache_folder() -> Path:
    """``$ZSAD_CACHE``, or ``~/.cache/zsad-bench``."""
    return Path(os.environ.get("ZSAD_CACHE", "~/.cache/zsad-bench")).expanduser()


def _state(path: Path) -> State:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _settled(state: State) -> bool:
    """Whether the file would have other times if it were changed now."""
    _, modified, entered, _ = state
    tick = _COARSE_TICK_NS if modified % _SECOND_NS == 0 else _TICK_NS
    return max(modified, entered) + tick < time.time_ns()


class ChecksumIndex:
    """Checksums of files, in memory and on disk. Safe to use from several threads and processes.

    Args:
        folder: where the index lies; None remembers for this process only.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[Path, Entries] = {}
        self._fresh: set[Path] = set()
        self._unsaved_bytes = 0
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """64 hex digits of a file's content. Raises OSError if it cannot be read."""
        place = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would ask the disk for every part of the path
        state = _state(place)
        with self._lock:
            entries = self._entries(place.parent)
            found = entries.get(place.name)
        if found is not None and found[0] == state:
            return found[1]
        with place.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _settled(state) and _state(place) == state:  # not changed while it was read
            self._remember(place, state, digest)
        return digest

    def _remember(self, place: Path, state: State, digest: str) -> None:
        with self._lock:
            self._entries(place.parent)[place.name] = (state, digest)
            self._fresh.add(place.parent)
            self._unsaved_bytes += state[0]
            full = self._unsaved_bytes > _SAVE_AFTER
        if full:
            self.save()

    def save(self) -> None:
        """Write fresh checksums. A folder that cannot be written only means that files are read again."""
        with self._lock:
            fresh, self._fresh, self._unsaved_bytes = self._fresh, set(), 0
            content = {folder: dict(self._known[folder]) for folder in fresh}
        if self.folder is None:
            return
        for folder, entries in content.items():
            merged = {**self._read(folder), **entries}
            there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
            kept = {name: [*state, digest] for name, (state, digest) in sorted(merged.items()) if name in there}
            try:
                write_atomic(self._file(folder), json.dumps({"folder": str(folder), "files": kept}) + "\n")
            except (UserError, OSError):
                return

    def _entries(self, folder: Path) -> Entries:
        if folder not in self._known:
            self._known[folder] = self._read(folder)
        return self._known[folder]

    def _file(self, folder: Path) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.json"

    def _read(self, folder: Path) -> Entries:
        """What is on disk about a folder; nothing if that is missing or damaged."""
        if self.folder is None:
            return {}
        try:
            content = json.loads(self._file(folder).read_text(encoding="utf-8"))
            if content["folder"] != str(folder):
                return {}
            return {str(name): (_as_state(entry), _as_digest(entry)) for name, entry in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return {}


def _as_state(entry: list[int | str]) -> State:
    size, modified, entered, inode, _ = entry
    return int(size), int(modified), int(entered), int(inode)


def _as_digest(entry: list[int | str]) -> str:
    digest = str(entry[4])
    if len(digest) != 64:
        raise ValueError("not a SHA-256")
    return digest


_indices: dict[Path, ChecksumIndex] = {}


def index() -> ChecksumIndex:
    """The index of this process's cache folder; fresh checksums are written at the end of the process at the latest."""
    folder = cache_folder() / "checksums"
    if folder not in _indices:
        _indices[folder] = ChecksumIndex(folder)
        atexit.register(_indices[folder].save)
    return _indices[folder]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file: 64 hex digits, read only if it changed since it was last read. Raises OSError."""
    return index().sha256(path)


def read_ahead(paths: Iterable[Path]) -> None:
    """Learn the checksums of many files, several at a time; files that cannot be read are passed over."""

    def learn(path: Path) -> None:
        try:
            file_sha256(path)
        except OSError:
            return

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(learn, paths):
            pass
    index().save()

"""More scores than memory should hold, sorted: runs of a fixed number of values in a temporary file.

Scores are added in any order. Every time the buffer is full it is sorted and written as a *run*. Afterwards a
:class:`Descent` goes through all runs together, from the largest value down, and holds a small part of each. Scores
that fit into one buffer never touch the disk.

Numbers may be complex: then they are ordered by their real part, and by the imaginary part where the real parts are
equal (numpy's order). So a score can carry the number of its region along.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from zsad_bench.core.files import cannot_keep

CAPACITY = 16 << 20
"""Bytes of the buffer, and of what a descent holds of all runs together."""

SMALLEST_READ = 1 << 12
"""Values that are read at least, however many runs there are."""


class SortedRuns:
    """Values of one type that are added, then sealed, then gone through in falling order, any number of times.

    Args:
        dtype: real or complex.
        size: how many values will be added.
        folder: where the temporary file goes; None for the system's folder. It has no name and ends with the process.
    """

    def __init__(self, dtype: np.dtype, size: int, folder: Path | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.size = size
        self.not_finite = 0
        """Values that are NaN or infinite, known when sealed."""
        self._buffer = np.empty(min(size, max(CAPACITY // self.dtype.itemsize, 1)), self.dtype)
        self._filled = 0
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lengths: list[int] = []
        self._ends: list[np.ndarray] = []

    @classmethod
    def of(cls, values: np.ndarray) -> SortedRuns:
        """Sealed values (n,)."""
        runs = cls(values.dtype, values.size)
        runs.add(values)
        return runs.seal()

    def add(self, values: np.ndarray) -> None:
        """Add values (n,)."""
        while values.size:
            if self._filled == self._buffer.size:
                self._spill()
            taken = min(values.size, self._buffer.size - self._filled)
            self._buffer[self._filled : self._filled + taken] = values[:taken]
            self._filled += taken
            values = values[taken:]

    def seal(self) -> SortedRuns:
        """Sort what is left. Nothing can be added any more."""
        if self._file is not None:
            self._spill()
            self._buffer = np.empty(0, self.dtype)
        else:
            self._buffer = self._buffer[: self._filled]
            self._sort()
            self._lengths.append(self._filled)
        assert sum(self._lengths) == self.size
        return self

    @property
    def lowest(self) -> np.floating:
        """The smallest real part; there must be a value."""
        return min(first.real for first, _ in self._ends)

    @property
    def highest(self) -> np.floating:
        """The largest real part; there must be a value."""
        return max(last.real for _, last in self._ends)

    def descend(self) -> Descent:
        """Start at the largest value."""
        step = max(CAPACITY // (self.dtype.itemsize * len(self._lengths)), SMALLEST_READ)
        if self._file is None:
            step = self.size  # it is in memory already
        starts = np.cumsum([0, *self._lengths[:-1]]).tolist()
        return Descent([_Run(self, *place, step) for place in zip(starts, self._lengths, strict=True)])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Values by position, run after run."""
        if self._file is None:
            return self._buffer[start:stop]
        self._file.seek(start * self.dtype.itemsize)
        return np.frombuffer(self._file.read((stop - start) * self.dtype.itemsize), self.dtype)

    def _sort(self) -> None:
        """Sort the buffer. NaN and infinity come to its ends, so that looking there is enough."""
        values = self._buffer[: self._filled]
        values.sort()
        if values.size:
            self._ends.append(values[[0, -1]])
            if not np.isfinite(self._ends[-1]).all():
                self.not_finite += int(np.count_nonzero(~np.isfinite(values)))

    def _spill(self) -> None:
        self._sort()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as this object
            self._file.write(self._buffer[: self._filled].data)
        except OSError as error:
            raise cannot_keep(self._folder, error) from None
        self._lengths.append(self._filled)
        self._filled = 0


class _Run:
    """One run: what has been read of it and not been taken, and how much lies unread below."""

    def __init__(self, runs: SortedRuns, start: int, length: int, step: int) -> None:
        self._runs, self._start, self._unread, self._step = runs, start, length, step
        self.held = runs.read(0, 0)

    def hold(self, count: int) -> None:
        """Hold at least ``count`` values, or all that are left."""
        while self.held.size < count and self._unread:
            first = max(self._unread - self._step, 0)
            more = self._runs.read(self._start + first, self._start + self._unread)
            self.held = np.concatenate([more, self.held]) if self.held.size else more
            self._unread = first

    def take(self, bound: np.generic) -> Iterator[np.ndarray]:
        """The values from ``bound`` on, in parts."""
        while True:
            self.hold(1)
            first = int(np.searchsorted(self.held, bound))
            if first < self.held.size:
                yield self.held[first:]
            self.held = self.held[:first]
            if first or not self._unread:
                return


class Descent:
    """One way down through all runs. What is taken is gone for this descent."""

    def __init__(self, runs: list[_Run]) -> None:
        self._runs = runs

    def take(self, bound: np.generic) -> Iterator[np.ndarray]:
        """All values from ``bound`` on that were not taken before, in sorted pieces that may overlap each other."""
        if len(self._runs) == 1:
            yield from self._runs[0].take(bound)
            return
        parts: list[np.ndarray] = []
        n_bytes = 0
        for run in self._runs:
            for part in run.take(bound):
                parts.append(part)
                n_bytes += part.nbytes
                if n_bytes >= CAPACITY:
                    yield _merged(parts)
                    parts, n_bytes = [], 0
        if parts:
            yield _merged(parts)

    def take_largest(self, count: int) -> np.ndarray:
        """The ``count`` largest values that were not taken before, sorted; more where real parts equal the least one.

        All that are left if they are fewer; empty at the end.
        """
        for run in self._runs:
            run.hold(count)
        largest = [run.held[-count:].real for run in self._runs]
        candidates = np.concatenate(largest) if len(largest) > 1 else largest[0]
        if not candidates.size:
            return self._runs[0].held
        rank = max(candidates.size - count, 0)
        least = np.partition(candidates, rank)[rank]
        is_complex = self._runs[0].held.dtype.kind == "c"
        bound = self._runs[0].held.dtype.type(complex(least, -np.inf)) if is_complex else least
        pieces = list(self.take(bound))
        return pieces[0] if len(pieces) == 1 else _merged(pieces)


class Marked:
    """How many real values lie above falling thresholds; every value is looked at once."""

    def __init__(self, runs: SortedRuns) -> None:
        self._descent = runs.descend()
        self._passed = 0

    def count(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values above, and values at or above, each of falling ``thresholds``: (g,) int64 each.

        The thresholds of the next call must be below these.
        """
        above = np.full(thresholds.size, self._passed)
        reached = above.copy()
        for piece in self._descent.take(thresholds[-1]):
            above += piece.size - np.searchsorted(piece, thresholds, side="right")
            reached += piece.size - np.searchsorted(piece, thresholds, side="left")
            self._passed += piece.size
        return above, reached


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    """Sorted values of sorted parts; the stable sort merges what is in order already."""
    return np.sort(np.concatenate(parts), kind="stable")

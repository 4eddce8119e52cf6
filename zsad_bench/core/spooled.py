"""Arrays of one shape, one an image: in memory while they are few, else in a temporary file.

Anomaly maps of a category take more memory than anything else that grows with its images. They are read back one by
one by whoever needs them, through ordinary reads: a memory-mapped file would count as this process's memory again. The
file has no name, so that the operating system removes it when the process ends, however it ends.
"""

from __future__ import annotations

import math
import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.files import cannot_keep

IN_MEMORY = 8 << 20
"""Bytes of a stack that are kept in memory."""

T = TypeVar("T", bound=np.generic)
Item = TypeVar("Item")


class ReadOnDemand(Sequence[Item]):
    """A sequence whose items are read when they are asked for; a slice reads all of its items into a list."""

    @abstractmethod
    def read(self, position: int) -> Item:
        """The item at a position from 0 to below the length."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.read(position) for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{index}: there are {len(self)} arrays")
        return self.read(position)


class Stack(ReadOnDemand[NDArray[T]]):
    """A sequence of arrays of one shape and type, to which arrays are appended.

    Args:
        dtype: of the arrays; what is appended is converted.
        folder: where the temporary file goes; None for the system's folder.
    """

    def __init__(self, dtype: type[T], folder: Path | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.shape: tuple[int, ...] = (0,)
        """As of the array of all of them: (n, ...)."""
        self._folder = folder
        self._arrays: list[NDArray[T]] = []  # empty once they are in the file
        self._file: IO[bytes] | None = None

    @classmethod
    def of(cls, arrays: Iterable[NDArray[T]], dtype: type[T], folder: Path | None = None) -> Stack[T]:
        """A stack of arrays."""
        stack = cls(dtype, folder)
        for array in arrays:
            stack.append(array)
        return stack

    def append(self, array: NDArray[T]) -> None:
        """Add an array; ValueError for another shape than before, UserError if the disk is full."""
        if len(self) and array.shape != self.shape[1:]:
            raise ValueError(f"the arrays of a stack have the shape {self.shape[1:]}, got {array.shape}")
        self._arrays.append(np.array(array, self.dtype, order="C"))
        self.shape = (len(self) + 1, *array.shape)
        if self._file is not None or self._bytes(self.shape) > IN_MEMORY:
            self._spill()

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, position: int) -> NDArray[T]:
        """A copy of one array."""
        if self._file is None:
            return self._arrays[position].copy()
        size = self._bytes(self.shape[1:])
        self._file.seek(position * size)
        return np.frombuffer(bytearray(self._file.read(size)), self.dtype).reshape(self.shape[1:])

    def _spill(self) -> None:
        """Move what is in memory to the end of the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as this
            self._file.seek(0, os.SEEK_END)
            for array in self._arrays:
                self._file.write(array.data)
        except OSError as error:
            raise cannot_keep(self._folder, error) from None
        self._arrays.clear()

    def _bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.dtype.itemsize


class Chosen(ReadOnDemand[Item]):
    """Some items of a sequence."""

    def __init__(self, items: Sequence[Item | None], positions: Sequence[int]) -> None:
        self._items, self._positions = items, positions

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, position: int) -> Item:
        """One of the chosen items."""
        item = self._items[self._positions[position]]
        assert item is not None
        return item


_EMPTY = -1


class Masks(ReadOnDemand[NDArray[np.bool_] | None]):
    """Masks (S, S) of a category, None where there is none. They take a bit a pixel, and none where nothing is marked.

    Args:
        size: S in pixels.
        folder: where the temporary file of many masks goes; None for the system's folder.
    """

    def __init__(self, size: int, folder: Path | None = None) -> None:
        self._shape = size, size
        self._bits = Stack(np.uint8, folder)
        self._places: list[int | None] = []  # in the stack; _EMPTY for a mask that marks nothing

    def append(self, mask: NDArray[np.bool_] | None) -> None:
        """Add a mask."""
        if mask is None or not mask.any():
            self._places.append(None if mask is None else _EMPTY)
            return
        self._places.append(len(self._bits))
        self._bits.append(np.packbits(mask))

    def __len__(self) -> int:
        return len(self._places)

    def read(self, position: int) -> NDArray[np.bool_] | None:
        """One mask, unpacked."""
        place = self._places[position]
        if place is None:
            return None
        if place == _EMPTY:
            return np.zeros(self._shape, bool)
        bits = np.unpackbits(self._bits[place], count=self._shape[0] * self._shape[1])
        return bits.view(np.bool_).reshape(self._shape)

"""How much memory work needs beyond what the process held before, on the host and on a GPU."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType

import psutil
import torch

MIB = 1 << 20
# Seconds between two looks at the resident memory: memory that is held for less may be missed.
INTERVAL = 0.005


class PeakMemory:
    """The largest memory of this process while it is watched, above a level that is set before.

    Resident memory is looked at every few milliseconds by a thread, the same way on every system, and whenever watching
    begins or ends. Of a CUDA device the allocator's own peak is read, which misses nothing. What is there before
    :meth:`settle`, weights, libraries, stored features, and what the allocator kept of earlier work, does not count.

    Args:
        device: whose memory is watched beside the host's.
        resident: bytes that the process holds now.
    """

    def __init__(self, device: torch.device, resident: Callable[[], int] | None = None) -> None:
        self._device = device if device.type == "cuda" and torch.cuda.is_available() else None
        self._resident = resident or _resident_bytes
        self._active, self._closed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._peak = self._gpu_peak = 0
        self.settle()

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    @property
    def host_mib(self) -> float:
        """Largest resident memory above the level, in MiB."""
        return self._peak / MIB

    @property
    def gpu_mib(self) -> float | None:
        """Largest memory of tensors on the CUDA device above the level, in MiB; None without one."""
        return None if self._device is None else self._gpu_peak / MIB

    def settle(self) -> None:
        """What is held now is the level; memory that the C library keeps for later goes back to the system before."""
        _trim()
        self._level, self._gpu_level = self._resident(), self._allocated()

    def raise_level(self, host: int, gpu: int) -> None:
        """So many bytes more do not count."""
        self._level, self._gpu_level = self._level + host, self._gpu_level + gpu

    def now(self) -> tuple[int, int]:
        """Bytes held on the host and on the device."""
        return self._resident(), self._allocated()

    def begin(self) -> None:
        """Watch from now on."""
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)
        self._look()
        self._active.set()

    def end(self) -> None:
        """Watch no longer."""
        self._active.clear()
        self._look()
        if self._device is not None:
            self._gpu_peak = max(self._gpu_peak, torch.cuda.max_memory_allocated(self._device) - self._gpu_level)

    def _allocated(self) -> int:
        return 0 if self._device is None else torch.cuda.memory_allocated(self._device)

    def _look(self) -> None:
        with self._lock:
            self._peak = max(self._peak, self._resident() - self._level)

    def _look_again(self) -> None:
        while not self._closed.wait(INTERVAL):
            if self._active.is_set():
                self._look()


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    """The function of the GNU C library; None elsewhere."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _trim() -> None:
    trim = _malloc_trim()
    if trim is not None:
        trim(0)

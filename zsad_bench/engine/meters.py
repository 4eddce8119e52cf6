"""What is measured while a category is worked on, besides its result: times, charges, memory."""

from __future__ import annotations

from dataclasses import replace

import torch

from zsad_bench.core.console import Listener
from zsad_bench.core.memory import PeakMemory
from zsad_bench.engine.stopwatch import Account, Stopwatch
from zsad_bench.results.rows import own_seconds


class Meters:
    """Everything that is measured while a category is worked on, besides its result."""

    def __init__(self, device: torch.device, memory: PeakMemory) -> None:
        self.memory = memory
        self.watch = Stopwatch(device, memory)
        self.text, self.images = Account(), Account()

    def listener(self, outer: Listener) -> Listener:
        """``outer``, with times and charges coming here."""
        return replace(outer, time=self.watch.time, charge=self.images.add)

    def timing(self, n_images: int) -> dict[str, float | str]:
        """Columns of ``timing.csv``; what is not known is left out."""
        found: dict[str, float | str] = {
            f"seconds_{stage}": round(value, 4) for stage, value in self.watch.seconds.items()
        }
        for name, account in (("text", self.text), ("encode", self.images)):
            if account.seconds is not None:
                found[f"charged_{name}"] = round(account.seconds, 4)
        found["encoded_on"] = ", ".join(sorted(self.text.devices | self.images.devices))
        if (seconds := own_seconds(found)) > 0:
            found["images_per_second"] = round(n_images / seconds, 3)
        found["peak_memory_mb"] = round(self.memory.host_mib, 1)
        if self.memory.gpu_mib is not None:
            found["peak_gpu_memory_mb"] = round(self.memory.gpu_mib, 1)
        return found

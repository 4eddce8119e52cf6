"""What the benchmarks share: times measured side by side, ratios with their targets, and one CSV a benchmark."""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("results/benchmarks")


@dataclass(frozen=True)
class Ratio:
    """One line of a benchmark.

    Attributes:
        name: what is divided by what.
        value: the ratio.
        at_most, at_least: the target, if there is one.
    """

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """The target in words, empty without one."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or empty without a target."""
        if not self.target:
            return ""
        met = self.value <= self.at_most if self.at_most is not None else self.value >= (self.at_least or 0.0)
        return "met" if met else "missed"


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--device``."""
    parser.add_argument("--device", default="cpu", help="as encoder.device: cpu, cuda, cuda:1, mps (default: cpu)")


def add_clock_options(parser: argparse.ArgumentParser) -> None:
    """The options ``--threads`` and ``--cpu-seconds``."""
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument(
        "--cpu-seconds", action="store_true", help="one thread, and its CPU time: other programs disturb it less"
    )


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    """The clock that the options ask for, read when the device has nothing left to do; sets torch's threads.

    Raises:
        SystemExit: no such device, or CPU seconds of work that a GPU does.
    """
    import torch

    from zsad_bench.core.devices import synchronize
    from zsad_bench.core.errors import UserError
    from zsad_bench.encoder.plan import choose_device

    torch.set_num_threads(1 if options.cpu_seconds else options.threads)
    try:
        device = choose_device(options.device)
    except UserError as error:
        raise SystemExit(str(error)) from None
    if options.cpu_seconds and device.type != "cpu":
        raise SystemExit(f"--cpu-seconds says nothing of --device {options.device}; leave one of them out")
    read = time.process_time if options.cpu_seconds else time.perf_counter

    def clock() -> float:
        synchronize(device)
        return read()

    return clock


def clock_name(options: argparse.Namespace) -> str:
    """What the clock of the options measures, for the record."""
    return "CPU seconds of one thread" if options.cpu_seconds else f"wall time, {options.threads} threads"


def seconds(
    runs: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float], warm_up: bool = True
) -> dict[str, float]:
    """The shortest of several runs of each, taken in turns so that a slow minute of the machine hits all alike."""
    if warm_up:
        for run in runs.values():
            run()
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            begin = clock()
            run()
            best[name] = min(best[name], clock() - begin)
    return best


def report(benchmark: str, ratios: Sequence[Ratio], setup: Mapping[str, object]) -> None:
    """Print the ratios with their targets and write them, with the setup, to ``results/benchmarks``."""
    facts = {**setup, "load": f"{os.getloadavg()[0]:.1f}"}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    width = max(len(ratio.name) for ratio in ratios)
    for ratio in ratios:
        print(f"{ratio.name:{width}} {ratio.value:9.3f}  {ratio.target:14} {ratio.verdict}".rstrip())
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{benchmark}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ratio", "value", "target", "verdict", *facts])
        writer.writerows([ratio.name, ratio.value, ratio.target, ratio.verdict, *facts.values()] for ratio in ratios)

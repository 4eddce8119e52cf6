"""What a sweep says of its methods' speed, what it costs as a whole, and the store's speed.

    python benchmarks/sweep.py                 # 200 images, a ViT-B/16 with random weights: takes long on a CPU
    python benchmarks/sweep.py --part charge --model demo --images 80 --rounds 5          # some minutes on two cores
    python benchmarks/sweep.py --part cost --images 32

``charge``: images per second and memory of every method in a sweep of all of them, where one encoder pass serves all,
against the method run alone with ``features=off``. Sweep and single runs take turns, and of text, encoding and method
the shortest of several rounds counts, so that a slow minute of the machine does not look like an error. Writes
results/benchmarks/charge.csv.

``cost``: a sweep of methods x batch sizes against one run that only encodes what those methods ask for. Every part runs
in a process of its own with an empty feature store, start-up and reading of images included. Writes
results/benchmarks/sweep.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from side_by_side import FOLDER, Ratio, add_device_option, report

METHODS = "winclip,anoclip,clip_ad,musc,fiseclip,dual_image"
SIZES = "1,2,4,8,16,32"
# Batch sizes of the comparison with single runs, and by how much a speed may differ from theirs.
CHARGED_SIZES = "1,16"
TOLERANCE = 0.15

ENCODE_ONLY = """
import sys
from zsad_bench.config.compose import compose_config, compose_jobs
from zsad_bench.config.sweeps import every_job
from zsad_bench.config.run_name import with_name
from zsad_bench.contract import Dataset
from zsad_bench.config.plugins import build
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.engine.compute import configured_source
from zsad_bench.feature_store.sweep_request import target, union_of

configs = [job.config for job in compose_jobs(every_job(with_name(sys.argv[1:])))]
wanted = union_of(configs)[target(configs[0])]
source = configured_source(configs[0], build(configs[0].dataset, Dataset, "dataset"))
for category in source.dataset.categories:
    name, texture = source.dataset.class_name(category), source.dataset.is_texture(category)
    for ensemble in {config.method.prompts for config in configs if config.method.get("prompts")}:
        source.encoder.texts.features(load_ensemble(ensemble), name, texture)
    source.category(category, source.dataset.samples(category), wanted)
"""

READ_ONLY = """
import sys, time
from zsad_bench.config.compose import compose_config, compose_jobs
from zsad_bench.config.run_name import with_name
from zsad_bench.core.devices import synchronize
from zsad_bench.contract import Dataset
from zsad_bench.encoder.loading import build_encoder
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.contract import FeatureRequest, Tap
from zsad_bench.config.plugins import build
from zsad_bench.engine.compute import configured_source

config = compose_config(with_name(sys.argv[1:]))
source = configured_source(config, build(config.dataset, Dataset, "dataset"))
blocks = source.encoder.spec.n_blocks
request = FeatureRequest(taps=tuple(Tap(blocks * quarter // 4) for quarter in (1, 2, 3, 4)))
(category,) = source.dataset.categories
samples = source.dataset.samples(category)
batches = [[sample] for sample in samples]
list(source.category(category, samples, request).batches(batches))
direct = FeatureSource(source.dataset, source.encoder)
source.encoder.load()
for kind in (direct, source, direct, source):
    begin = time.perf_counter()
    for _ in kind.category(category, samples, request).batches(batches):
        pass
    synchronize(source.encoder.device)
    print(time.perf_counter() - begin)
"""


def seconds(arguments: list[str], cache: Path, folder: Path) -> tuple[float, str]:
    """Wall time of a command, and what it prints."""
    environment = {**os.environ, "ZSAD_CACHE": str(cache), "ZSAD_DATA": str(folder / "data")}
    begin = time.perf_counter()
    done = subprocess.run(arguments, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return time.perf_counter() - begin, done.stdout


@dataclass
class Measured:
    """What several rounds of a method at a batch size took.

    Attributes:
        seconds: the shortest text, encoding and method; they are short, so the best of each is disturbed least.
        memory: the largest memory that the method added, in MiB.
        gpu_memory: likewise on a GPU; 0 without one.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    memory: float = 0.0
    gpu_memory: float = 0.0

    @property
    def rate(self) -> float:
        """Images per second, as leaderboards define it."""
        return self.images / sum(self.seconds.values())

    def add(self, row: dict[str, str]) -> None:
        """One more round, a row of ``timing.csv``."""
        self.images = int(row["n_images"])
        for name in ("charged_text", "charged_encode", "seconds_score"):
            self.seconds[name] = min(self.seconds.get(name, float("inf")), float(row[name]))
        self.memory = max(self.memory, float(row["peak_memory_mb"]))
        self.gpu_memory = max(self.gpu_memory, float(row.get("peak_gpu_memory_mb") or 0))


def charges(folder: Path, common: list[str], methods: list[str], rounds: int, minutes: float) -> None:
    """Measure and print every method in a sweep against alone, and write the table.

    Args:
        folder: for results and features, deleted afterwards.
        common: overrides of every run.
        methods: names of ``conf/method``.
        rounds: so many, if they fit.
        minutes: a round that would not end within them is not begun.
    """
    begin = time.perf_counter()
    found: dict[tuple[str, str], tuple[Measured, Measured]] = {}
    for number in range(rounds):
        if number and (time.perf_counter() - begin) * (number + 1) / number > 60 * minutes:
            rounds = number
            break
        command = [sys.executable, "-m", "zsad_bench", "-m", *common, f"batch_size={CHARGED_SIZES}"]
        names = {"sweep": ",".join(methods)} | {f"alone_{method}": method for method in methods}
        for name, chosen in names.items():
            mode = "features=disk" if name == "sweep" else "features=off"
            run = f"{name}_{number}"
            seconds([*command, f"method={chosen}", mode, f"name={run}"], folder / f"cache{number}", folder)
            with (folder / "results" / run / "timing.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    both = found.setdefault((row["method"], row["batch_size"]), (Measured(), Measured()))
                    both[name != "sweep"].add(row)
    print(f"the best of {rounds} rounds")
    print(f"{'method':12}{'batch':>6}{'in a sweep':>12}{'alone':>9}{'ratio':>7}   MiB in a sweep, alone   GPU MiB")
    table = []
    for (method, size), (ours, alone) in sorted(found.items(), key=lambda item: (item[0][0], int(item[0][1]))):
        ratio = ours.rate / alone.rate
        late = "" if abs(ratio - 1) <= TOLERANCE else "  more than 15 % apart"
        gpu = f"{ours.gpu_memory:10.0f}{alone.gpu_memory:6.0f}" if alone.gpu_memory else ""
        rates = f"{ours.rate:12.2f}{alone.rate:9.2f}{ratio:7.2f}"
        print(f"{method:12}{size:>6}{rates}{ours.memory:17.0f}{alone.memory:7.0f}{gpu}{late}")
        row = {"method": method, "batch_size": size, "in_a_sweep": ours.rate, "alone": alone.rate, "ratio": ratio}
        table.append({**row, "memory_in_a_sweep": ours.memory, "memory_alone": alone.memory})
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "charge.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    print(f"load {os.getloadavg()[0]:.1f}; {FOLDER / 'charge.csv'}")


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--part", choices=("all", "charge", "cost"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with single runs")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for them; fewer rounds if they are slow")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip name with random weights, or demo")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--quick", action="store_true", help="16 images, a small model, fewer batch sizes")
    add_device_option(parser)
    options = parser.parse_args()
    if options.quick:
        options.images, options.sizes, options.model, options.rounds = 16, "1,16", "ViT-S-32-alt", 1

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        half = options.images // 2
        common = [
            *("dataset=demo", "dataset.categories=[tile]", f"dataset.n_normal={half}"),
            *(f"dataset.n_anomalous={options.images - half}", f"encoder.precision={options.precision}", "maps=none"),
            f"encoder.device={options.device}",
        ]
        if options.model != "demo":
            common += [f"encoder.model={options.model}", "encoder.pretrained=null", "encoder.sha256=null"]
        if options.part != "cost":
            charges(folder, common, options.methods.split(","), options.rounds, options.minutes)
        if options.part == "charge":
            return
        grid = [f"method={options.methods}", f"batch_size={options.sizes}"]
        python = [sys.executable, "-c"]
        seconds([*python, ENCODE_ONLY, *common, "method=winclip", "dataset.categories=[tile]"], folder / "r", folder)
        encode, _ = seconds([*python, ENCODE_ONLY, *common, *grid], folder / "a", folder)
        command = [sys.executable, "-m", "zsad_bench", "-m", *common, *grid, "name=sweep"]
        cold, _ = seconds(command, folder / "b", folder)
        warm, _ = seconds([*command, "overwrite=always"], folder / "b", folder)
        _, printed = seconds([*python, READ_ONLY, *common], folder / "c", folder)
    encoded, read, encoded_again, read_again = map(float, printed.split())
    jobs = len(options.methods.split(",")) * len(options.sizes.split(","))
    ratios = [
        Ratio(f"sweep of {jobs} jobs / encoding once", cold / encode, at_most=1.5),
        Ratio("the same sweep, everything stored / encoding once", warm / encode),
        Ratio("encoding 4 taps / reading them back", (encoded + encoded_again) / (read + read_again), at_least=20.0),
    ]
    setup = {"images": options.images, "model": options.model, "precision": options.precision, "device": options.device}
    report("sweep", ratios, {**setup, "encoding once": f"{encode:.0f} s"})


if __name__ == "__main__":
    main()

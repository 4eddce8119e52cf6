"""A sweep of methods x batch sizes against one run that only encodes what those methods ask for, and the store's speed.

    python benchmarks/sweep.py                 # 200 images, a ViT-B/16 with random weights: takes long on a CPU
    python benchmarks/sweep.py --images 32 --methods clip_ad,musc,fiseclip,dual_image,winclip,anoclip

Every part runs in a process of its own with an empty feature store, start-up and reading of images included. Prints
ratios and writes results/benchmarks/sweep.csv.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from side_by_side import Ratio, add_device_option, report

METHODS = "winclip,anoclip,clip_ad,musc,fiseclip,dual_image"
SIZES = "1,2,4,8,16,32"

ENCODE_ONLY = """
import sys
from zsad_bench.config import compose_config, feature_jobs, with_name
from zsad_bench.data import Dataset
from zsad_bench.plugins import build
from zsad_bench.prompts import load_ensemble
from zsad_bench.runner import configured_source
from zsad_bench.union import target, union_of

configs = [compose_config(job) for job in feature_jobs(with_name(sys.argv[1:]))]
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
from zsad_bench.config import compose_config, with_name
from zsad_bench.core.devices import synchronise
from zsad_bench.data import Dataset
from zsad_bench.encoder import build_encoder
from zsad_bench.feature_source import FeatureSource
from zsad_bench.features import FeatureRequest, Tap
from zsad_bench.plugins import build
from zsad_bench.runner import configured_source

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
    synchronise(source.encoder.device)
    print(time.perf_counter() - begin)
"""


def seconds(arguments: list[str], cache: Path, folder: Path) -> tuple[float, str]:
    """Wall time of a command, and what it prints."""
    environment = {**os.environ, "ZSAD_CACHE": str(cache), "ZSAD_DATA": str(folder / "data")}
    begin = time.perf_counter()
    done = subprocess.run(arguments, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return time.perf_counter() - begin, done.stdout


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--quick", action="store_true", help="16 images, a small model, fewer batch sizes")
    add_device_option(parser)
    options = parser.parse_args()
    if options.quick:
        options.images, options.sizes, options.model = 16, "1,16", "ViT-S-32-alt"

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        half = options.images // 2
        common = [
            *("dataset=demo", "dataset.categories=[tile]", f"dataset.n_normal={half}"),
            *(f"dataset.n_anomalous={options.images - half}", f"encoder.model={options.model}"),
            *("encoder.pretrained=null", "encoder.sha256=null", f"encoder.precision={options.precision}"),
            *(f"encoder.device={options.device}", "maps=none"),
        ]
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

"""Gaussian smoothing of anomaly maps against scipy's filter, whose values it gives.

    python benchmarks/smoothing.py                 # a few seconds on a CPU
    python benchmarks/smoothing.py --cpu-seconds   # on a machine that does other work as well
    python benchmarks/smoothing.py --device cuda   # against scipy on the CPU, without the copies that it would need

Prints ratios and writes results/benchmarks/smoothing.csv.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from scipy.ndimage import gaussian_filter
from side_by_side import Ratio, add_clock_options, add_device_option, clock_name, clock_of, report, seconds

from zsad_bench.toolkit.maps import smooth

# Maps as methods smooth them: sigma 4 and 8 at 240 pixels, and the same at larger inputs.
CASES = (
    ((16, 240, 240), 4.0),
    ((16, 240, 240), 8.0),
    ((4, 518, 518), 8.0),
    ((4, 518, 518), 17.25),
    ((2, 1036, 1036), 8.0),
)


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each, the shortest counts")
    add_clock_options(parser)
    add_device_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    ratios = []
    for shape, sigma in CASES:
        maps = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        runs = {
            "ours": partial(smooth, maps.to(options.device), sigma),
            "scipy": partial(gaussian_filter, maps.numpy(), (0, sigma, sigma), mode="reflect", truncate=4.0),
        }
        time = seconds(runs, options.rounds, clock)
        words = f"{shape[0]} maps of {shape[1]} pixels, sigma {sigma:g}: ours / scipy"
        ratios.append(Ratio(words, time["ours"] / time["scipy"], at_most=1.3))
    report("smoothing", ratios, {"device": options.device, "clock": clock_name(options)})


if __name__ == "__main__":
    main()

"""Matching between the images of a batch against the time that encoding them takes.

    python benchmarks/matching.py                # ViT-B-16-plus-240 with random weights: several minutes on a CPU
    python benchmarks/matching.py --cpu-seconds  # on a machine that does other work as well
    python benchmarks/matching.py --device cuda

Encoding is that of a batch of 32 for MuSc's taps, the fewest of the three batch methods. The features of MuSc's 200
images are those of the 32 with noise added, because encoding time is the same for every image: it is measured on the 32
and multiplied. Prints ratios and writes results/benchmarks/matching.csv.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from side_by_side import Ratio, add_clock_options, add_device_option, clock_name, clock_of, report, seconds

from zsad_bench import load_encoder, load_method
from zsad_bench.contract import FeatureBatch
from zsad_bench.toolkit.draws import normal
from zsad_bench.toolkit.matching import aggregate, mutual_scores

METHODS = ("musc", "fiseclip", "dual_image")
BATCH = 32


def enlarged(batch: FeatureBatch, count: int) -> FeatureBatch:
    """A batch of ``count`` images like those of another: its features again and again, with noise."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(count, device=batch.device) % len(batch)

    def noisy(values: torch.Tensor) -> torch.Tensor:
        copies = values[rows]
        noise = normal(copies.shape, generator, values.device) * values.std() / 10
        return (copies + noise).bfloat16().float()

    return FeatureBatch(
        image_ids=tuple(map(str, range(count))),
        class_tokens=noisy(batch.class_tokens),
        tokens={tap: noisy(tokens) for tap, tokens in batch.tokens.items()},
        grid=batch.grid,
        image_size=batch.image_size,
    )


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-16-plus-240")
    parser.add_argument("--images", type=int, default=200, help="images of the large MuSc set")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every short part, the shortest counts")
    parser.add_argument("--quick", action="store_true", help="a small model, 40 images and one run of everything")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="for the batch of 32")
    parser.add_argument("--precisions", nargs="+", choices=("bf16", "fp32"), default=("bf16", "fp32"))
    add_clock_options(parser)
    add_device_option(parser)
    options = parser.parse_args()
    if options.quick:
        options.model, options.images, options.rounds = "ViT-S-32-alt", 40, 1
    clock, rounds = clock_of(options), options.rounds
    ratios: list[Ratio] = []
    with torch.inference_mode():
        for precision in options.precisions:
            encoder = load_encoder(options.model, None, device=options.device, precision=precision, feature_bits=16)
            size = encoder.spec.image_size
            pixels = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(0)).to(encoder.device)
            bounds = {name: load_method(name, encoder=encoder) for name in {"musc", *options.methods}}
            for bound in bounds.values():
                bound.predict_images(pixels[:2], class_name="metal nut")  # prompts, and whatever is made once
            musc, request = bounds["musc"].method, bounds["musc"].method.request()
            encode = seconds({"": partial(encoder.encode, pixels, request)}, rounds, clock, warm_up=False)[""]
            for bound in bounds.values():
                request = request.union(bound.method.request())
            batch = encoder.encode(pixels, request)
            time = seconds({name: partial(bounds[name].method.predict, batch) for name in bounds}, rounds, clock)
            for name in sorted(bounds):
                words = f"{precision}: {name}, batch of {BATCH}: matching / encoding"
                ratios.append(Ratio(words, time[name] / encode, at_most=0.3))
            tap, *others = musc.request().taps
            alone = {
                str(side): partial(mutual_scores, aggregate(batch.patches(tap), batch.grid, side), (0.0, 0.3))
                for side in (1, 3, 5)
            }
            one_by_one = (1 + len(others)) * sum(seconds(alone, rounds, clock).values())
            words = f"{precision}: one float32 product a neighbourhood side / musc, batch of {BATCH}"
            ratios.append(Ratio(words, one_by_one / time["musc"]))
            many = partial(musc.predict, enlarged(batch, options.images))
            own = seconds({"": many}, 1, clock, warm_up=False)[""]
            words = f"{precision}: musc, {options.images} images: matching / encoding"
            ratios.append(Ratio(words, own / (encode / BATCH * options.images), at_most=0.5))
    report("matching", ratios, {"model": options.model, "device": options.device, "clock": clock_name(options)})


if __name__ == "__main__":
    main()

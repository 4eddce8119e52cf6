"""The encoder against open_clip's own ``encode_image``, and what an image costs each method.

    python benchmarks/encoder.py                 # ViT-B-16-plus-240 with random weights: several minutes on a CPU
    python benchmarks/encoder.py --quick         # a small model, for a look at whether it runs
    python benchmarks/encoder.py --cpu-seconds   # on a machine that does other work as well
    python benchmarks/encoder.py --device cuda

The unit of what a method costs is one plain float32 ``encode_image`` of one image at chunk 8. Weights are random: speed
does not depend on their values. Prints ratios and writes results/benchmarks/encoder.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from side_by_side import Ratio, add_clock_options, add_device_option, clock_name, clock_of, report, seconds

from zsad_bench import load_encoder, load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.packed import Linear, can_pack
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.precision import PRECISIONS
from zsad_bench.text.cache import TextCache
from zsad_bench.text.ensembles import PromptEnsemble, load_ensemble
from zsad_bench.toolkit.taps import quarter_depths

CHUNK = 8
METHODS = ("winclip", "anoclip", "clip_ad", "musc", "fiseclip", "dual_image")
# Images per call, and the target in units.
COSTS = {"clip_ad": (CHUNK, 0.45), "anoclip": (CHUNK, 8.0), "winclip": (CHUNK, 4.0), "musc": (64, 0.6)}
# Rows, inner dimension and columns of products whose best rate counts as the peak.
PRODUCTS = ((1808, 896, 3584), (1808, 3584, 896), (2048, 2048, 2048))


def dense_request(encoder: ClipEncoder) -> FeatureRequest:
    """Plain taps at four depths and the value-value stream at the end."""
    taps = [Tap(block) for block in quarter_depths(encoder.spec.n_blocks)]
    return FeatureRequest(taps=(*taps, Tap(-1, Stream(), projected=True)))


def image_operations(encoder: ClipEncoder) -> float:
    """Floating point operations of one ``encode_image``: products of the blocks, the patch embedding, attention."""
    spec = encoder.spec
    patches = spec.grid[0] * spec.grid[1]
    tokens = patches + 1
    inner = encoder.visual.transformer.resblocks[0].mlp.c_fc.weight.shape[0]
    block = 2 * tokens * spec.width * (4 * spec.width + 2 * inner) + 4 * tokens**2 * spec.width
    return spec.n_blocks * block + 2 * patches * 3 * spec.patch_size**2 * spec.width


def matmul_rate(precision: str, clock: Callable[[], float], rounds: int, device: torch.device) -> float:
    """The best rate of several large products, plain and packed, in operations per second."""
    dtype = PRECISIONS[precision]
    runs, work = {}, {}
    for rows, inner, columns in PRODUCTS:
        x = torch.ones(rows, inner, dtype=dtype, device=device)
        weight = torch.ones(columns, inner, dtype=dtype, device=device)
        for pack in {False, device.type == "cpu" and can_pack(dtype)}:
            name = f"{rows} {inner} {columns} {pack}"
            runs[name], work[name] = partial(Linear(weight, None, pack), x), 2.0 * rows * inner * columns
    found = seconds(runs, rounds, clock)
    return max(work[name] / found[name] for name in runs)


def predictions(bound: BoundMethod, pixels: torch.Tensor) -> Callable[[], object]:
    """Encoding and scoring of a batch, prompts apart."""
    return lambda: bound.method.predict(bound.encoder.encode(pixels, bound.method.request()))


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-16-plus-240")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every short part, the shortest counts")
    parser.add_argument("--quick", action="store_true", help="a small model and one run of everything")
    add_clock_options(parser)
    add_device_option(parser)
    options = parser.parse_args()
    if options.quick:
        options.model, options.rounds = "ViT-S-32-alt", 1
    clock, rounds = clock_of(options), options.rounds
    load = partial(load_encoder, options.model, None, device=options.device, chunk_size=CHUNK, feature_bits=16)
    encoders = {precision: load(precision=precision) for precision in ("fp32", "bf16")}
    size = encoders["fp32"].spec.image_size
    device = encoders["fp32"].device
    pixels = torch.randn(64, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    chunk = pixels[:CHUNK]
    ratios: list[Ratio] = []

    with torch.inference_mode():
        runs: dict[str, Callable[[], object]] = {}
        for precision, encoder in encoders.items():
            images = chunk.to(PRECISIONS[precision])
            own_encode = cast(Callable[[torch.Tensor], torch.Tensor], encoder.model.encode_image)
            runs[f"own {precision}"] = partial(own_encode, images)
            runs[f"class {precision}"] = partial(encoder.encode, chunk, FeatureRequest())
            runs[f"dense {precision}"] = partial(encoder.encode, chunk, dense_request(encoder))
        for name in METHODS:
            request = load_method(name, encoder=encoders["bf16"]).method.request()
            if request.taps:
                runs[f"taps of {name}"] = partial(encoders["bf16"].encode, chunk, FeatureRequest(taps=request.taps))
        time = seconds(runs, rounds, clock)
        for precision in encoders:
            own, dense = time[f"own {precision}"], time[f"dense {precision}"]
            name = f"{precision}: four plain taps and the v-v stream / encode_image"
            ratios.append(Ratio(name, dense / own, at_most=1.35))
            ratios.append(Ratio(f"{precision}: class token alone / encode_image", time[f"class {precision}"] / own))
        taps = [name for name in time if name.startswith("taps ")]
        ratios += [Ratio(f"bf16: {name} / encode_image", time[name] / time["own bf16"]) for name in taps]
        ratios.append(Ratio("encode_image fp32 / bf16, open_clip's own", time["own fp32"] / time["own bf16"]))
        name = "encode_image fp32 / our class token in bf16"
        ratios.append(Ratio(name, time["own fp32"] / time["class bf16"], at_least=4.0))
        peak = {precision: matmul_rate(precision, clock, rounds, device) for precision in encoders}
        ratios.append(Ratio("rate of matrix products bf16 / fp32", peak["bf16"] / peak["fp32"]))
        for precision, encoder in encoders.items():
            operations = CHUNK * image_operations(encoder)
            for kind, words in (("own", "open_clip's encode_image"), ("class", "our class token")):
                share = operations / time[f"{kind} {precision}"] / peak[precision]
                target = 0.55 if (kind, precision) == ("class", "bf16") else None
                ratios.append(Ratio(f"{precision}: {words}, share of the matrix product rate", share, at_least=target))

        unit = time["own fp32"] / CHUNK
        for name, (count, target) in COSTS.items():
            bound = load_method(name, encoder=encoders["bf16"])
            bound.predict_images(chunk[:1], class_name="metal nut")  # prompts, and whatever is made once
            run = {name: predictions(bound, pixels[:count])}
            each = seconds(run, max(1, rounds // 3), clock, warm_up=False)[name] / count
            ratios.append(Ratio(f"{name}, {count} images, bf16: units an image", each / unit, at_most=target))
        encoder = encoders["bf16"]
        for name in ("winclip", "anoclip", "clip_ad"):
            prompts = load_method(name, encoder=encoder).method.prompts
            assert prompts is not None
            ensemble = load_ensemble(prompts)

            def first(ensemble: PromptEnsemble = ensemble) -> None:
                encoder.texts = TextCache(encoder, encoder.device)
                encoder.texts.features(ensemble, "metal nut", False)

            def again(ensemble: PromptEnsemble = ensemble) -> None:
                encoder.texts.features(ensemble, "metal nut", False)

            cold = seconds({"first": first}, max(1, rounds // 2), clock)["first"]
            warm = seconds({"again": again}, rounds, clock)["again"]
            words = f"text of one category for {name}, bf16: units"
            ratios.append(Ratio(f"{words}, first time", cold / unit, at_most=15.0))
            ratios.append(Ratio(f"{words}, afterwards", warm / unit, at_most=0.05))
    setup = {"model": options.model, "device": options.device, "chunk": CHUNK, "clock": clock_name(options)}
    report("encoder", ratios, setup)


if __name__ == "__main__":
    main()

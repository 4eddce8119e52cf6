"""Measure the cost model of docs/scaling.md on this machine and write its tables and its plot anew.

python benchmarks/scaling.py                      measure, rewrite docs/scaling.md and docs/images/scaling.png
python benchmarks/scaling.py --images 5000 --categories 10   predict for a dataset of one's own, with the constants
                                                  of the last measurement (results/bench/scaling.pickle)
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import platform
import statistics
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import torch
from scaling_measure import ENCODER, MODEL, encoder_at, measure, photo_dataset
from scaling_model import (
    Constants,
    DatasetSize,
    Fit,
    Hardware,
    feature_bytes,
    predict,
    predict_sweep,
    union_request,
    walk_flops,
)

from zsad_bench.config.compose import compose_config
from zsad_bench.contract import FeatureRequest, Tap
from zsad_bench.core.files import write_atomic
from zsad_bench.core.machine import facts
from zsad_bench.encoder.plan import encoder_spec
from zsad_bench.engine.job import run_job
from zsad_bench.feature_store.loading import loader_workers

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PAGE, PLOT = ROOT / "docs" / "scaling.md", ROOT / "docs" / "images" / "scaling.png"
KEPT = ROOT / "results" / "bench"
BEGIN, END = "<!-- {} begins: written by benchmarks/scaling.py -->", "<!-- {} ends -->"

# An RTX 3090, which was not measured here. Images per second of timm's vit_base_patch16_plus_240, the same tower, at
# 240 pixels: results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv of huggingface/pytorch-image-models. Matching
# runs in float32: 35.6 TFLOP/s is the peak of the card, half of it an assumption.
GPU_IMAGES_PER_SECOND = 1004.42
GPU_MATCH_FLOPS = 0.5 * 35.6e12

CORES = 2
# Test images per category. Real-IAD: 151 050 images in 30 categories, taken as equal, in its 1024-pixel version.
MVTEC = (83, 150, 132, 117, 78, 110, 124, 115, 167, 160, 117, 42, 100, 79, 151)
VISA = (200, 160, 150, 150, 150, 200, 200, 200, 200, 201, 201, 150)
DATASETS = (
    DatasetSize("MVTec AD", MVTEC, 1258, 1.0, "png"),
    DatasetSize("VisA", VISA, 1200, 1.5, "jpeg"),
    DatasetSize("Real-IAD", (5035,) * 30, 51329, 1.05, "jpeg"),
)
CELLS: tuple[tuple[str, int | str], ...] = (
    *(("clip_ad", 16), ("anoclip", 16), ("winclip", 16)),
    *(("dual_image", 16), ("fiseclip", 16), ("musc", 16), ("musc", "all")),
)
GRID = tuple(
    (method, size)
    for method in ("clip_ad", "anoclip", "winclip", "dual_image", "fiseclip", "musc")
    for size in ((16,) if method in ("clip_ad", "anoclip", "winclip") else (1, 4, 16))
)


def hardware(constants: Constants) -> tuple[Hardware, ...]:
    """The cores of this machine, a core of it with a GPU, and 64 of those."""
    plain = walk_flops(encoder_spec(MODEL, None, None), FeatureRequest(taps=(Tap(-1),)))
    encode = constants.walk(1, plain) * GPU_IMAGES_PER_SECOND
    flops = statistics.median(1 / cost.score.constants[2] for cost in constants.methods.values() if cost.maps)
    match = GPU_MATCH_FLOPS / flops
    return (
        Hardware("1 CPU", processes=CORES),
        Hardware("1 GPU", encode, match, loader_workers(), overlap=True),
        Hardware("64 GPUs", encode, match, loader_workers(), processes=64, overlap=True),
    )


def check(constants: Constants) -> dict[str, tuple[float, float]]:
    """Whole jobs on fresh photos: method -> CPU seconds predicted and measured."""
    count, found = 12, {}
    encoder = encoder_at(240)
    encoder.encode(torch.zeros(1, 3, 240, 240), FeatureRequest())
    encoder.encode_text(["a photo"])
    size = DatasetSize("check", (count,), count * 6 // 10, 1.05, "jpeg")
    for method in ("clip_ad", "musc"):
        with tempfile.TemporaryDirectory() as folder:
            root = photo_dataset(Path(folder) / "photos", count)
            choices = ("encoder.image_size=240", f"method={method}", "dataset=mvtec", "batch_size=16", "name=check")
            config = compose_config([*ENCODER, *choices, f"dataset.root={root}", f"features.root={folder}/store"])
            start = time.process_time()
            run_job(config, Path(folder) / "results", show_progress=False)
            measured = time.process_time() - start
        predicted = predict(constants, encoder_spec(MODEL, None, None), size, method, 16, Hardware("one core"))
        found[method] = predicted.total - predicted.start, measured
    return found


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.95 * length:
            return f"{seconds / length:.{0 if seconds >= 10 * length else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


def gigabytes(size: float) -> str:
    """Bytes as a person says them."""
    return f"{size / 1e9:.{0 if size >= 1e10 else 1}f} GB"


def quantity(value: float, unit: str) -> str:
    """A constant with a readable prefix."""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"), (1e-18, "a")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return "0"


def constants_table(constants: Constants, machine: str) -> str:
    """The fitted constants."""
    rows: list[tuple[str, Fit]] = [
        *((f"load, {kind}", found) for kind, found in constants.load.items()),
        *(("encode, walk", constants.walk), ("encode, windows", constants.windows), ("text", constants.text)),
        *(("read", constants.read), ("metrics", constants.metrics), ("metrics, masks", constants.masks)),
        ("close", constants.close),
        *((f"score and match, {name}", cost.score) for name, cost in constants.methods.items()),
    ]
    lines = [machine, "", "| stage | seconds | points | largest deviation |", "|---|---|---|---|"]
    for name, found in rows:
        terms = [
            f"{quantity(constant, 's')} x {term}"
            for constant, term in zip(found.constants, found.terms, strict=True)
            if constant
        ]
        lines.append(f"| {name} | {' + '.join(terms)} | {len(found.seconds)} | {found.deviation:.0%} |")
    lines.append(f"| start of a process | {constants.start:.1f} s | 1 | |")
    rate = 1 / constants.walk.constants[1] / 1e9
    lines += ["", f"Rates: {rate:.0f} GFLOP/s in the walk, {1 / constants.windows.constants[0] / 1e9:.0f} in windows."]
    return "\n".join(lines)


def check_table(jobs: dict[str, tuple[float, float]]) -> str:
    """Predictions against runs."""
    lines = ["| method | predicted | measured | predicted / measured |", "|---|---|---|---|"]
    for method, (predicted, measured) in jobs.items():
        lines.append(f"| {method} | {predicted:.1f} s | {measured:.1f} s | {predicted / measured:.2f} |")
    return "\n".join(lines)


def predictions(constants: Constants, datasets: tuple[DatasetSize, ...]) -> tuple[str, list[dict[str, object]]]:
    """The table of predictions and its rows for the CSV."""
    spec, machines = encoder_spec(MODEL, None, None), hardware(constants)
    head = ["dataset", "method", "batch", *(machine.name for machine in machines), "1 CPU, stored", "features"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows: list[dict[str, object]] = []
    for dataset in datasets:
        for method, size in CELLS:
            found = [predict(constants, spec, dataset, method, size, machine) for machine in machines]
            again = predict(constants, spec, dataset, method, size, machines[0], stored=True)
            cells = [duration(seconds.total) for seconds in (*found, again)]
            cells.append(gigabytes(feature_bytes(spec, constants.methods[method].request) * dataset.images))
            lines.append(f"| {dataset.name} | {method} | {size} | " + " | ".join(cells) + " |")
            for machine, seconds in zip((*machines, machines[0]), (*found, again), strict=True):
                stages = {name: round(value, 3) for name, value in vars(seconds).items() if name != "overlap"}
                key = {"dataset": dataset.name, "method": method, "batch_size": size, "hardware": machine.name}
                rows.append({**key, "stored": seconds is again, "total": round(seconds.total, 3), **stages})
        whole = [duration(predict_sweep(constants, spec, dataset, GRID, machine)) for machine in machines]
        space = gigabytes(feature_bytes(spec, union_request(constants, GRID)) * dataset.images)
        lines.append(f"| {dataset.name} | the sweep | | {' | '.join(whole)} | | {space} |")
    return "\n".join(lines), rows


def draw(constants: Constants) -> None:
    """Every fit with its points."""
    panels: list[tuple[str, str, Fit, int, float]] = [
        ("load (JPEG)", "megapixels", constants.load["jpeg"], 1, 1.0),
        ("encode, walk", "GFLOP an image", constants.walk, 1, 1e9),
        ("encode, windows", "GFLOP an image", constants.windows, 0, 1e9),
        ("text", "prompts", constants.text, 1, 1.0),
        ("read", "MB an image", constants.read, 1, 1e6),
        ("metrics", "P log2 P, millions", constants.metrics, 1, 1e6),
        ("match: MuSc", "GFLOP a batch", constants.methods["musc"].score, 2, 1e9),
        ("score: AnoCLIP, 8 images", "patches", constants.methods["anoclip"].score, 1, 8.0),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), constrained_layout=True)
    for axis, (title, label, found, column, unit) in zip(axes.flat, panels, strict=True):
        points = sorted(zip(found.quantities, found.seconds, strict=True), key=lambda point: point[0][column])
        places = [row[column] / unit for row, _ in points]
        axis.plot(places, [found(*row) for row, _ in points], color="#9a9a9a", marker="_", zorder=1, label="model")
        axis.scatter(places, [second for _, second in points], color="#b3261e", s=22, zorder=2, label="measured")
        axis.set(title=title, xlabel=label, ylabel="CPU seconds", ylim=(0, None), xlim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes.flat[0].legend(frameon=False)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=80, metadata={"Software": None})
    plt.close(figure)


def put(page: str, name: str, text: str) -> str:
    """Replace a marked block of the page."""
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not rest or not after:
        raise SystemExit(f"{PAGE}: the lines '{begin}' and '{end}' are missing")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    """Measure or predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="test images of a dataset of your own")
    parser.add_argument("--categories", type=int, default=1, help="its categories (default 1)")
    parser.add_argument("--megapixels", type=float, default=1.0, help="of its files (default 1)")
    args = parser.parse_args()
    kept = KEPT / "scaling.pickle"
    if args.images:
        if not kept.exists():
            raise SystemExit("no constants yet: run python benchmarks/scaling.py first")
        sizes = tuple(
            args.images // args.categories + (index < args.images % args.categories) for index in range(args.categories)
        )
        own = DatasetSize("yours", sizes, args.images // 2, args.megapixels, "jpeg")
        print(predictions(pickle.loads(kept.read_bytes()), (own,))[0])
        return

    start, load = time.perf_counter(), os.getloadavg()[0]
    constants = measure(print)
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(pickle.dumps(constants))
    encoder = encoder_at(240)
    jobs = check(constants)
    where, after = facts(encoder.device)["device"], os.getloadavg()[0]
    machine = (
        f"CPU seconds of one thread on {where.split(' (')[0]}, load {load:.1f} before and {after:.1f} after; torch "
        f"{torch.__version__}, Python {platform.python_version()}, encoder {MODEL} in {encoder.precision} with random "
        "weights; the fewest of 2 to 5 runs."
    )
    table, rows = predictions(constants, DATASETS)
    blocks = {
        "constants": constants_table(constants, machine),
        "check": check_table(jobs),
        "predictions": table,
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, text in blocks.items():
        page = put(page, name, text)
        print(f"\n{text}")
    write_atomic(PAGE, page)
    draw(constants)
    with (KEPT / "scaling.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\nwrote {PAGE}, {PLOT} and {KEPT / 'scaling.csv'} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

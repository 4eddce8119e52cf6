"""Seconds and memory of the pixel metrics, against the usual way of computing them, in one process on the same data.

    python benchmarks/metrics.py [--maps 80] [--size 336] [--repeats 3] [--csv results/bench_metrics.csv]

The usual way is scikit-learn's three calls (roc_auc_score, average_precision_score, precision_recall_curve) and the
200-threshold AUPRO sweep with a loop over thresholds, images and regions. `pixel_metrics` gives the same values and
the exact AUPRO besides; the script stops when a value differs by 1e-9 or more.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

# One thread for everything, so that process seconds compare like with like. Must precede numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import scipy  # noqa: E402
import sklearn  # noqa: E402
from scipy import ndimage  # noqa: E402
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score  # noqa: E402

from zsad_bench.metrics import pixel_metrics  # noqa: E402

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


def make_category(n_maps: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n, size, size) bool, three images in four anomalous with 1 to 4 ellipses, about 3% of all pixels; and
    float32 maps: smooth and fine noise, raised inside the ellipses."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    masks = np.zeros((n_maps, size, size), dtype=bool)
    maps = rng.random((n_maps, size, size), dtype=np.float32)
    for index in range(n_maps):
        coarse = rng.random((size // 16 + 1, size // 16 + 1), dtype=np.float32)
        maps[index] += 2 * ndimage.zoom(coarse, size / coarse.shape[0], order=1)[:size, :size]
        for _ in range(rng.integers(1, 5) if index % 4 else 0):
            cy, cx = rng.uniform(0.1, 0.9, 2) * size
            ry, rx = rng.uniform(0.03, 0.11, 2) * size
            masks[index] |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    maps[masks] += 0.7
    return masks, maps


def sklearn_three_calls(masks: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """AUROC, AP and F1-max by three independent scikit-learn calls."""
    truth, scores = masks.ravel(), maps.ravel()
    auroc = roc_auc_score(truth, scores)
    ap = average_precision_score(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    with np.errstate(invalid="ignore"):
        f1max = np.nanmax(2 * precision * recall / (precision + recall))
    return {"pixel_auroc": float(auroc), "pixel_ap": float(ap), "pixel_f1max": float(f1max)}


def sweep_with_loops(masks: np.ndarray, maps: np.ndarray, label_once: bool = False) -> float:
    """The 200-threshold AUPRO written plainly: threshold by threshold, image by image, region by region.

    The usual codes find the regions anew at every threshold. With `label_once` they are found a single time, which
    shows how much of the gain comes from that alone.
    """

    def regions_of(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        labels, _ = ndimage.label(mask, structure=EIGHT_CONNECTED)
        boxes = ndimage.find_objects(labels)
        found = []
        for number, (rows, columns) in enumerate(boxes, start=1):
            inside_rows, inside_columns = np.nonzero(labels[rows, columns] == number)
            found.append((inside_rows + rows.start, inside_columns + columns.start))
        return found

    cached = [regions_of(mask) for mask in masks] if label_once else None
    low, high = maps.min(), maps.max()
    normal = ~masks
    fprs, overlaps = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        marked = maps > threshold
        fractions = []
        for index in range(len(masks)):
            for region in cached[index] if cached is not None else regions_of(masks[index]):
                fractions.append(marked[index][region].sum() / region[0].size)  # noqa: PERF401
        overlaps.append(np.mean(fractions))
        fprs.append(np.logical_and(normal, marked).sum() / normal.sum())
    fpr, overlap = np.array(fprs), np.array(overlaps)
    overlap, fpr = overlap[fpr < 0.3], fpr[fpr < 0.3]
    fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    return float(np.trapezoid(overlap[::-1], fpr[::-1]))


def best_seconds(run: Callable[[], object], repeats: int) -> tuple[float, float, object]:
    """(process CPU seconds, wall seconds, result); each the smallest of `repeats` runs."""
    cpu, wall, result = np.inf, np.inf, None
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        result = run()
        cpu = min(cpu, time.process_time() - cpu_start)
        wall = min(wall, time.perf_counter() - wall_start)
    return cpu, wall, result


def peak_bytes(run: Callable[[], object]) -> int:
    """Largest number of bytes allocated beyond what was held before (numpy reports its arrays to tracemalloc)."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=80, help="number of maps in the category (default 80)")
    parser.add_argument("--size", type=int, default=336, help="side of a map in pixels (default 336)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each fast part, the best counts (default 3)")
    parser.add_argument("--csv", type=Path, help="append one row with all figures to this file")
    args = parser.parse_args()

    masks, maps = make_category(args.maps, args.size)
    n_regions = sum(ndimage.label(mask, structure=EIGHT_CONNECTED)[1] for mask in masks)
    load = os.getloadavg()[0]
    print(
        f"{args.maps} maps of {args.size} x {args.size}: {maps.size / 1e6:.2f} M pixels, {masks.mean():.1%} anomalous,"
    )
    print(f"{n_regions} regions. Machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores,")
    print(f"load {load:.2f}; numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}")

    ours_cpu, ours_wall, ours = best_seconds(lambda: pixel_metrics(masks, maps), max(args.repeats, 1) * 3)
    both_cpu, both_wall, both = best_seconds(
        lambda: pixel_metrics(masks, maps, sweep200=True), max(args.repeats, 1) * 3
    )
    sk_cpu, sk_wall, expected = best_seconds(lambda: sklearn_three_calls(masks, maps), args.repeats)
    loop_cpu, loop_wall, sweep = best_seconds(lambda: sweep_with_loops(masks, maps), 1)
    once_cpu, once_wall, sweep_once = best_seconds(lambda: sweep_with_loops(masks, maps, label_once=True), 1)
    memory = peak_bytes(lambda: pixel_metrics(masks, maps, sweep200=True)) / maps.nbytes

    assert isinstance(ours, dict)
    assert isinstance(both, dict)
    assert isinstance(expected, dict)
    for name, value in {**expected, "pixel_aupro_sweep200": sweep}.items():
        difference = abs(both[name] - value)
        print(f"{name:22s} {both[name]:.12f}  usual way {value:.12f}  difference {difference:.1e}")
        assert difference < 1e-9, f"{name}: {both[name]} differs from {value}"
    assert sweep == sweep_once
    assert all(both[name] == value for name, value in ours.items())
    print(f"{'pixel_aupro':22s} {ours['pixel_aupro']:.12f}")

    rows = [
        ("scikit-learn, three calls", sk_cpu, sk_wall),
        ("200-threshold loop", loop_cpu, loop_wall),
        ("200-threshold loop, regions found once", once_cpu, once_wall),
        ("pixel_metrics", ours_cpu, ours_wall),
        ("pixel_metrics with sweep200", both_cpu, both_wall),
    ]
    for name, cpu, wall in rows:
        print(f"{name:40s} {cpu:8.3f} s CPU {wall:8.3f} s wall")
    ratio, ratio_wall = (sk_cpu + loop_cpu) / ours_cpu, (sk_wall + loop_wall) / ours_wall
    ratio_same, ratio_once = (sk_cpu + loop_cpu) / both_cpu, (sk_cpu + once_cpu) / ours_cpu
    print(
        f"usual way / pixel_metrics: {ratio:.0f} x CPU, {ratio_wall:.0f} x wall; with sweep200: {ratio_same:.0f} x CPU;"
    )
    print(f"against the loop that finds regions once: {ratio_once:.0f} x CPU")
    print(f"peak memory beyond the inputs: {memory:.2f} x the bytes of the maps")

    if args.csv:
        row = {
            "maps": args.maps,
            "size": args.size,
            "regions": n_regions,
            "load": f"{load:.2f}",
            "sklearn_cpu_s": f"{sk_cpu:.3f}",
            "loop_cpu_s": f"{loop_cpu:.3f}",
            "loop_regions_once_cpu_s": f"{once_cpu:.3f}",
            "pixel_metrics_cpu_s": f"{ours_cpu:.3f}",
            "pixel_metrics_wall_s": f"{ours_wall:.3f}",
            "with_sweep200_cpu_s": f"{both_cpu:.3f}",
            "ratio_cpu": f"{ratio:.1f}",
            "ratio_wall": f"{ratio_wall:.1f}",
            "ratio_regions_once_cpu": f"{ratio_once:.1f}",
            "peak_memory_ratio": f"{memory:.2f}",
            "numpy": np.__version__,
        }
        new = not args.csv.exists()
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        with args.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()

"""Seconds to build the tables of 10 000 result rows, and to resample one category of MVTec AD's size.

    python benchmarks/tables.py [--rows 10000] [--images 83] [--size 518]

The rows are 10 000 categories of jobs of 15, with replicates in memory as they are after reading. The category has maps
of noise; printed are the seconds for its histograms and for all metrics of 1000 resamples, and the largest difference
from the exact metrics over a few resamples. Seconds are of the processor, so that a busy machine does not change them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from metrics import make_category

from zsad_bench.leaderboard.board import BoardOptions, build_board
from zsad_bench.leaderboard.comparisons import block_values, compare, verdict
from zsad_bench.leaderboard.defects import by_defect_type
from zsad_bench.leaderboard.merged_rows import shown_rows
from zsad_bench.leaderboard.questions import by_batch_size, by_category, speed
from zsad_bench.leaderboard.series import group_series, largest_batches, sections
from zsad_bench.leaderboard.text import leaderboard_latex, leaderboard_markdown
from zsad_bench.metrics import pixel_metrics
from zsad_bench.metrics.names import METRICS
from zsad_bench.report.sections import coverage
from zsad_bench.results.files import Arrays
from zsad_bench.results.rows import CategoryResult, ImageResult, JobInfo
from zsad_bench.results.runs import Job
from zsad_bench.statistics.bootstrap import BOOTSTRAPPED, RESAMPLES, Replicates, pixel_replicates, resample_weights
from zsad_bench.statistics.histograms import summarise
from zsad_bench.statistics.intervals import rank_test
from zsad_bench.statistics.kept import REPLICATES

CATEGORIES = tuple(f"category{number:02}" for number in range(15))


class _InMemory(Job):
    """A job whose replicates need no file."""

    def arrays(self, category: str, kind: str) -> Arrays:
        return _REPLICATES if kind == REPLICATES else {}


_VALUES = np.random.default_rng(0).uniform(0.6, 0.8, (RESAMPLES, len(BOOTSTRAPPED)))
_REPLICATES = Replicates("images", _VALUES).to_arrays()


def make_jobs(rows: int) -> list[Job]:
    """Finished jobs of 15 categories: 50 methods on 9 datasets, some at two batch sizes."""
    random = np.random.default_rng(0)
    jobs: list[Job] = []
    for number in range(rows // len(CATEGORIES)):
        labels = (f"method{number % 50}", "paper", "single", f"set{number % 9}", "standard", "ViT", "tag", 240)
        info = JobInfo(*labels, number, 0, f"{number:012x}", CATEGORIES, f"{number:012x}")
        timing: dict[str, float | str] = {"charged_encode": 1.0, "charged_text": 0.0, "encoded_on": ""}
        timing |= {"seconds_score": 1.0, "peak_memory_mb": 1.0}
        images = tuple(ImageResult(str(image), image % 2, "spot", random.random()) for image in range(20))
        results = {
            name: CategoryResult(name, 20, 10, 0, dict.fromkeys(METRICS, value), "", "", images, timing=timing)
            for name, value in zip(CATEGORIES, random.random(len(CATEGORIES)), strict=True)
        }
        jobs.append(_InMemory(info, results, {}))
    return jobs


def board_seconds(jobs: list[Job]) -> float:
    """Seconds from results in memory to the leaderboard as table, Markdown and LaTeX."""
    start = time.process_time()
    series = group_series(jobs)
    board = build_board(series)
    shown = shown_rows(series, board)
    leaderboard_markdown(shown, BoardOptions())
    leaderboard_latex(shown, BoardOptions())
    return time.process_time() - start


def report_seconds(jobs: list[Job]) -> float:
    """Seconds from results in memory to the report's tables: coverage, batch sizes, categories, speed, comparisons."""
    start = time.process_time()
    series = group_series(jobs)
    coverage(series)
    for entries in sections(series).values():
        chosen = largest_batches(entries)
        by_batch_size(entries)
        speed(entries, "image_auroc")
        by_category(chosen)
        by_defect_type(chosen)
        verdict(compare(chosen, "image_auroc"), "image_auroc")
        rank_test(block_values(chosen, "image_auroc"))
    return time.process_time() - start


def category_seconds(images: int, size: int) -> tuple[float, float, float]:
    """Seconds for the histograms, seconds for the resamples, largest error."""
    masks, maps = make_category(images, size)
    start = time.process_time()
    summary = summarise([str(index) for index in range(images)], list(masks), maps)
    made = time.process_time()
    assert summary is not None
    weights = resample_weights(masks.any(axis=(1, 2)).tolist(), 0)
    got = pixel_replicates(summary, weights)
    resampled = time.process_time()
    worst = 0.0
    for row, values in zip(weights[:3], got[:3], strict=True):
        drawn = np.repeat(np.arange(images), row.astype(int))
        exact = np.array(list(pixel_metrics(masks[drawn], maps[drawn]).values()))
        worst = max(worst, float(np.abs(values - exact).max()))
    return made - start, resampled - made, worst


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=83)
    parser.add_argument("--size", type=int, default=518)
    given = parser.parse_args()
    jobs = make_jobs(given.rows)
    print(f"leaderboard of {given.rows} rows: {board_seconds(jobs):.2f} s")
    print(f"tables of a report of {given.rows} rows: {report_seconds(jobs):.2f} s")
    made, resampled, worst = category_seconds(given.images, given.size)
    print(f"{given.images} maps of side {given.size}: histograms {made:.2f} s, {RESAMPLES} resamples {resampled:.2f} s")
    print(f"largest difference from the exact metrics in 3 resamples: {worst:.1e}")


if __name__ == "__main__":
    main()

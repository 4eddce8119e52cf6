"""Jobs that differ in the seed only, taken together: one row of the leaderboard, one line of a plot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.names import batch_size_order
from zsad_bench.results.rows import JobInfo
from zsad_bench.results.runs import Job
from zsad_bench.results.varied_keys import short_key, varied_keys, varied_values
from zsad_bench.statistics.bootstrap import BOOTSTRAPPED, Replicates
from zsad_bench.statistics.histograms import PixelSummary
from zsad_bench.statistics.kept import REPLICATES, SUMMARY


@dataclass(frozen=True)
class Series:
    """Jobs of one method, variant, dataset, encoder and batch size with different seeds, ascending by seed.

    Means are over the finished jobs; they are NaN while no job has every category.

    Attributes:
        apart: what tells it from others of the same method and batch size in its section; empty if nothing has to.
    """

    jobs: tuple[Job, ...]
    apart: str = ""

    @property
    def info(self) -> JobInfo:
        """The columns that all jobs share; its seed is the first one's."""
        return self.jobs[0].info

    @property
    def section(self) -> tuple[str, str]:
        """Dataset and protocol: only series of one section are compared, tested and drawn together."""
        return self.info.dataset, self.info.protocol

    @cached_property
    def finished(self) -> tuple[Job, ...]:
        """Jobs with every category."""
        return tuple(job for job in self.jobs if job.complete)

    @property
    def progress(self) -> str:
        """Finished categories of the job that is furthest, such as ``12/15``."""
        best = max(self.jobs, key=lambda job: len(job.results) / max(len(job.info.categories), 1))
        return best.progress

    @property
    def seeds(self) -> str:
        """The seeds behind the means, such as ``0`` or ``0..9``."""
        seeds = [job.info.seed for job in self.finished or self.jobs]
        if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
            return f"{seeds[0]}..{seeds[-1]}"
        return ",".join(map(str, seeds))

    @property
    def name(self) -> str:
        """Method, with its variant where that is not the paper's, and with what tells it from its like."""
        info = self.info
        more = [text for text in ("" if info.variant in ("paper", "official") else info.variant, self.apart) if text]
        return f"{info.method} ({', '.join(more)})" if more else info.method

    @property
    def label(self) -> str:
        """Name and batch size, for figures and sentences."""
        return f"{self.name}, batch {self.info.batch_size}"

    @property
    def batch_order(self) -> float:
        """The batch size as a number, see :func:`~zsad_bench.core.names.batch_size_order`."""
        return batch_size_order(self.info.batch_size)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of the jobs."""
        return self.info.categories

    def value(self, category: str, metric: str) -> float:
        """A metric of a category, mean over the seeds that have it; NaN if none has."""
        values = [job.results[category].metrics.get(metric, math.nan) for job in self.jobs if category in job.results]
        return math.fsum(values) / len(values) if values else math.nan

    def seed_means(self, metric: str) -> list[float]:
        """Mean over categories for each finished seed."""
        return [
            math.fsum(result.metrics.get(metric, math.nan) for result in job.results.values()) / len(job.results)
            for job in self.finished
        ]

    def mean(self, metric: str) -> float:
        """Mean over categories and finished seeds; NaN without one, or if the metric is undefined in a category."""
        means = self.seed_means(metric)
        return math.fsum(means) / len(means) if means else math.nan

    @cached_property
    def replicates(self) -> NDArray[np.float64] | None:
        """(resamples, metrics) of the mean over categories and seeds; None unless every category has its file."""
        parts = [self.category_replicates(category) for category in self.categories] if self.finished else []
        known = [part for part in parts if part is not None]
        return np.mean(known, axis=0) if known and len(known) == len(parts) else None

    def category_replicates(self, category: str) -> NDArray[np.float64] | None:
        """(resamples, metrics) of one category, mean over finished seeds, which see the same resamples."""
        loaded = [replicates_of(job, category) for job in self.finished or self.jobs if category in job.results]
        known = [part for part in loaded if part is not None]
        if not known or len(known) < len(loaded) or len({part.images for part in known}) > 1:
            return None
        return known[0].values if len(known) == 1 else np.mean([part.values for part in known], axis=0)

    @cached_property
    def images_hashes(self) -> tuple[str, ...]:
        """Which images each category was evaluated on; empty where that was not recorded."""
        return tuple(self._images_hash(category) for category in self.categories)

    def _images_hash(self, category: str) -> str:
        for job in self.finished or self.jobs:
            if category in job.results and (found := replicates_of(job, category)) is not None:
                return found.images
        return ""

    @property
    def n_images(self) -> int:
        """Images of the finished categories of one job."""
        return max(sum(result.n_images for result in job.results.values()) for job in self.jobs)

    @property
    def n_units(self) -> int:
        """Objects and single images of the finished categories of one job: what is resampled."""
        return max(sum(result.n_units for result in job.results.values()) for job in self.jobs)


def replicates_of(job: Job, category: str) -> Replicates | None:
    """Metrics of the resamples of a finished category; None if the run kept none of what its metrics are over."""
    if job.results[category].lacks_groups:
        return None
    return Replicates.from_arrays(job.arrays(category, REPLICATES))


def summary_of(job: Job, category: str) -> PixelSummary | None:
    """Pixel histograms of a finished category; None if the run did not keep them."""
    return PixelSummary.from_arrays(job.arrays(category, SUMMARY))


def group_series(jobs: Sequence[Job]) -> list[Series]:
    """Jobs by series, each ordered by seed."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        info = job.info
        key = (info.method, info.variant, info.dataset, info.protocol, str(info.batch_size))
        groups.setdefault((*key, info.series or info.config_hash), []).append(job)
    return _told_apart([Series(tuple(sorted(group, key=lambda job: job.info.seed))) for group in groups.values()])


def _told_apart(series: Sequence[Series]) -> list[Series]:
    """Series named so that no two of a section are called the same: by encoder, and by what else they differ in."""
    named = []
    encoders: dict[tuple[str, str], set[str]] = {}
    for entry in series:
        encoders.setdefault(entry.section, set()).add(_encoder(entry.info))
    varied = varied_keys([entry.info for entry in series])
    for entry in series:
        several = len(encoders[entry.section]) > 1
        values = varied_values(entry.info, varied)
        differing = [f"{short_key(key)}={value}" for key, value in values.items() if value]
        # A modified variant names its own keys already.
        own = [text for text in differing if text not in entry.info.variant]
        named.append(replace(entry, apart=", ".join([*([_encoder(entry.info)] if several else []), *own])))
    count = Counter((entry.section, entry.label) for entry in named)
    for index, entry in enumerate(named):
        if count[entry.section, entry.label] > 1:
            config = f"config {entry.info.config_hash[:6]}"
            named[index] = replace(entry, apart=f"{entry.apart}, {config}" if entry.apart else config)
    return named


def _encoder(info: JobInfo) -> str:
    return " ".join(filter(None, (info.encoder, info.pretrained, str(info.image_size), info.precision)))


def sections(series: Sequence[Series]) -> dict[tuple[str, str], list[Series]]:
    """Series by dataset and protocol, ordered by both."""
    found: dict[tuple[str, str], list[Series]] = {}
    for entry in series:
        found.setdefault(entry.section, []).append(entry)
    return dict(sorted(found.items()))


def section_title(dataset: str, protocol: str) -> str:
    """What headings call a section: the dataset, with any protocol but the standard one."""
    return dataset if protocol == "standard" else f"{dataset} [{protocol}]"


def row_labels(entry: Series) -> dict[str, object]:
    """The columns that say which series a row of a table is about."""
    info = entry.info
    return {
        "dataset": info.dataset,
        "protocol": info.protocol,
        "encoder": info.encoder,
        "method": entry.name,
        "setting": info.setting,
        "batch_size": info.batch_size,
    }


def largest_batches(series: Sequence[Series]) -> list[Series]:
    """Each method (variant, encoder) at its largest batch size only: one entry a method, for comparing methods."""
    chosen: dict[tuple[object, ...], Series] = {}
    for entry in sorted(series, key=lambda entry: entry.batch_order):
        info = entry.info
        encoder = info.encoder, info.pretrained, info.image_size, info.precision
        chosen[info.method, info.variant, info.dataset, info.protocol, *encoder] = entry
    return list(chosen.values())


def column(metric: str) -> int | None:
    """Column of a metric among the replicates, None if it has none."""
    return BOOTSTRAPPED.index(metric) if metric in BOOTSTRAPPED else None

"""The sections of a report: one per dataset and protocol, since rows of different protocols are never put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from zsad_bench.core.names import safe_name
from zsad_bench.leaderboard.comparisons import not_compared
from zsad_bench.leaderboard.series import Series, section_title, sections


@dataclass(frozen=True)
class Section:
    """Series of one dataset and protocol.

    Attributes:
        title: in headings: the dataset, with any protocol but the standard one.
        name: in file names; no two sections of a report share it.
    """

    title: str
    name: str
    series: tuple[Series, ...]

    @property
    def started(self) -> list[Series]:
        """Series with any finished category."""
        return [entry for entry in self.series if any(job.results for job in entry.jobs)]

    @property
    def has_objects(self) -> bool:
        """Whether photos form objects in any finished category."""
        return any(
            result.n_units < result.n_images
            for entry in self.series
            for job in entry.jobs
            for result in job.results.values()
        )

    @property
    def units(self) -> str:
        """What image metrics and intervals are over, in the plural."""
        return "objects" if self.has_objects else "images"

    @property
    def of_objects(self) -> str:
        """A sentence to add where image means object, with a space before it; else empty."""
        return " Photos of one object count once, with their largest score." if self.has_objects else ""

    def mixed_units(self, series: Sequence[Series]) -> str:
        """A sentence on series that do not share their images, with a space before it; else empty."""
        found = not_compared(series)
        return f" {found}" if found else ""


def report_sections(series: Sequence[Series]) -> list[Section]:
    """Sections ordered by dataset and protocol."""
    found = sections(series)
    titles = [section_title(*key) for key in found]
    return [Section(title, safe_name(title), tuple(part)) for title, part in zip(titles, found.values(), strict=True)]


def coverage(series: Sequence[Series]) -> pd.DataFrame:
    """Finished categories per method and (section, batch size); a cell that nobody started is ``missing``."""
    rows = {
        (entry.name, entry.info.encoder, f"{section_title(*entry.section)}, batch {entry.info.batch_size}"): entry
        for entry in sorted(series, key=lambda entry: (entry.section, entry.batch_order))
    }
    heads = list(dict.fromkeys(head for _, _, head in rows))
    cells = []
    for name, encoder in sorted({(name, encoder) for name, encoder, _ in rows}):
        found = {head: rows.get((name, encoder, head)) for head in heads}
        progress = {head: "missing" if entry is None else entry.progress for head, entry in found.items()}
        cells.append({"method": name, "encoder": encoder, **progress})
    return pd.DataFrame(cells)

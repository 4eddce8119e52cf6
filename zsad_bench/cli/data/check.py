"""``zsad-bench data check``: read every file of a dataset, count, and report what is wrong before a run does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from zsad_bench.contract import SPLITS, Dataset, Problem, Sample, Split
from zsad_bench.core.errors import UserError
from zsad_bench.data.images import UnreadableImage, has_image_extension, palette_background


@dataclass
class CategoryCounts:
    """What was found in one category. Sizes are (width, height) in pixels."""

    train_normal: int = 0
    train_anomalous: int = 0
    test_normal: int = 0
    test_anomalous: int = 0
    unlabelled: int = 0
    masks: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def add(self, sample: Sample, split: Split) -> None:
        """Count one sample."""
        if sample.label is None:
            self.unlabelled += 1
        else:
            name = f"{split}_{'anomalous' if sample.label else 'normal'}"
            setattr(self, name, getattr(self, name) + 1)
        self.masks += sample.mask_path is not None

    def as_dict(self) -> dict[str, int]:
        """Count name -> number, the names that ``expected`` uses."""
        return {
            "train_normal": self.train_normal,
            "train_anomalous": self.train_anomalous,
            "test_normal": self.test_normal,
            "test_anomalous": self.test_anomalous,
            "unlabelled": self.unlabelled,
        }


def check(dataset: Dataset, console: Console) -> int:
    """Print counts per category and every problem of the selected categories.

    Returns the exit code: 1 when there is a problem of severity "error", else 0. UserError when the root is missing or
    of another layout.
    """
    counts, problems = inspect(dataset, console)
    console.print(_counts_table(dataset, counts))
    errors = [problem for problem in problems if problem.severity == "error"]
    for problem in [*errors, *(problem for problem in problems if problem.severity == "warning")]:
        console.print(_problem_line(problem), soft_wrap=True)
    summary = f"{len(errors)} errors, {len(problems) - len(errors)} warnings in {dataset.root}"
    console.print(escape(summary), soft_wrap=True)
    return 1 if errors else 0


@dataclass(frozen=True)
class _Reading:
    """What reading one sample gave: (width, height) and the hash of its content, None where it could not be read."""

    size: tuple[int, int] | None
    content: str | None
    problems: tuple[Problem, ...] = ()


def inspect(dataset: Dataset, console: Console) -> tuple[dict[str, CategoryCounts], list[Problem]]:
    """Counts per selected category and all problems, from reading every image and mask in threads."""
    counts = {category: CategoryCounts() for category in dataset.categories}
    problems = list(dataset.problems())
    work = [(sample, split) for c in dataset.categories for split in SPLITS for sample in dataset.listed(c, split)]
    contents: dict[str, list[tuple[Sample, Split]]] = {}
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        readings = pool.map(lambda item: _read(dataset, item[0]), work)
        for (sample, split), reading in zip(work, progress.track(readings, total=len(work)), strict=True):
            counts[sample.category].add(sample, split)
            problems.extend(reading.problems)
            if reading.size is not None:
                counts[sample.category].sizes.add(reading.size)
            if reading.content is not None:
                contents.setdefault(reading.content, []).append((sample, split))
    problems.extend(_duplicates(contents))
    problems.extend(_unexpected(dataset, counts))
    return counts, problems


def _read(dataset: Dataset, sample: Sample) -> _Reading:
    """Read one image and its mask."""

    def problem(path: Path, message: str, severity: Literal["error", "warning"] = "error") -> Problem:
        where = path.relative_to(dataset.root) if path.is_relative_to(dataset.root) else path
        return Problem(where.as_posix(), message.removeprefix(f"{path}: "), severity, sample.category)

    try:
        size = dataset.read_image(sample).size
        content = dataset.content_key(sample)
    except UnreadableImage as error:
        return _Reading(None, None, (problem(sample.path, str(error)),))
    if sample.mask_path is None:
        return _Reading(size, content)
    try:
        mask = dataset.read_mask(sample)
        backgrounds = {palette_background(path) for path in dataset.mask_files(sample) if has_image_extension(path)}
    except UserError as error:
        return _Reading(size, content, (problem(sample.mask_path, str(error)),))
    found = []
    if mask is not None and not mask.any():
        found.append(
            problem(sample.mask_path, "marks no pixel although the image counts as anomalous", severity="warning")
        )
    elif backgrounds - {None, (0, 0, 0)}:
        message = "index 0 of this palette mask is not black; indices count, not colours, so check it"
        found.append(problem(sample.mask_path, message, "warning"))
    return _Reading(size, content, tuple(found))


def _duplicates(contents: Mapping[str, Sequence[tuple[Sample, Split]]]) -> Iterator[Problem]:
    """Images whose files hold the same bytes as an earlier one, under another name."""
    for same in contents.values():
        first, first_split = same[0]
        for sample, split in same[1:]:
            if sample.image_id == first.image_id:
                continue  # one file that is listed twice is reported as that
            if sample.category == first.category and sample.label != first.label:
                message = f"same content as {first.image_id}, which has another label; keep one of them"
                yield Problem(sample.image_id, message, "error", sample.category)
            elif split != first_split:
                message = f"same content as {first.image_id} under {first_split}; test images must not be train images"
                yield Problem(sample.image_id, message, "warning", sample.category)
            else:
                message = f"same content as {first.image_id}; it counts twice, keep one of them"
                yield Problem(sample.image_id, message, "warning", sample.category)


def _unexpected(dataset: Dataset, counts: Mapping[str, CategoryCounts]) -> list[Problem]:
    """Where counts differ from those of the published dataset.

    The totals of a dataset are compared only when at least one of its categories is there and none is deselected: the
    same configuration also serves other datasets of the same layout.
    """
    problems = []
    for category, found in counts.items():
        for name, value in dataset.expected.get(category, {}).items():
            if (actual := found.as_dict()[name]) != value:
                message = f"{name}: {actual} found, {value} in the published dataset; unpack it again"
                problems.append(Problem(category, message, "error", category))
    total = dict(dataset.expected.get("total", {}))
    known = any(dataset.has_class_name(category) for category in counts)
    if not total or not known or dataset.categories != dataset.all_categories:
        return problems
    n_categories = total.pop("categories", len(counts))
    if len(counts) != n_categories:
        message = f"{len(counts)} categories found, {n_categories} in the published dataset; a mean over them differs"
        return [*problems, Problem(".", message, "warning")]
    for name, value in total.items():
        if (actual := sum(found.as_dict()[name] for found in counts.values())) != value:
            message = f"{name}: {actual} in all, {value} in the published dataset; unpack it again"
            problems.append(Problem(".", message, "error"))
    return problems


def _counts_table(dataset: Dataset, counts: Mapping[str, CategoryCounts]) -> Table:
    table = Table(title=escape(f"{dataset.title} ({dataset.protocol})"))
    table.add_column("category", overflow="fold")
    table.add_column("in prompts", overflow="fold")
    for name in ("train\nnormal", "test\nnormal", "test\nanomalous", "un-\nlabelled", "masks"):
        table.add_column(name, justify="right")
    table.add_column("width x height")
    for category, found in counts.items():
        numbers = (found.train_normal, found.test_normal, found.test_anomalous, found.unlabelled, found.masks)
        name = escape(dataset.class_name(category))
        table.add_row(escape(category), name, *(str(number) for number in numbers), _size_range(found.sizes))
    return table


def _size_range(sizes: set[tuple[int, int]]) -> str:
    if not sizes:
        return "-"
    widths, heights = ({size[axis] for size in sizes} for axis in (0, 1))
    return " x ".join(f"{min(v)}" if min(v) == max(v) else f"{min(v)}-{max(v)}" for v in (widths, heights))


def _problem_line(problem: Problem) -> Text:
    """One line a problem, never folded, so that it can be searched and cut out."""
    style = "red" if problem.severity == "error" else "yellow"
    return Text.assemble((f"{problem.severity:<8}", style), f"{problem.path}: {problem.message}")

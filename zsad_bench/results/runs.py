"""Reading results folders: jobs with their finished categories, also of several runs together, and what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zsad_bench.core.errors import UserError
from zsad_bench.results.commands import failure_files, job_key
from zsad_bench.results.files import Arrays, JobFolder, read_job_info
from zsad_bench.results.rows import RESULT_FORMAT, CategoryResult, JobInfo

_LACKING = "its metrics count, its intervals and image tables are left out; run it again"


@dataclass(frozen=True)
class Job:
    """A job and its finished categories, which may come from several results folders.

    Attributes:
        results: by category, in the job's order of categories.
        sources: the folder that each result came from.
    """

    info: JobInfo
    results: dict[str, CategoryResult]
    sources: dict[str, JobFolder]

    @property
    def complete(self) -> bool:
        """Whether every category is finished."""
        return len(self.results) == len(self.info.categories)

    @property
    def progress(self) -> str:
        """Finished categories, such as ``12/15``."""
        return f"{len(self.results)}/{len(self.info.categories)}"

    def arrays(self, category: str, kind: str) -> Arrays:
        """Arrays of one kind that were kept with a finished category; none if the run did not keep them."""
        return self.sources[category].arrays(category, kind)


@dataclass(frozen=True)
class Failure:
    """A job that stopped with an error, as its results folder tells it."""

    folder: str
    overrides: tuple[str, ...]
    error: str


@dataclass
class Runs:
    """Everything in one or several results folders.

    Attributes:
        jobs: each job once; the first folder that has a category of it counts.
        failures: jobs that ended with an error.
        problems: files that could not be read, one line each.
    """

    folders: list[Path]
    jobs: list[Job] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_runs(folders: Sequence[Path]) -> Runs:
    """Read results folders; a damaged file is named in ``problems`` and otherwise left out.

    Raises:
        UserError: a folder does not exist.
    """
    runs = Runs(list(folders))
    jobs: dict[str, Job] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such results folder; name folders below results_dir")
        for path in sorted(folder.glob("jobs/*/job.json")):
            info = read_job_info(path)
            if info is None:
                runs.problems.append(f"{path}: damaged; its job is left out, run it again")
                continue
            if info.superseded:
                continue
            _add(jobs, info, JobFolder(folder, info, path.parent), runs.problems)
    mended = _Mended(jobs.values())
    for folder in folders:
        for path in failure_files(folder):
            failure = _read_failure(folder, path, mended, runs.problems)
            if failure is not None:
                runs.failures.append(failure)
    runs.jobs = _roots_apart(_current([_in_order(job) for job in jobs.values()]))
    return runs


def _current(jobs: Sequence[Job]) -> list[Job]:
    """Jobs without those of an older format that were run again; the others of an older format are a protocol apart.

    Older versions composed the last batch of a category and said what they measured in other ways.
    """

    def subject(job: Job) -> tuple[object, ...]:
        info = job.info
        encoder = info.encoder.removesuffix(" (teaching)")
        return info.method, info.preset or info.variant, info.dataset, encoder, str(info.batch_size), info.seed

    newest = max((job.info.format for job in jobs), default=0)
    again = {subject(job) for job in jobs if job.info.format == newest}
    kept = [job for job in jobs if job.info.format == newest or subject(job) not in again]
    return [
        job
        if job.info.format == RESULT_FORMAT
        else replace(job, info=replace(job.info, protocol=f"{job.info.protocol}, result format {job.info.format}"))
        for job in kept
    ]


def _roots_apart(jobs: Sequence[Job]) -> list[Job]:
    """Jobs with other names for datasets that lie in different folders, where the folders are called alike."""
    roots: dict[str, set[str]] = {}
    for job in jobs:
        roots.setdefault(job.info.dataset, set()).add(job.info.root)
    return [
        replace(job, info=replace(job.info, dataset=f"{job.info.dataset} {job.info.root}".strip()))
        if len(roots[job.info.dataset]) > 1
        else job
        for job in jobs
    ]


def _add(jobs: dict[str, Job], info: JobInfo, folder: JobFolder, problems: list[str]) -> None:
    job = jobs.setdefault(info.folder, Job(info, {}, {}))
    for category in info.categories:
        if category in job.results:
            continue
        if (result := folder.load(category)) is not None:
            job.results[category] = result
            job.sources[category] = folder
            if result.lacks_groups:
                path = folder.category_file(category)
                problems.append(f"{path}: an older version did not keep which photos show one object; {_LACKING}")
        elif (path := folder.category_file(category)).exists():
            problems.append(f"{path}: damaged; counted as missing, run it again")


def _in_order(job: Job) -> Job:
    """The job with its results in the order of its categories, whichever folders they came from."""
    found = {category: job.results[category] for category in job.info.categories if category in job.results}
    return Job(job.info, found, job.sources)


class _Mended:
    """Jobs that are complete by now, whichever command finished them, by what tells them apart."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._places = {source.path for job in jobs if job.complete for source in job.sources.values()}

    @cached_property
    def _keys(self) -> set[str]:
        return {key for place in self._places if (key := _key_of(place / "config.yaml"))}

    def __contains__(self, key: object) -> bool:
        return key in self._keys


def _key_of(path: Path) -> str:
    """What tells the job of a config file from others; empty if the file cannot be read."""
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return ""
    return job_key(config) if isinstance(config, DictConfig) else ""


def _read_failure(folder: Path, path: Path, mended: _Mended, problems: list[str]) -> Failure | None:
    """A failure; None if its job is complete by now (version 0.1 did not say which it was), or its file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("job") and content["job"] in mended:
            return None
        return Failure(str(folder), tuple(map(str, content["overrides"])), str(content["error"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        problems.append(f"{path}: damaged failure record")
        return None

"""Result files: one JSON per finished category, written atomically, with its histograms and replicates beside it.

``<results_dir>/<name>/jobs/<job>/categories/<category>.json`` is the unit of work that is kept or done again. The
tables in the folder are rebuilt from these files (:mod:`zsad_bench.leaderboard.tables`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.errors import UserError
from zsad_bench.core.files import atomic_path, write_atomic
from zsad_bench.core.names import near_misses, safe_name
from zsad_bench.results.rows import CategoryResult, ImageResult, JobInfo

Arrays = Mapping[str, NDArray[Any]]


def _finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else float(value) for key, value in values.items()}


class JobFolder:
    """Files of one job."""

    def __init__(self, run_folder: Path, info: JobInfo, path: Path | None = None) -> None:
        self.info = info
        self.path = path or run_folder / "jobs" / info.folder

    def start(self, config_yaml: str) -> None:
        """Write what the job is, before anything is computed.

        A job of the same command with another identity is superseded: it was made with other code of a method, or with
        other contents of files of the same names. Its files stay, and tables leave it out.
        """
        write_atomic(self.path / "config.yaml", config_yaml)
        self._write_info(self.info)
        if not self.info.keys:
            return
        for place, other in self._like_it():
            if other.config_hash != self.info.config_hash and other.command == self.info.command:
                JobFolder(Path(), other, place)._write_info(replace(other, superseded=True))

    def require_started(self) -> None:
        """Raise UserError, naming what there is, unless the job or one that it stands for has begun before.

        It stands for jobs of the same command with another identity, and for those of version 0.1.
        """
        if (self.path / "job.json").exists():
            return
        if any(other.command == self.info.command or other.format < self.info.format for _, other in self._like_it()):
            return
        jobs = self.path.parent
        there = sorted(path.parent.name for path in jobs.glob("*/job.json"))
        near = near_misses(self.path.name, there, count=3, cutoff=0)
        listed = f"; it has {', '.join(near)}{' and others' if len(there) > len(near) else ''}" if near else ""
        raise UserError(
            f"{jobs.parent}: has no job {self.path.name}, and overwrite=never computes nothing{listed}; correct the "
            "choices, or leave overwrite=never out"
        )

    def _like_it(self) -> Iterator[tuple[Path, JobInfo]]:
        """Folders and columns of jobs whose folders have the same name up to the identity."""
        start = self.info.folder.removesuffix(self.info.config_hash)
        for path in self.path.parent.glob(f"{start}*/job.json"):
            if (other := read_job_info(path)) is not None:
                yield path.parent, other

    def _write_info(self, info: JobInfo) -> None:
        write_atomic(self.path / "job.json", json.dumps(asdict(info), indent=1) + "\n")

    def category_file(self, category: str) -> Path:
        """Where a finished category lies: where version 0.1 put it, if that file is there and is of this category."""
        return self._file(self._stem(category), ".json")

    def save(self, result: CategoryResult, arrays: Mapping[str, Arrays] | None = None) -> None:
        """Keep a finished category. Its arrays come first: the JSON file says that it is finished.

        Args:
            result: of the category.
            arrays: what is kept beside it, by kind: ``<category>.<kind>.npz`` each.
        """
        stem = safe_name(result.category)
        for kind, kept in (arrays or {}).items():
            with atomic_path(self._file(stem, f".{kind}.npz")) as path, path.open("wb") as file:
                np.savez_compressed(file, **kept)  # type: ignore[arg-type]  # no array is called allow_pickle
        content = {"format": self.info.format, **asdict(result), "metrics": _finite_or_none(result.metrics)}
        write_atomic(self._file(stem, ".json"), json.dumps(content, indent=1) + "\n")

    def worst_picture(self, category: str) -> Path:
        """The sheet of a category's worst images."""
        return self.path / "maps" / f"{self._stem(category)}.worst.png"

    def _file(self, stem: str, ending: str) -> Path:
        return self.path / "categories" / f"{stem}{ending}"

    def _stem(self, category: str) -> str:
        """File name of a category without its ending."""
        stem, earlier = safe_name(category), category.replace("/", "_")
        if stem == earlier or self._file(stem, ".json").exists():
            return stem
        found = _read_category(self._file(earlier, ".json"))
        return earlier if found is not None and found.category == category else stem

    def load(self, category: str) -> CategoryResult | None:
        """A finished category, or None if there is none or its file is damaged."""
        found = _read_category(self.category_file(category))
        # Version 0.1 wrote categories such as a/b and a_b into one file: it holds the one that was finished last.
        return found if found is not None and found.category == category else None

    def arrays(self, category: str, kind: str) -> Arrays:
        """Arrays of one kind that were kept with a finished category; none if there are none or they are damaged."""
        try:
            with np.load(self._file(self._stem(category), f".{kind}.npz"), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return {}


def _read_category(path: Path) -> CategoryResult | None:
    try:
        content = _known(CategoryResult, json.loads(path.read_text(encoding="utf-8")))
        content["metrics"] = {key: math.nan if value is None else value for key, value in content["metrics"].items()}
        content["images"] = tuple(ImageResult(**_known(ImageResult, image)) for image in content["images"])
        content["filled_with"] = tuple(content.get("filled_with", ()))
        return CategoryResult(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a file that a dataclass has; files of later versions may hold more."""
    return {key.name: content[key.name] for key in fields(kind) if key.name in content}


def find_job(run_folder: Path, config_hash: str) -> JobInfo | None:
    """What the job of an identity is, if it has begun in a results folder."""
    found = (read_job_info(path) for path in sorted((run_folder / "jobs").glob(f"*_{config_hash}/job.json")))
    return next((info for info in found if info is not None and info.config_hash == config_hash), None)


def read_job_info(path: Path) -> JobInfo | None:
    """What a job is, from its ``job.json``; None if the file is damaged. Keys of other versions are ignored."""
    try:
        content = _known(JobInfo, json.loads(path.read_text(encoding="utf-8")))
        return JobInfo(**{"format": 1, **content, "categories": tuple(content["categories"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None

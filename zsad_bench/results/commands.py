"""What belongs to one command in a results folder that several commands share: its failures, and its sweep's request.

A command is known by a hash of its text. ``failed/<command>/<job>.json`` holds the failures of its jobs and, where a
launcher starts other processes, ``requests/<command>.json`` what its sweep asks of the images. Those processes are told
the hash in the environment variable ``ZSAD_COMMAND``. No command touches files of another one, so sixteen shards may
work in one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.core.files import write_atomic

VARIABLE = "ZSAD_COMMAND"
FAILURES = "failed"
_REQUESTS = "requests"
# Keys that say where and how a job runs and what is done with its results, but not which job it is.
_HOW_IT_RUNS = {
    *("name", "results_dir", "overwrite", "maps", "tracker", "threads", "fail_fast", "shard", "features", "board"),
}
_HOW_IT_ENCODES = ("device", "chunk_size")


def text_hash(lines: Iterable[str]) -> str:
    """12 hex digits that stand for some lines of text."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def job_key(config: DictConfig) -> str:
    """What tells a job from others, whichever command runs it: 12 hex digits; empty if the config is not complete."""
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        return ""
    assert isinstance(content, dict)
    kept: dict[object, object] = {key: value for key, value in content.items() if key not in _HOW_IT_RUNS}
    if isinstance(encoder := kept.get("encoder"), dict):
        kept["encoder"] = {key: value for key, value in encoder.items() if key not in _HOW_IT_ENCODES}
    return text_hash([json.dumps(kept, sort_keys=True, default=str)])


@dataclass(frozen=True)
class Command:
    """A command and the results folder that it writes into.

    Attributes:
        folder: ``<results_dir>/<name>``.
        key: hash of the command's text.
    """

    folder: Path
    key: str

    @property
    def request_file(self) -> Path:
        """What the jobs of its sweep ask of the images together, told to other processes; else there is none."""
        return self.folder / _REQUESTS / f"{self.key}.json"

    def failures(self) -> list[Path]:
        """Files that its failed jobs left behind."""
        return sorted((self.folder / FAILURES / self.key).glob("*.json"))

    def keep_failure(self, overrides: Sequence[str], config: DictConfig, error: str, exit_code: int) -> Path:
        """Write down why a job failed; returns the file. Raises UserError if the folder cannot be written."""
        path = self.folder / FAILURES / self.key / f"{text_hash(overrides)}.json"
        content = {"overrides": list(overrides), "exit_code": exit_code, "error": error, "job": job_key(config)}
        write_atomic(path, json.dumps(content, indent=1) + "\n")
        return path

    def forget_failures(self) -> None:
        """Delete the failures that an earlier run of the same command left behind."""
        for path in self.failures():
            path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not there, or a job of the same command has failed just now
            (self.folder / FAILURES / self.key).rmdir()

    def forget_old_failure(self, overrides: Sequence[str]) -> None:
        """Delete what version 0.1 kept of a failure of the same job of the same command."""
        (self.folder / FAILURES / f"{text_hash(overrides)}.json").unlink(missing_ok=True)

    def exit_code(self) -> int:
        """1 if one of its jobs failed by a bug, 2 if one failed by a user's mistake, else 0."""
        codes = {json.loads(path.read_text(encoding="utf-8"))["exit_code"] for path in self.failures()}
        return min(codes, default=0)


def failure_files(folder: Path) -> list[Path]:
    """Failures of all commands in a results folder; version 0.1 did not part them by command."""
    return sorted([*folder.glob(f"{FAILURES}/*.json"), *folder.glob(f"{FAILURES}/*/*.json")])

"""Sweeps in several processes or on several machines: which launcher, and what it has to be told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra

from zsad_bench.cli import hydra_job
from zsad_bench.config.schema import CONFIG_MODULE
from zsad_bench.core.errors import UserError
from zsad_bench.results.commands import VARIABLE, Command

# Variables that say where data, weights and features are. A worker may be started by a daemon with another environment.
_ENVIRONMENT = ("ZSAD_DATA", "ZSAD_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TORCH_HOME")


def start_hydra(arguments: list[str]) -> None:
    """Hand over to Hydra, which reads ``sys.argv``."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")(hydra_job.run)()
    finally:
        sys.argv = before


def told(command: Command) -> str:
    """The override by which Hydra tells every job which command it belongs to."""
    return f"+hydra.job.env_set.{VARIABLE}='{command.key}'"


def launch(launcher: str, overrides: Sequence[str], n_jobs: int, command: Command) -> None:
    """Run a sweep in other processes and wait for its end.

    Args:
        launcher: its name, for messages.
        overrides: the sweep.
        n_jobs: how many jobs it has.
        command: it, with its results folder.

    Raises:
        UserError: the launcher could not start, or a worker was lost, for instance for want of memory.
    """
    from zsad_bench.core import console

    line = f"{launcher}: {n_jobs} jobs, results in {command.folder}"
    console.err.print(line, style="dim", soft_wrap=True)
    try:
        with _whole_errors():
            start_hydra(["-m", *overrides, told(command), *_launch_overrides(command.folder)])
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"launcher {launcher}: {type(error).__name__}: {reason[0]} (finished categories are kept, and the same "
            "command computes the rest)"
        ) from error


@contextmanager
def _whole_errors() -> Iterator[None]:
    """Hydra raises errors instead of printing them and leaving."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _launch_overrides(folder: Path) -> list[str]:
    """Besides the choices of the user: workers write into the same folder and read the same data."""
    variables = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    variables[hydra_job.WORKING_FOLDER] = str(Path.cwd())
    settings = {f"+hydra.job.env_set.{name}": value for name, value in variables.items()}
    settings["hydra.sweep.dir"] = str(folder.absolute())
    return [f"{key}={_quoted(value)}" for key, value in settings.items()]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

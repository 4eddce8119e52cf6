"""One job under Hydra, in this process or in one that a launcher started, perhaps on another machine.

The function lives in a module of its own, so that workers import it by name instead of receiving a copy of it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zsad_bench.config.compose import BASIC
from zsad_bench.core.errors import UserError
from zsad_bench.results.commands import VARIABLE, Command, text_hash

if TYPE_CHECKING:
    from zsad_bench.contract import FeatureRequest

# The folder of the command, told to workers: one that already worked for another command stands elsewhere.
WORKING_FOLDER = "ZSAD_WORKING_FOLDER"
_WATCH_SECONDS = 0.5


def run(config: DictConfig) -> None:
    """Run one job. A failure is written into the results folder, and a sweep goes on with the next job.

    Raises:
        UserError: this machine does not see the results folder of the launching one; nothing can be written there.
    """
    launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
    launched = launcher != BASIC
    overrides = list(HydraConfig.get().overrides.task)
    folder = Path(config.results_dir) / config.name
    command = Command(folder, os.environ.get(VARIABLE) or text_hash(overrides))
    if launched:
        _enter(Path(os.environ.get(WORKING_FOLDER, HydraConfig.get().runtime.cwd)), command)
    if launcher == "joblib" and multiprocessing.current_process().name != "MainProcess":
        _end_with_parent()
    from zsad_bench.cli.jobs import run_one

    def wanted(config: DictConfig) -> FeatureRequest | None:
        from zsad_bench.feature_store.sweep_request import read_union

        return read_union(command.request_file, config)

    run_one(config, overrides, command, wanted, launched=launched)


def _enter(working_folder: Path, command: Command) -> None:
    """Relative paths mean the same in every process; they start at the folder of the command."""
    if not (working_folder / command.request_file).exists():
        raise UserError(
            f"{working_folder / command.folder}: not seen by {socket.gethostname()}; jobs on other machines need the "
            "working folder, the data and the results on a file system that all of them share under the same path"
        )
    os.chdir(working_folder)


@cache
def _end_with_parent() -> None:
    """End this process soon after the one that started it, which may be killed without a chance to tell its workers."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""One job under Hydra, in this process or in one that a launcher started, perhaps on another machine.

The function lives in a module of its own, so that workers import it by name instead of receiving a copy of it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import threading
import time
import traceback
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zsad_bench.config import UNION_FILE
from zsad_bench.errors import UserError

FAILURES = "failed"
BASIC_LAUNCHER = "basic"
# The folder of the command, told to workers: one that already worked for another command stands elsewhere.
WORKING_FOLDER = "ZSAD_WORKING_FOLDER"
_WATCH_SECONDS = 0.5


def run(config: DictConfig) -> None:
    """Run one job. A failure is written into the results folder, and a sweep goes on with the next job.

    Raises:
        UserError: this machine does not see the results folder of the launching one; nothing can be written there.
    """
    launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
    launched = launcher != BASIC_LAUNCHER
    folder = Path(config.results_dir) / config.name
    if launched:
        _enter(Path(os.environ.get(WORKING_FOLDER, HydraConfig.get().runtime.cwd)), folder)
    if launcher == "joblib" and multiprocessing.current_process().name != "MainProcess":
        _end_with_parent()
    if config.fail_fast and failures(folder):
        return
    from zsad_bench import console

    start = time.perf_counter()
    try:
        from zsad_bench.plugins import build
        from zsad_bench.runner import run_job
        from zsad_bench.threads import limit_threads
        from zsad_bench.trackers import Tracker

        limit_threads(config.threads)
        tracker = build(config.tracker, Tracker, "tracker")  # type: ignore[type-abstract]
        done = run_job(config, folder, show_progress=not launched)
        tracker.log(done)
        if launched:
            seconds = time.perf_counter() - start
            console.err.print(f"{done.path.name}: done in {seconds:.1f} s", style="dim", soft_wrap=True)
    except UserError as error:
        _keep_failure(folder, str(error), exit_code=2)
        console.fail(str(error))
    except Exception as error:
        path = _keep_failure(folder, traceback.format_exc(), exit_code=1)
        console.fail(f"{type(error).__name__}: {error} (a bug; traceback in {path})")


def _enter(working_folder: Path, folder: Path) -> None:
    """Relative paths mean the same in every process; they start at the folder of the command."""
    if not (working_folder / folder / UNION_FILE).exists():
        raise UserError(
            f"{working_folder / folder}: not seen by {socket.gethostname()}; jobs on other machines need the working "
            "folder, the data and the results on a file system that all of them share under the same path"
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


def failures(folder: Path) -> list[Path]:
    """Files that failed jobs left behind."""
    return sorted(folder.glob(f"{FAILURES}/*.json"))


def _keep_failure(folder: Path, text: str, exit_code: int) -> Path:
    from zsad_bench.files import write_atomic

    overrides = list(HydraConfig.get().overrides.task)
    name = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:12]
    path = folder / FAILURES / f"{name}.json"
    write_atomic(path, json.dumps({"overrides": overrides, "exit_code": exit_code, "error": text}, indent=1) + "\n")
    return path


def exit_code(folder: Path) -> int:
    """1 if a job failed by a bug, 2 if one failed by a user's mistake, else 0."""
    codes = {json.loads(path.read_text(encoding="utf-8"))["exit_code"] for path in failures(folder)}
    return min(codes, default=0)

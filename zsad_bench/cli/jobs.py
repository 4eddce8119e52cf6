"""The jobs of a command: one after another in this process, each failure kept and the next one begun."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from zsad_bench.config.compose import Composed
from zsad_bench.config.plugins import build
from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.engine.job import run_job
from zsad_bench.results.commands import Command
from zsad_bench.trackers import Tracker

if TYPE_CHECKING:
    from zsad_bench.contract import FeatureRequest


def run_here(jobs: Sequence[Composed], command: Command) -> None:
    """Run all jobs of a command in this process."""

    @cache
    def union() -> dict[str, FeatureRequest]:
        from zsad_bench.feature_store.sweep_request import union_of

        return union_of(job.config for job in jobs)

    def wanted(config: DictConfig) -> FeatureRequest | None:
        from zsad_bench.feature_store.sweep_request import target

        return union().get(target(config)) if len(jobs) > 1 else None

    for job in jobs:
        run_one(job.config, job.overrides, command, wanted)


def run_one(
    config: DictConfig,
    overrides: Sequence[str],
    command: Command,
    wanted: Callable[[DictConfig], FeatureRequest | None],
    *,
    launched: bool = False,
) -> None:
    """Run one job. A failure is written into the results folder.

    Args:
        config: of the job.
        overrides: what it was composed from; they name its failure.
        command: that it belongs to.
        wanted: what the jobs of its sweep ask of the images together; asked only if something must be computed.
        launched: whether it runs in a process of its own, which shares the terminal with others.
    """
    if config.fail_fast and command.failures():
        return
    start = time.perf_counter()
    try:
        tracker = build(config.tracker, Tracker, "tracker")
        done = run_job(config, command.folder, show_progress=not launched, wanted=wanted)
        command.forget_old_failure(overrides)
        tracker.log(done)
        if launched:
            seconds = time.perf_counter() - start
            console.err.print(f"{done.path.name}: done in {seconds:.1f} s", style="dim", soft_wrap=True)
    except UserError as error:
        command.keep_failure(overrides, config, str(error), exit_code=2)
        console.fail(str(error))
    except Exception as error:
        path = command.keep_failure(overrides, config, traceback.format_exc(), exit_code=1)
        console.fail(f"{type(error).__name__}: {error} (a bug; traceback in {path})")

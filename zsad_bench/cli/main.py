"""The command line: ``python -m zsad_bench key=value ...`` or ``zsad-bench``.

``-m`` sweeps, ``data`` looks at datasets.

Exit codes: 0 done; 1 a bug, or problems found by ``data check``; 2 a mistake of the user; 130 interrupted.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shlex
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from zsad_bench.cli.interrupt import EXIT_CODE, prompt_interrupts
from zsad_bench.cli.launchers import launch, start_hydra, told
from zsad_bench.config.compose import Composed, compose_jobs, plain
from zsad_bench.config.run_name import with_name
from zsad_bench.config.sweeps import as_sweep, every_job, expand_seeds
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import did_you_mean
from zsad_bench.core.version import package_version
from zsad_bench.results.commands import Command, text_hash


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    again = shlex.join(["python", "-m", "zsad_bench", *given])
    interrupted = f"interrupted; finished categories are kept, and the same command computes the rest: {again}"
    try:
        with prompt_interrupts(interrupted):
            return _data(given[1:]) if given[:1] == ["data"] else _benchmark(given)
    except UserError as error:
        _say_error(str(error))
        return 2
    except KeyboardInterrupt:
        _say_error(interrupted)
        return EXIT_CODE


def command() -> None:
    """Run the command line and leave with its exit code."""
    code = 0

    def leave() -> None:
        if code == EXIT_CODE:  # Python needs seconds to take everything down
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    atexit.register(leave)  # the first to be registered is the last to be called
    code = main()
    sys.exit(code)


def _say_error(message: str) -> None:
    from zsad_bench.core import console

    console.fail(message)


def _benchmark(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="zsad-bench", add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("--version", action="version", version=f"zsad-bench {package_version()}")
    flags, rest = parser.parse_known_args(given)
    if any(text.startswith("-") for text in rest):  # --help, --cfg, --info and whatever else Hydra knows
        start_hydra(given)
        return 0
    if flags.config_dir:
        rest = [f"hydra.searchpath=[file://{Path(flags.config_dir).absolute()}]", *rest]
    flags.multirun |= any(text.startswith("seeds=") for text in rest)
    rest = with_name(expand_seeds(rest))
    jobs = compose_jobs(every_job(rest) if flags.multirun else [rest])
    launcher = jobs[0].launcher
    if launcher and not flags.multirun:
        raise UserError(f"cluster: the launcher {launcher} runs sweeps, also those of a single job; add -m")
    folders = {Path(job.config.results_dir) / job.config.name for job in jobs}
    if len(folders) > 1:
        raise UserError(f"name, results_dir: a sweep has one results folder, not {len(folders)}; give each one value")
    command = Command(folders.pop(), text_hash(given))
    board = plain(jobs[0].config.board)
    if jobs[0].config.overwrite == "never":
        return _only_report(command.folder, jobs, flags.multirun, board)
    _prepare(command)
    _record_command(command.folder, given)
    try:
        if launcher or _is_for_hydra(rest) or (flags.multirun and jobs[0].sweeper):
            _hand_over(jobs, rest, flags.multirun, command)
        else:
            from zsad_bench.cli.jobs import run_here  # not before all mistakes in the configuration are found

            run_here(jobs, command)
    finally:
        _report(command.folder, flags.multirun, board)
    return command.exit_code()


def _is_for_hydra(overrides: Sequence[str]) -> bool:
    """Whether keys of Hydra itself were given, which only Hydra can follow."""
    own = [text for text in overrides if text.lstrip("+~").startswith("hydra.")]
    return any(not text.lstrip("+").startswith("hydra.searchpath=") for text in own)


def _hand_over(jobs: Sequence[Composed], overrides: Sequence[str], sweep: bool, command: Command) -> None:
    """Let Hydra run the jobs, in other processes, with values that its sweeper chooses, or as its own keys say."""
    from zsad_bench.feature_store.sweep_request import union_of, write_union

    write_union(command.request_file, union_of(job.config for job in jobs))
    if launcher := jobs[0].launcher:
        launch(launcher, as_sweep(overrides), len(jobs), command)
    else:
        start_hydra([*(["-m", *as_sweep(overrides)] if sweep else overrides), told(command)])


def _data(given: list[str]) -> int:
    from zsad_bench.cli.data.commands import main as data_main

    return data_main(given)


def _only_report(folder: Path, jobs: Sequence[Composed], sweep: bool, board: Mapping[str, object]) -> int:
    """Make the tables of jobs that have begun, and write nothing else.

    Raises:
        UserError: none of the jobs has begun.
    """
    from zsad_bench.core import console
    from zsad_bench.engine.job import run_job

    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) if folder.parent.is_dir() else []
        hint = did_you_mean(folder.name, there) or "; run the command without overwrite=never first"
        raise UserError(f"{folder}: no such results folder, and overwrite=never computes nothing{hint}")
    absent = []
    for job in jobs:
        try:
            run_job(job.config, folder, show_progress=False)
        except UserError as error:
            absent.append(str(error))
    if len(absent) == len(jobs):
        raise UserError(absent[0])
    if absent:
        console.warn(f"{len(absent)} of {len(jobs)} jobs are not in the tables; the first: {absent[0]}")
    _report(folder, sweep, board)
    return 0


def _prepare(command: Command) -> None:
    """Make the results folder, prove that it can be written, and forget what failed when the command ran before."""
    from zsad_bench.core.files import write_atomic

    command.forget_failures()
    probe = command.folder / f".probe-{uuid.uuid4().hex}"
    write_atomic(probe, "")
    probe.unlink()


def _record_command(folder: Path, given: list[str]) -> None:
    """Add the command to ``commands.txt`` of the results folder, so that reports can say how to reproduce it.

    It is appended, because other commands may do the same at the same time.
    """
    path = folder / "commands.txt"
    line = f"python -m zsad_bench {shlex.join(given)}".strip()
    try:
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if line not in known:
            with path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(f"{line}\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None


def _report(folder: Path, sweep: bool, board: Mapping[str, object]) -> None:
    """Rebuild the tables and show them."""
    from zsad_bench.cli.show import show_leaderboard, show_metrics
    from zsad_bench.leaderboard.board import BoardOptions
    from zsad_bench.leaderboard.tables import write_tables

    tables = write_tables(folder, BoardOptions.from_config(board))
    if sweep:
        show_leaderboard(tables.shown, folder / "leaderboard.csv")
    else:
        show_metrics(tables.metrics, folder / "metrics.csv")

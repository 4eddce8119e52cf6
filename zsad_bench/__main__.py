"""The command line: ``python -m zsad_bench key=value ...`` or ``zsad-bench``.

``-m`` sweeps, ``data`` looks at datasets.

Exit codes: 0 done; 1 a bug, or problems found by ``data check``; 2 a mistake of the user; 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zsad_bench import __version__
from zsad_bench.config import (
    CONFIG_MODULE,
    compose_config,
    expand_seeds,
    expand_sweep,
    feature_jobs,
    plain,
    with_name,
)
from zsad_bench.errors import UserError
from zsad_bench.interrupt import EXIT_CODE, prompt_interrupts

FAILURES = "failed"


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


def _say_error(message: str) -> None:
    from zsad_bench import console

    console.fail(message)


def _benchmark(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="zsad-bench", add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("--version", action="version", version=f"zsad-bench {__version__}")
    flags, rest = parser.parse_known_args(given)
    if any(text.startswith("-") for text in rest):  # --help, --cfg, --info and whatever else Hydra knows
        _start_hydra(given)
        return 0
    if flags.config_dir:
        rest = [f"hydra.searchpath=[file://{Path(flags.config_dir).absolute()}]", *rest]
    flags.multirun |= any(text.startswith("seeds=") for text in rest)
    rest = with_name(expand_seeds(rest))
    configs = [compose_config(job) for job in (expand_sweep(rest) if flags.multirun else [rest])]
    folder = Path(configs[0].results_dir) / configs[0].name
    _prepare(folder)
    _record_command(folder, given)
    if flags.multirun:
        from zsad_bench.union import union_of, write_union

        write_union(folder, union_of(compose_config(job) for job in feature_jobs(rest)))
    try:
        _start_hydra([*(["-m"] if flags.multirun else []), *rest])
    finally:
        _report(folder, flags.multirun, plain(configs[0].board))
    return _exit_code(folder)


def _data(given: list[str]) -> int:
    from zsad_bench.data_commands import main as data_main

    return data_main(given)


def _start_hydra(arguments: list[str]) -> None:
    """Hand over to Hydra, which reads ``sys.argv``."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        job()
    finally:
        sys.argv = before


@hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """One job under Hydra. A failure is written into the results folder, and a sweep goes on with the next job."""
    folder = Path(config.results_dir) / config.name
    if config.fail_fast and any(folder.glob(f"{FAILURES}/*.json")):
        return
    try:
        from zsad_bench.plugins import build
        from zsad_bench.runner import run_job
        from zsad_bench.trackers import Tracker

        tracker = build(config.tracker, Tracker, "tracker")  # type: ignore[type-abstract]
        tracker.log(run_job(config, folder))
    except UserError as error:
        _keep_failure(folder, str(error), exit_code=2)
        _say_error(str(error))
    except Exception as error:
        path = _keep_failure(folder, traceback.format_exc(), exit_code=1)
        _say_error(f"{type(error).__name__}: {error} (a bug; traceback in {path})")


def _prepare(folder: Path) -> None:
    """Make the results folder, prove that it can be written, and forget the failures of an earlier run."""
    from zsad_bench.files import write_atomic

    for old in folder.glob(f"{FAILURES}/*.json"):
        old.unlink()
    probe = folder / FAILURES / "probe.json"
    write_atomic(probe, "{}\n")
    probe.unlink()
    probe.parent.rmdir()


def _record_command(folder: Path, given: list[str]) -> None:
    """Add the command to ``commands.txt`` of the results folder, so that reports can say how to reproduce it."""
    from zsad_bench.files import write_atomic

    path = folder / "commands.txt"
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    line = f"python -m zsad_bench {shlex.join(given)}".strip()
    write_atomic(path, "\n".join([*(other for other in known if other != line), line]) + "\n")


def _keep_failure(folder: Path, text: str, exit_code: int) -> Path:
    from zsad_bench.files import write_atomic

    overrides = list(HydraConfig.get().overrides.task)
    name = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:12]
    path = folder / FAILURES / f"{name}.json"
    write_atomic(path, json.dumps({"overrides": overrides, "exit_code": exit_code, "error": text}, indent=1) + "\n")
    return path


def _exit_code(folder: Path) -> int:
    """1 if a job failed by a bug, 2 if one failed by a user's mistake, else 0."""
    codes = {json.loads(path.read_text(encoding="utf-8"))["exit_code"] for path in folder.glob(f"{FAILURES}/*.json")}
    return min(codes, default=0)


def _report(folder: Path, sweep: bool, board: Mapping[str, object]) -> None:
    """Rebuild the tables and show them."""
    from zsad_bench import console
    from zsad_bench.leaderboard import BoardOptions
    from zsad_bench.tables import write_tables

    tables = write_tables(folder, BoardOptions.from_config(board))
    if sweep:
        console.show_leaderboard(tables.leaderboard, folder / "leaderboard.csv")
    else:
        console.show_metrics(tables.metrics, folder / "metrics.csv")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m zsad_bench.report results/<run> [...]``: plots, tables and one page, from result files alone.

Several results folders are merged. Written into ``<first folder>/report`` (or ``--output``): ``index.html``, one file
that needs no network, ``plots/*.png`` and ``.svg``, ``tables/*.csv``, and the leaderboard as CSV, Markdown and LaTeX.
Keys ``board.*`` choose the metric, the groups and the rows, as on the command line of the benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic
from zsad_bench.leaderboard.board import BoardOptions
from zsad_bench.leaderboard.tables import csv_text, write_leaderboard
from zsad_bench.results.runs import read_runs

if TYPE_CHECKING:
    from zsad_bench.report.content import Content

NEEDS = ("jinja2", "plotly", "itables", "scikit_posthocs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m zsad_bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="results/<run> | board.key=value")
    parser.add_argument("--output", type=Path, help="folder of the report; by default report in the first run's folder")
    given = parser.parse_intermixed_args(arguments)
    folders = [Path(text) for text in given.folders if "=" not in text]
    try:
        path = write_report(folders, board_options([text for text in given.folders if "=" in text]), given.output)
    except UserError as error:
        console.fail(str(error))
        return 2
    console.out.print(f"report: {path}", soft_wrap=True)
    return 0


def board_options(overrides: Sequence[str]) -> BoardOptions:
    """Options from ``board.key=value`` texts.

    Raises:
        UserError: another key, or a value that cannot be read.
    """
    known = ("board.metric", "board.group", "board.filter")
    for text in overrides:
        key = text.split("=", 1)[0]
        if not (key in known or key.startswith("board.filter.")):
            raise UserError(f"{key}: no such key; choose from {', '.join(known)}")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    board = values.get("board", {}) if isinstance(values, dict) else {}
    return BoardOptions.from_config({str(key): value for key, value in board.items()})


def write_report(folders: Sequence[Path], options: BoardOptions | None = None, output: Path | None = None) -> Path:
    """Write a report of results folders and return the path of its page.

    Raises:
        UserError: no folder, a folder without results, or packages of the extra ``report`` are missing.
    """
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f"the report needs {', '.join(missing)}: pip install 'zsad-bench[report]'")
    if not folders:
        raise UserError("give at least one results folder: python -m zsad_bench.report results/<run>")
    runs = read_runs(folders)
    if not runs.jobs:
        raise UserError(f"{folders[0]}: holds no job; run the benchmark first, or name the folder below results_dir")
    from zsad_bench.report.content import build_content
    from zsad_bench.report.page import render

    options = options or BoardOptions()
    content = build_content(runs, options)
    folder = output or folders[0] / "report"
    _write_tables(folder, content)
    page = folder / "index.html"
    write_atomic(page, render(content, _write_plots(folder, content)))
    return page


def _write_tables(folder: Path, content: Content) -> None:
    write_leaderboard(folder, content.board, content.speed, content.shown, content.options)
    for question in content.questions:
        if not question.table.empty:
            write_atomic(folder / "tables" / f"{question.name}.csv", csv_text(question.table))


def _write_plots(folder: Path, content: Content) -> dict[str, Path]:
    """Draw every figure; PNG files by name."""
    from zsad_bench.report.figures.plots import save

    paths = {}
    for question in content.questions:
        for name, make in question.figures.items():
            save(make(), folder / "plots", name)
            paths[name] = folder / "plots" / f"{name}.png"
    return paths

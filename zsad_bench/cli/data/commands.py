"""``zsad-bench data <verb>``: what is known and found, and checking, showing, exporting, fetching of datasets."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import NoReturn

from rich.table import Table
from rich.text import Text

from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.contract import Dataset
from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import did_you_mean, readable_name
from zsad_bench.engine.dataset_card import Card, card, cards, dataset_at

_HIDDEN_KINDS = ("demo", "yours")
USAGE = """usage:
  zsad-bench data list [FOLDER ...]                 what is known, and what lies in these folders (default: $ZSAD_DATA)
  zsad-bench data check DATASET [ROOT] [KEY=VALUE]  counts per category, and every problem found; exit code 1 for errors
  zsad-bench data show DATASET [ROOT] [KEY=VALUE]   a PNG with some images of every category and their outlines
      --output FILE     default: <dataset>.png
      --count N         images a category, default 8
  zsad-bench data export DATASET [ROOT] [KEY=VALUE] --to FOLDER
      --format FORMAT   mvtec (default) | meta_json
  zsad-bench data download DATASET [--to FOLDER]    where the licence allows it; default: $ZSAD_DATA/<dataset>
      --mirror ADDRESS  read the archive there; or set $ZSAD_MIRROR
      --keep-archive
DATASET ROOT is short for dataset=DATASET dataset.root=ROOT; KEY=VALUE are keys such as dataset.categories=[bottle]"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"zsad-bench data: {message}; 'zsad-bench data --help' shows how")


def main(arguments: Sequence[str]) -> int:
    """Run one verb and return the exit code. UserError for a mistake of the user."""
    verbs = {"list": _list, "check": _check, "show": _show, "export": _export, "download": _download}
    if not arguments or arguments[0] in ("-h", "--help"):
        console.out.print(USAGE, markup=False, soft_wrap=True)
        return 0
    if arguments[0] not in verbs:
        hint = did_you_mean(arguments[0], list(verbs), listed=0)
        raise UserError(
            f"zsad-bench data {arguments[0]}: choose {', '.join(verbs)}{hint or ';'} see 'zsad-bench data --help'"
        )
    return verbs[arguments[0]](list(arguments[1:]))


def _data_folder() -> Path:
    return Path(os.environ.get("ZSAD_DATA", "data"))


def _dataset(words: Sequence[str]) -> Dataset:
    """The dataset that ``DATASET ROOT key=value ...`` names."""
    plain = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(plain) > 2 or not words:
        raise UserError("zsad-bench data: give DATASET, or DATASET ROOT; 'zsad-bench data --help' shows how")
    if plain:
        overrides.insert(0, f"dataset={plain[0]}")
    if len(plain) == 2:
        escaped = plain[1].replace("\\", "\\\\").replace("'", "\\'")
        overrides.append(f"dataset.root='{escaped}'")
    return build(compose_config(overrides).dataset, Dataset, "dataset")


def _parser(*options: str) -> _Parser:
    parser = _Parser(prog="zsad-bench data", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    for option in options:
        parser.add_argument(option)
    return parser


def _check(given: list[str]) -> int:
    from zsad_bench.cli.data.check import check

    return check(_dataset(_parser().parse_intermixed_args(given).words), console.out)


def _show(given: list[str]) -> int:
    from zsad_bench.cli.data.picture import write_sheet

    options = _parser("--output", "--count").parse_intermixed_args(given)
    count = options.count or "8"
    if not count.isdigit() or int(count) < 1:
        raise UserError(f"--count {count}: give a whole number of at least 1")
    dataset = _dataset(options.words)
    path = Path(options.output or f"{readable_name(dataset.name)}.png")
    shown = write_sheet(dataset, path, int(count))
    console.out.print(Text(f"{shown} images of {len(dataset.categories)} categories: {path}"), soft_wrap=True)
    return 0


def _export(given: list[str]) -> int:
    from zsad_bench.cli.data.export import export

    options = _parser("--to", "--format").parse_intermixed_args(given)
    if options.to is None:
        raise UserError("zsad-bench data export: give the new folder with --to FOLDER")
    dataset = _dataset(options.words)
    with console.progress() as bar:
        task = bar.add_task("exporting", total=len(dataset.index.train) + len(dataset.index.test))
        done = export(dataset, Path(options.to), options.format or "mvtec", lambda: bar.advance(task))
    console.out.print(
        Text(f"{done.images} images in {options.to}: {done.linked} links, {done.written} files written"), soft_wrap=True
    )
    return 0


def _download(given: list[str]) -> int:
    from zsad_bench.cli.data.download import download

    parser = _parser("--to", "--mirror")
    parser.add_argument("--keep-archive", action="store_true")
    options = parser.parse_intermixed_args(given)
    if len(options.words) != 1:
        raise UserError("zsad-bench data download: give one dataset; 'zsad-bench data list' names them")
    wanted = card(options.words[0])
    folder = Path(options.to) if options.to else _data_folder() / wanted.key
    mirror = options.mirror or os.environ.get("ZSAD_MIRROR")
    found = download(wanted, folder, mirror, options.keep_archive)
    message = f"{wanted.title}: {found}\nlicence: {wanted.licence}. Cite: {wanted.citation}\n"
    message += f"zsad-bench data check {wanted.key} {found}"
    console.out.print(Text(message), soft_wrap=True)
    return 0


def _list(given: list[str]) -> int:
    folders = [Path(word) for word in _parser().parse_intermixed_args(given).words]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"zsad-bench data list: the folder {folder} does not exist")
    console.out.print(_known())
    folders = folders or [folder for folder in (_data_folder(),) if folder.is_dir()]
    if folders:
        console.out.print(_found(folders))
    return 0


def _known() -> Table:
    table = Table(title="known datasets", title_justify="left")
    for name in ("dataset=", "name", "categories", "protocols", "licence", "get it"):
        table.add_column(name, overflow="fold")
    for entry in cards().values():
        if entry.about.kind in ("", *_HIDDEN_KINDS):
            continue
        protocols = ", ".join(entry.about.protocols or {"standard": ""})
        get = "download" if entry.download else entry.about.obtain or "from its page"
        cells = (entry.key, entry.title, str(len(entry.categories)), protocols, entry.licence, get)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _found(folders: Sequence[Path]) -> Table:
    table = Table(title="found", title_justify="left")
    for name in ("folder", "dataset=", "name", "categories", "train", "test"):
        table.add_column(name, overflow="fold")
    for folder in folders:
        for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            table.add_row(*(Text(cell) for cell in describe_folder(place)))
    return table


def describe_folder(place: Path) -> tuple[str, ...]:
    """What a folder holds: the dataset that it is named after, else what ``auto`` takes it for."""
    named = cards().get(place.name)
    key = named.key if named is not None and _begins(named, place) else "auto"
    try:
        with redirect_stderr(io.StringIO()):  # what auto says stands in the table
            dataset = dataset_at(key, place)
            index = dataset.index
    except UserError as error:
        return (str(place), "-", str(error), "", "", "")
    categories = str(len(index.categories))
    return (str(place), key, dataset.title, categories, str(len(index.train)), str(len(index.test)))


def _begins(entry: Card, place: Path) -> bool:
    try:
        return entry.about.kind not in ("", *_HIDDEN_KINDS) and dataset_at(entry.key, place).recognises(place)
    except UserError:
        return False

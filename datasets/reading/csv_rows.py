"""Rows of csv files with a header, and a clear message for everything that is wrong with them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from zsad_bench.core.errors import UserError


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> stripped text) of a csv file with a header. UserError naming the file and line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [str(name).strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            missing = [name for name in columns if name not in header]
            if missing:
                raise UserError(f"{path}: the header has no column {', '.join(missing)}; expected {','.join(columns)}")
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise UserError(f"{path}, line {reader.line_num}: too few columns; expected {','.join(columns)}")
                yield reader.line_num, {name: row[name].strip() for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as csv ({error}); restore it from the archive") from error

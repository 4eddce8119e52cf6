"""Parts of pages in ``docs`` that scripts write: what stands between two marks is theirs, the rest is by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def write_or_check(files: Callable[[], Mapping[Path, str]], description: str | None) -> int:
    """The command line of such a script; returns its exit code, 1 if ``--check`` finds a file that is not up to date.

    Args:
        files: makes the files anew, as their paths and whole contents.
        description: for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is not up to date")
    check = parser.parse_args().check
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path.relative_to(DOCS.parent)}: {'not up to date' if check else 'written'}")
    return int(check and bool(stale))


def with_part(page: str, source: str, tool: str, part: str) -> str:
    """A page with everything between the two marks of a source made anew.

    Raises:
        ValueError: the page does not have both marks.
    """
    begin, end = f"<!-- from {source} by tools/{tool}: do not edit below -->", f"<!-- end of the part from {source} -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page needs the lines {begin} and {end}")
    return f"{head}{begin}\n\n{part}\n{end}{tail}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield _line(header)
    yield "|" + "---|" * len(header)
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

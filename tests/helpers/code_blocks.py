"""The fenced blocks of a Markdown page, and the commands that bash makes of one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("make", "pip", "python", "ray", "zsad-bench")
_NOTE = 'printf "%s\\0" "${0##*/}" "$@" >> "$COMMANDS"\necho >> "$COMMANDS"\n'
_MARK = r"(?:^<!-- (?P<mark>needs|file): (?P<detail>.+?) -->\n)?"
_BLOCK = re.compile(_MARK + r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: name of the page and number of the line, for messages.
        language: as behind the fence; empty if there is none.
        text: what stands in the block.
        needs: what it takes to run it, from a comment ``<!-- needs: ... -->`` before it; empty: nothing.
        file: the file whose contents it is, from a comment ``<!-- file: ... -->``; empty: none.
    """

    page: str
    language: str
    text: str
    needs: str
    file: str


def blocks_of(path: Path, root: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    page = path.read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(page):
        line = page.count("\n", 0, match.start("language")) + 1
        marks = {"needs": "", "file": ""}
        if match["mark"]:
            marks[match["mark"]] = match["detail"]
        found.append(Block(f"{path.relative_to(root).as_posix()}:{line}", match["language"], match["text"], **marks))
    return found


def commands_of(text: str, folder: Path) -> list[list[str]]:
    """The commands of a block as lists of arguments, read by bash itself; none of them runs, ``seq`` apart.

    Args:
        text: the block.
        folder: for stand-ins of the programs, which note how they are called.

    Raises:
        ValueError: a program that has no stand-in, or a line that bash does not understand.
    """
    log, stand_ins = folder / "commands", folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    stand_ins.mkdir(parents=True)
    bash, seq = shutil.which("bash"), shutil.which("seq")
    assert bash is not None
    if seq is not None:
        (stand_ins / "seq").symlink_to(seq)
    for name in PROGRAMS:
        program = stand_ins / name
        program.write_text(f"#!{bash}\n{_NOTE}", "utf-8")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": str(stand_ins), "COMMANDS": str(log)}
    done = subprocess.run([bash, "-eu"], input=text, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"bash does not take this block: {done.stderr}")
    return [line.split("\0")[:-1] for line in log.read_text("utf-8").splitlines()] if log.exists() else []

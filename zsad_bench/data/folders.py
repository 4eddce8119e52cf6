"""What lies where on disk, without hidden files and what archives leave behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_DEEPEST = 4  # folders of archives inside each other


def innermost(root: Path, recognises: Callable[[Path], bool]) -> Path:
    """The folder where a layout begins: ``root``, or what it holds when that is a single folder, and so on.

    Returns ``root`` itself when nothing on the way is recognised.
    """
    folder = root
    for _ in range(_DEEPEST):
        if recognises(folder):
            return folder
        inside = [path for path in visible(folder) if path.is_dir()]
        if len(inside) != 1:
            break
        folder = inside[0]
    return root


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files and what archives leave behind; empty if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    except OSError:
        return []

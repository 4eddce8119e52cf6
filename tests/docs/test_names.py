"""Files and modules that pages name exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"`((?:zsad_bench|tests|benchmarks|tools|datasets)/[\w./]+)`")
MODULE = re.compile(r"`(zsad_bench(?:\.\w+)+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_it_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    assert not [name for name in MODULE.findall(text) if not is_defined(name)]


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module or something in one."""
    home, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(home), last) or bool(importlib.import_module(name))
    except ModuleNotFoundError:
        return False

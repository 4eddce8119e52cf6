"""Reading of the tables that people read."""

from __future__ import annotations

import re
from pathlib import Path


def unpadded(table: Path | str) -> str:
    """A Markdown or LaTeX table, as a file or as text, with single spaces: columns are padded to a common width."""
    text = table.read_text(encoding="utf-8") if isinstance(table, Path) else table
    return re.sub(" +", " ", text)

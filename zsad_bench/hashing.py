"""Checksums of files, remembered for as long as a file does not change."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

# Files whose checksum is remembered: more than the images of the largest dataset of the field.
_REMEMBERED = 1 << 18


@lru_cache(maxsize=_REMEMBERED)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered while its size and time of change stay the same. Raises OSError."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)

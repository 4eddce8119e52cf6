"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zsad_bench.core.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, so nobody reads half a file.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free space or choose another folder") from None


def write_atomic(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all; raises UserError if the folder cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def cannot_keep(folder: Path | None, error: OSError) -> UserError:
    """What to raise when a temporary file cannot be written; ``folder`` None stands for the system's."""
    where = folder or Path(tempfile.gettempdir())
    return UserError(
        f"{where}: a temporary file cannot be written there ({error.strerror}); free space or choose another folder"
    )

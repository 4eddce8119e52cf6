"""The version of this package; it is written in ``pyproject.toml`` alone."""

from __future__ import annotations

from importlib import metadata


def package_version() -> str:
    """The version of the installed ``zsad-bench``, for example ``0.1.0``.

    Raises:
        importlib.metadata.PackageNotFoundError: the code is used without being installed.
    """
    return metadata.version("zsad-bench")

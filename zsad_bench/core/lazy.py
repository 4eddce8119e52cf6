"""Names of a package that are loaded on first use (PEP 562), so that whoever needs one does not wait for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def on_first_use(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package.

    Args:
        package: its name.
        homes: names that it hands on, by the module that each is defined in.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> object:
        """Raises AttributeError if the package does not have the name."""
        if name not in home_of:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(home_of[name]), name)

    return get

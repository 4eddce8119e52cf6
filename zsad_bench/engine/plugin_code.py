"""The code of plugins outside of this package, by content: who flips a sign and runs again gets new numbers."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_OWN_PACKAGE = __name__.partition(".")[0]


def code_of(target: object) -> str | None:
    """Hash of the source of a class or function and of everything it imports from beside it; None for bundled ones.

    What counts is the module of the target (and of its base classes), and the modules that these import, as long as
    they are files of the user: neither of this package, nor of Python, nor of installed packages. A plugin that is an
    installed package counts with the modules of that package.
    """
    bases = target.__mro__ if isinstance(target, type) else (target,)
    todo = [module for base in bases if (module := getattr(base, "__module__", None))]
    own_package = todo[0].partition(".")[0] if todo else ""
    seen: dict[str, Path] = {}
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        # The package is asked first: to look for a module inside it would import it, however large it is.
        outer = None if top == _OWN_PACKAGE else _source(top)
        if name in seen or top == _OWN_PACKAGE or (outer is not None and not _counts(outer, top == own_package)):
            continue
        path = _source(name)
        if path is None or not _counts(path, top == own_package):
            continue
        seen[name] = path
        todo += _imports(name, path)
    if not seen:
        return None
    digest = hashlib.sha256()
    for name, path in sorted(seen.items()):
        digest.update(f"{name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _counts(path: Path, own_package: bool) -> bool:
    """Whether a source file is the user's, or of the plugin's own package."""
    resolved = path.resolve()
    installed = "site-packages" in resolved.parts or any(resolved.is_relative_to(folder) for folder in _installed())
    if installed:
        return own_package
    return not any(resolved.is_relative_to(folder) for folder in _standard())


@lru_cache(maxsize=1)
def _standard() -> tuple[Path, ...]:
    """Folders of Python's own library."""
    return tuple(Path(sysconfig.get_paths()[key]).resolve() for key in ("stdlib", "platstdlib"))


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """Folders of installed packages."""
    return tuple(Path(sysconfig.get_paths()[key]).resolve() for key in ("purelib", "platlib"))


def _source(name: str) -> Path | None:
    """The source file of a module, imported or not; None for what has none."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    if file is None:
        try:
            spec = find_spec(name)
        except (ImportError, AttributeError, ValueError):
            return None
        file = spec.origin if spec is not None and spec.has_location else None
    path = Path(file) if file else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _imports(name: str, path: Path) -> Iterator[str]:
    """Names of modules that a source file imports, at its top or inside functions, and the packages around it."""
    parts = name.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts)))
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
            else:
                yield from (alias.name for alias in node.names)

"""Roles of docstrings, such as ``:func:`~package.module.name` ``, as cross references of the documentation's site.

An extension of griffe, which reads the docstrings for mkdocstrings (``mkdocs.yml`` names this file). A role that names
nothing is a warning, and ``mkdocs build --strict`` stops at warnings.
"""

from __future__ import annotations

import re

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`(?P<short>~?)(?P<target>[\w.]+)`")
_log = griffe.get_logger("docs_roles")


class Roles(griffe.Extension):
    """Rewrites the docstrings of a package once all its modules are read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        """Called by griffe for every package that it has read."""
        _rewrite(pkg)


def _rewrite(owner: griffe.Object) -> None:
    if owner.docstring is not None:
        owner.docstring.value = ROLE.sub(lambda role: _link(owner, role), owner.docstring.value)
    for member in owner.members.values():
        if isinstance(member, griffe.Object):
            _rewrite(member)


def _link(owner: griffe.Object, role: re.Match[str]) -> str:
    """A link to what a role names; code without a link where the site has no page for it."""
    target = role["target"]
    path = _path_of(owner, target)
    if path is None:
        _log.warning(f"{owner.path}: its docstring names {target}, which does not exist")
        return f"`{target}`"
    text = target.rpartition(".")[2] if role["short"] else target
    return f'<autoref identifier="{path}" optional><code>{text}</code></autoref>'


def _path_of(owner: griffe.Object, target: str) -> str | None:
    """Where a name that a docstring uses is defined: in its class, its module or the package; None if nowhere."""
    package = owner.package
    if target.startswith(f"{package.name}."):
        return _defined(package, target.removeprefix(f"{package.name}."))
    scope: griffe.Object | None = owner
    while scope is not None:
        if path := _defined(scope, target):
            return path
        scope = scope.parent
    return None


def _defined(scope: griffe.Object, name: str) -> str | None:
    try:
        return str(scope[name].canonical_path)
    except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
        return None

"""Keys of a method, declared once: a dataclass field with its type, its constraints and its default.

A method is a dataclass, and its fields are the keys of its YAML. A constraint stands in the type::

    temperature: Annotated[float, Gt(0)] = 0.07  # divides cosines before the softmax

Constraints are those of the package ``annotated-types`` (``Gt``, ``Ge``, ``Lt``, ``Le``, ``Interval``, ``MinLen``), or
a :class:`Rule` with words of its own; :class:`Advice` says what else a user may do. Types in common use have names in
:mod:`zsad_bench.toolkit.settings`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le, Lt, MinLen

from zsad_bench.core.errors import UserError


@dataclass(frozen=True)
class Rule:
    """A constraint in words of its own, for ``Annotated``: ``Rule(lambda side: side % 2 == 1, "odd")``.

    Attributes:
        holds: whether a value, which has the right type already, is allowed.
        demand: what a value must be; it goes on after "must be".
    """

    holds: Callable[..., bool]
    demand: str


@dataclass(frozen=True)
class Advice:
    """What a user may do instead, for ``Annotated``; it ends the message about a value that is refused."""

    text: str


@dataclass(frozen=True)
class Key:
    """A key that a class declares.

    Attributes:
        name: as in the YAML.
        hint: its type, constraints included.
        default: ``dataclasses.MISSING`` if the YAML must give a value.
    """

    name: str
    hint: object
    default: object = MISSING


def declared_keys(plugin: type) -> tuple[Key, ...]:
    """Keys that a dataclass takes as keyword arguments, those of its base classes first.

    A class with an ``__init__`` of its own that is no dataclass has the keys of its nearest base class that is one.
    """
    # Annotations of other classes are none of ours, and may name what cannot be imported at run time.
    owner = next(one for one in plugin.__mro__ if "__dataclass_fields__" in vars(one))
    hints = get_type_hints(owner, include_extras=True)
    return tuple(Key(field.name, hints[field.name], field.default) for field in fields(owner) if field.init)


def check_keys(plugin: object) -> None:
    """Refuse values of declared keys that have the wrong type or break a constraint; lists become tuples.

    Raises:
        UserError: for the first of them, for example ``method.temperature=-1: must be above 0``.
    """
    for key in declared_keys(type(plugin)):
        value = getattr(plugin, key.name)
        if failed := unmet(key.hint, value):
            raise UserError(f"method.{key.name}={_shown(value)}: {failed}")
        if isinstance(value, list):
            setattr(plugin, key.name, tuple(value))


def unmet(hint: object, value: object) -> str:
    """What a value should be: ``must be above 0``, ``choose a, b or c``; empty if it has the type and keeps the rules.

    Types other than numbers, text, ``Literal``, sequences, their unions and None are not checked.
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        failed = unmet(parts[0], value) or _broken(parts[1:], value)
        advice = [part.text for part in parts[1:] if isinstance(part, Advice)]
        return "; ".join([failed, *advice]) if failed else ""
    if kind in (Union, UnionType):
        reasons = [unmet(part, value) for part in parts]
        return "" if "" in reasons else ", or ".join(reasons)
    if kind is Literal:
        return "" if value in parts else f"choose {_listed(parts)}"
    if kind is Sequence:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return "must be a list"
        return next((f"each {failed}" for item in value if (failed := unmet(parts[0], item))), "")
    if kind not in _TYPES:
        return ""
    allowed, demand = _TYPES[kind]
    right = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))  # Python's True is an int
    return "" if right else demand


_TYPES: dict[object, tuple[type, str]] = {
    float: (Real, "must be a number"),
    int: (Integral, "must be a whole number"),
    bool: (bool, "must be true or false"),
    str: (str, "must be text"),
    NoneType: (NoneType, "null"),
}


def _broken(metadata: Iterable[object], value: object) -> str:
    """All that the constraints demand, if one of them is broken."""
    rules = list(_rules(metadata))
    if all(rule.holds(value) for rule in rules):
        return ""
    return "must be " + " and ".join(rule.demand for rule in rules)


def _rules(metadata: Iterable[object]) -> Iterator[Rule]:
    """The constraints among what stands in an ``Annotated``; TypeError for one that is not known here."""
    for item in metadata:
        match item:
            case Rule():
                yield item
            case GroupedMetadata():
                yield from _rules(item)
            case Gt(bound):
                yield _bound(operator.gt, bound, "above")
            case Ge(bound):
                yield _bound(operator.ge, bound, "at least")
            case Lt(bound):
                yield _bound(operator.lt, bound, "below")
            case Le(bound):
                yield _bound(operator.le, bound, "at most")
            case MinLen(length):
                yield Rule(lambda value, length=length: len(value) >= length, f"a list of {length} or more")
            case BaseMetadata():
                raise TypeError(f"{item} is not checked; write it as a zsad_bench.contract.Rule")


def _bound(compare: Callable[..., bool], bound: object, words: str) -> Rule:
    return Rule(lambda value: compare(value, bound), f"{words} {bound}")


def _listed(choices: Sequence[object]) -> str:
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}" if first else last


def _shown(value: object) -> str:
    """A value as the command line writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)

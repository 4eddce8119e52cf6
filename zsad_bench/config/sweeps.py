"""Sweeps: several values of a key on one command line, and the override lists that they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from zsad_bench.config.messages import unreadable_override
from zsad_bench.core.errors import UserError


def expand_seeds(overrides: Sequence[str]) -> list[str]:
    """``seeds=0..9`` as the sweep ``seed=0,1,...,9``: batches are composed anew for every seed.

    Raises:
        UserError: another form than two whole numbers, the smaller one first.
    """
    expanded = []
    for text in overrides:
        if text.startswith("seeds="):
            match = re.fullmatch(r"seeds=(\d+)\.\.(\d+)", text)
            if match is None or int(match[1]) > int(match[2]):
                raise UserError(f"{text}: give the first and the last seed, for example seeds=0..9")
            expanded.append("seed=" + ",".join(map(str, range(int(match[1]), int(match[2]) + 1))))
        else:
            expanded.append(text)
    return expanded


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Override lists that together visit every value of a sweep once, for checking it before it starts."""
    parsed = _parse(overrides)
    values = [
        list(item.sweep_string_iterator()) if item.is_sweep_override() else [text]
        for item, text in zip(parsed, overrides, strict=True)
    ]
    options = [
        [f"{item.input_line.split('=', 1)[0]}={value}" for value in choices] if item.is_sweep_override() else choices
        for item, choices in zip(parsed, values, strict=True)
    ]
    first = [choices[0] for choices in options]
    jobs = [first]
    for position, choices in enumerate(options):
        jobs += [[*first[:position], choice, *first[position + 1 :]] for choice in choices[1:]]
    return jobs


def feature_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Override lists for every combination of swept values that can change which features a sweep needs.

    Batch sizes, seeds and output options cannot: the number of combinations stays small.
    """
    groups = ("method", "dataset", "encoder", "experiment")
    return _combinations(overrides, lambda key: key.lstrip("+").split(".")[0] in groups)


def every_job(overrides: Sequence[str]) -> list[list[str]]:
    """Override lists of all jobs of a sweep."""
    return _combinations(overrides, lambda key: True)


def _combinations(overrides: Sequence[str], matters: Callable[[str], bool]) -> list[list[str]]:
    """Override lists for every combination of the swept values of keys that matter; others have their first value."""
    options = []
    for item, text in zip(_parse(overrides), overrides, strict=True):
        if not item.is_sweep_override():
            options.append([text])
            continue
        key = item.input_line.split("=", 1)[0]
        values = [f"{key}={value}" for value in item.sweep_string_iterator()]
        options.append(values if matters(key) else values[:1])
    return [list(job) for job in product(*options)]


def as_sweep(overrides: Sequence[str]) -> list[str]:
    """The same sweep in a form in which a swept method may have keys that the default method lacks.

    Hydra composes a sweep once without its swept values, so ``-m method=clip_ad,musc method.sigma=4`` would be refused
    because of WinCLIP. It leaves out sweeps of one value as well, so that is what such keys become.
    """
    parsed = _parse(overrides)
    groups = {item.key_or_group for item in parsed if item.is_sweep_override()}

    def rewritten(item: Any, text: str) -> str:
        key, _, value = text.partition("=")
        belongs = "." in key and key.lstrip("+").split(".")[0] in groups
        return f"{key}=choice({value})" if belongs and value and not item.is_sweep_override() else text

    return [rewritten(item, text) for item, text in zip(parsed, overrides, strict=True)]


def sweep_size(overrides: Sequence[str]) -> int:
    """Number of jobs of a sweep."""
    parsed = _parse(overrides)
    return prod(len(list(item.sweep_string_iterator())) for item in parsed if item.is_sweep_override())


def _parse(overrides: Sequence[str]) -> list[Any]:
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            raise UserError(unreadable_override(text)) from None
    return parsed

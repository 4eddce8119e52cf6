"""Sweeps: several values of a key on one command line, and the override lists that they stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
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


def every_job(overrides: Sequence[str]) -> list[list[str]]:
    """Override lists of all jobs of a sweep, in the order in which Hydra's basic sweeper runs them."""
    options = []
    for item, text in zip(parse_overrides(overrides), overrides, strict=True):
        key = text.split("=", 1)[0]
        swept = item.is_sweep_override()
        options.append([f"{key}={value}" for value in item.sweep_string_iterator()] if swept else [text])
    return [list(job) for job in product(*options)]


def as_sweep(overrides: Sequence[str]) -> list[str]:
    """The same sweep in a form in which a swept method may have keys that the default method lacks.

    Hydra composes a sweep once without its swept values, so ``-m method=clip_ad,musc method.sigma=4`` would be refused
    because of WinCLIP. It leaves out sweeps of one value as well, so that is what such keys become.
    """
    parsed = parse_overrides(overrides)
    groups = {item.key_or_group for item in parsed if item.is_sweep_override()}

    def rewritten(item: Override, text: str) -> str:
        key, _, value = text.partition("=")
        belongs = "." in key and key.lstrip("+").split(".")[0] in groups
        return f"{key}=choice({value})" if belongs and value and not item.is_sweep_override() else text

    return [rewritten(item, text) for item, text in zip(parsed, overrides, strict=True)]


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """What Hydra reads in overrides. Raises UserError naming the one that it cannot read."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            raise UserError(unreadable_override(text)) from None
    return parsed

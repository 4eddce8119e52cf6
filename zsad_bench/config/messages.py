"""One line for every mistake in a configuration, with the nearest valid key or choice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hydra import compose
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.config.schema import GROUPS
from zsad_bench.core.names import near_misses

# Launchers that are packages of their own -> the extra that installs them.
EXTRAS = {"joblib": "joblib", "submitit_slurm": "submitit", "submitit_local": "submitit", "ray": "ray"}


def unreadable_override(override: str) -> str:
    """One line for an override that Hydra's grammar does not know."""
    return f"'{override}': cannot be read; write key=value, with quotes around values that hold spaces, commas or ="


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return unreadable_override(error.override)
    if isinstance(error, MissingConfigException) and (
        match := re.search(r"Could not find '(?:([^'/]+)/)?([^']+)'", text)
    ):
        group, option = match.group(1) or "config", match.group(2)
        if extra := EXTRAS.get(option.removeprefix("launcher/")) if group == "hydra" else None:
            return f"cluster: the launcher {extra} is not installed; pip install 'zsad-bench[{extra}]'"
        options = list(error.options or [])
        listed = f"; choose from {', '.join(options)}"
        return f"{group}={option}: no such {group}{nearest_key(option, options) or listed}"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        return f"{key}: no such key{nearest_key(key, _known_keys(overrides))}"
    if match := re.search(r"Multiple values for (\S+)\. To override", text):
        return f"{match.group(1)}: has a value already; write {match.group(1)}=... without +"
    if match := re.search(r"Error merging override (.+)", text):
        reason = str(error.__cause__ or "").splitlines()
        return f"{match.group(1)}: {reason[0] if reason else 'wrong type'}"
    return (text or type(error).__name__).splitlines()[0]


def nearest_key(word: str, choices: Sequence[str]) -> str:
    """Nearest valid key or option; a key is also found by its last part alone."""
    near = near_misses(word, choices, cutoff=0.6)
    if not near:
        last = {choice.split(".")[-1]: choice for choice in reversed(choices)}
        near = [last[match] for match in near_misses(word.rsplit(".", maxsplit=1)[-1], last, cutoff=0.75)]
    return f"; did you mean {near[0]}?" if near else ""


def _group_choices(overrides: Sequence[str]) -> list[str]:
    """Those overrides that choose a YAML file or a folder of them, not a value."""
    groups = {*GROUPS, "+experiment", "hydra.searchpath"}
    return [text for text in overrides if text.split("=", 1)[0] in groups]


def _known_keys(overrides: Sequence[str]) -> list[str]:
    try:
        config = compose("config", overrides=[*_group_choices(overrides), "name=x"])
    except (HydraException, OmegaConfBaseException):
        config = compose("config", overrides=["name=x"])
    return list(_flatten(config))


def _flatten(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        name = f"{prefix}{key}"
        yield name
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_interpolation():
            yield from _flatten(child, f"{name}.")

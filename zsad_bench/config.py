"""Typed configuration: every key is checked, and every mistake is one clear line, before anything heavy is imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.core.names import near_misses, safe_name
from zsad_bench.errors import UserError

CONFIG_MODULE = "zsad_bench.conf"
# Keys of an encoder that change features in their last bits at most, or not at all.
NOT_IN_FEATURES = ("device", "chunk_size", "sha256")
# What a method's YAML says about the method to readers; nothing of it reaches the method.
METHOD_CARD = ("version", "paper", "code", "citation", "fidelity")
GROUPS = ("method", "dataset", "encoder", "features", "cluster", "tracker")
CHOICES = {
    "on_error": ("stop", "skip"),
    "last_batch": ("fill", "keep", "drop"),
    "maps": ("sheet", "all", "none"),
    "overwrite": ("missing", "always", "never", "cached"),
    "features.mode": ("disk", "memory", "off"),
    "encoder.resize": ("squash", "shortest"),
    "encoder.precision": ("fp32", "bf16", "fp16", "auto"),
}
MINIMUM = {
    "batch_size": 1,
    "limit": 1,
    "threads": 1,
    "seed": 0,
    "evaluation_size": 1,
    "encoder.chunk_size": 1,
    "encoder.image_size": 1,
}

# Choices that say where and how to run but do not belong into the name of the results folder.
_NOT_IN_NAME = {
    *("name", "dataset.root", "results_dir", "overwrite", "on_error", "maps", "tracker", "cluster", "threads"),
    *("encoder.device", "encoder.chunk_size", "fail_fast", "shard"),
    *("features", "features.mode", "features.root", "features.max_gb"),
}
_LONGEST_NAME = 100
# Launchers that are packages of their own -> the extra that installs them.
EXTRAS = {"joblib": "joblib", "submitit_slurm": "submitit", "submitit_local": "submitit", "ray": "ray"}
_QUOTES = "'\""


@dataclass
class EncoderConfig:
    """Keys of ``conf/encoder/*.yaml``; their meaning stands at :func:`zsad_bench.encoder.load_encoder`."""

    model: str = MISSING
    pretrained: str | None = None
    image_size: int | None = None
    resize: str = "squash"
    device: str = "auto"
    precision: str = "fp32"
    chunk_size: int | str | None = "auto"
    sha256: str | None = None
    feature_bits: int = 16
    compile: bool = False


@dataclass
class FeaturesConfig:
    """Keys of ``conf/features/*.yaml``: whether features are kept, where, and how many GiB of them."""

    mode: str = "disk"
    root: str | None = None
    max_gb: float = 20.0


@dataclass
class BoardConfig:
    """Keys ``board.*``; their meaning stands at :class:`zsad_bench.leaderboard.BoardOptions`."""

    metric: str = "image_auroc"
    group: Any = "setting"
    filter: Any = None


@dataclass
class BenchConfig:
    """Top-level keys; ``conf/config.yaml`` says what each means. Keys of methods and datasets stand in their YAML."""

    method: Any = MISSING
    dataset: Any = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    batch_size: int | str = 8
    last_batch: str = "fill"
    seed: int = 0
    limit: int | None = None
    evaluation_size: int | None = None
    sweep200: bool = False
    on_error: str = "stop"
    maps: str = "sheet"
    overwrite: str = "missing"
    fail_fast: bool = False
    threads: int | None = None
    shard: str | None = None
    board: BoardConfig = field(default_factory=BoardConfig)
    tracker: Any = MISSING
    results_dir: str = "results"
    name: str = MISSING


ConfigStore.instance().store("bench_schema", BenchConfig)


@contextmanager
def hydra_session() -> Iterator[None]:
    """A Hydra session of our own, also inside a program that runs under Hydra already."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose and check one job's config.

    Args:
        overrides: as on the command line, without sweeps.

    Raises:
        UserError: naming the key that is unknown, of the wrong type or out of range, and the nearest valid one.
    """
    with hydra_session():
        try:
            config = compose("config", overrides=with_name(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explain(error, overrides)) from None
        _check_types(config, overrides)
    _check_values(config)
    return config


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
            text = "seed=" + ",".join(map(str, range(int(match[1]), int(match[2]) + 1)))
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
            raise UserError(_unreadable(text)) from None
    return parsed


def with_name(overrides: Sequence[str]) -> list[str]:
    """The overrides with a results folder, if none was given."""
    if any(text.lstrip("+").startswith("name=") for text in overrides):
        return list(overrides)
    return [*overrides, f"name={run_name(overrides)}"]


def run_name(overrides: Sequence[str]) -> str:
    """Name of the results folder, made from the choices; the same choices give the same name. ``[a-z0-9_.-]`` only.

    Folders of data with different names never share one. Other choices may (``a,b`` and ``[a,b]``): their jobs have
    folders of their own in it.
    """
    chosen = {key: value for text in overrides for key, _, value in [text.lstrip("+~").partition("=")]}
    heads = {} if "experiment" in chosen else {"method": "winclip", "dataset": "demo"}
    heads |= {key: chosen[key] for key in ("experiment", "method", "dataset") if key in chosen}
    shown = {key: _readable(value) for key, value in heads.items()}
    if root := chosen.get("dataset.root"):
        name = safe_name(_root_name(root.strip(_QUOTES)))
        shown["dataset"] = f"{shown.get('dataset', '')}-{name}".lower().strip("-")
    for key, value in sorted(chosen.items()):
        if key not in {*heads, *_NOT_IN_NAME} and not key.startswith(("hydra", "board.", "tracker.")):
            file_name = Path(value.strip(_QUOTES)).name if "/" in value and "," not in value else value
            shown[key] = _readable(f"{key.split('.')[-1]}-{file_name}")
    name = "_".join(shown.values())
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}-{digest}"


def _readable(choice: str) -> str:
    """A choice as a part of a name; what stands between letters, digits and dots becomes ``-``."""
    return re.sub(r"[^a-z0-9.]+", "-", choice.lower()).strip("-") if choice.isascii() else safe_name(choice).lower()


def _root_name(root: str) -> str:
    """The name of a data folder, and unless it lies in the current folder a hash of its place.

    ``a/photos`` and ``b/photos`` are two datasets; their results must not meet in one folder.
    """
    place = Path(root).expanduser().absolute()
    with suppress(ValueError):
        place = place.relative_to(Path.cwd())
    name = place.name or "images"
    return name if len(place.parts) <= 1 else f"{name}-{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"


def _unreadable(override: str) -> str:
    return f"'{override}': cannot be read; write key=value, with quotes around values that hold spaces, commas or ="


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and (
        match := re.search(r"Could not find '(?:([^'/]+)/)?([^']+)'", text)
    ):
        group, option = match.group(1) or "config", match.group(2)
        if extra := EXTRAS.get(option.removeprefix("launcher/")) if group == "hydra" else None:
            return f"cluster: the launcher {extra} is not installed; pip install 'zsad-bench[{extra}]'"
        options = list(error.options or [])
        listed = f"; choose from {', '.join(options)}"
        return f"{group}={option}: no such {group}{_near(option, options) or listed}"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        return f"{key}: no such key{_near(key, _known_keys(overrides))}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match.group(1)}: several values need a sweep: python -m zsad_bench -m {match.group(1)}"
    if match := re.search(r"Multiple values for (\S+)\. To override", text):
        return f"{match.group(1)}: has a value already; write {match.group(1)}=... without +"
    if match := re.search(r"Error merging override (.+)", text):
        reason = str(error.__cause__ or "").splitlines()
        return f"{match.group(1)}: {reason[0] if reason else 'wrong type'}"
    return (text or type(error).__name__).splitlines()[0]


def _near(word: str, choices: Sequence[str]) -> str:
    """Nearest valid key or option; a key is also found by its last part alone."""
    near = near_misses(word, choices, cutoff=0.6)
    if not near:
        last = {choice.split(".")[-1]: choice for choice in reversed(choices)}
        near = [last[match] for match in near_misses(word.split(".")[-1], last, cutoff=0.75)]
    return f"; did you mean {near[0]}?" if near else ""


def _group_choices(overrides: Sequence[str]) -> list[str]:
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


def _check_types(config: DictConfig, overrides: Sequence[str]) -> None:
    """Keys of methods and datasets have the type of the value in their YAML; ``null`` there leaves it open."""
    changed = [
        key
        for key in (text.split("=", 1)[0] for text in overrides)
        if key.split(".")[0] in ("method", "dataset") and "." in key
    ]
    if not changed:
        return
    defaults = compose("config", overrides=[*_group_choices(overrides), "name=x"])
    for key in changed:
        before = None if OmegaConf.is_missing(defaults, key) else OmegaConf.select(defaults, key)
        now = OmegaConf.select(config, key)
        if before is None or (isinstance(now, type(before)) and isinstance(now, bool) == isinstance(before, bool)):
            continue
        if isinstance(before, float) and isinstance(now, int) and not isinstance(now, bool):
            continue
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(
            type(before), "a list or mapping as in its YAML"
        )
        raise UserError(f"{key}={now}: must be {kind}, as {key}={before} is by default")


def _check_values(config: DictConfig) -> None:
    for key, choices in CHOICES.items():
        value = OmegaConf.select(config, key)
        if value not in choices:
            raise UserError(f"{key}={value}: choose {' or '.join(choices)}{_near(str(value), choices)}")
    for key, minimum in MINIMUM.items():
        value = OmegaConf.select(config, key)
        if isinstance(value, int) and value < minimum:
            raise UserError(f"{key}={value}: must be at least {minimum}")
    chunk = config.encoder.chunk_size
    if isinstance(chunk, str) and chunk != "auto":
        raise UserError(f"encoder.chunk_size={chunk}: must be a whole number of at least 1, or auto")
    if isinstance(config.batch_size, str) and config.batch_size != "all":
        raise UserError(f"batch_size={config.batch_size}: must be a whole number of at least 1, or all")
    if not isinstance(config.method, DictConfig) or "_target_" not in config.method:
        raise UserError("method: its YAML needs a _target_ (the class) and keys")
    if not isinstance(config.dataset, DictConfig) or "_target_" not in config.dataset:
        raise UserError("dataset: its YAML needs a _target_ (the class) and keys")
    if OmegaConf.is_missing(config.dataset, "root"):
        raise UserError(
            f"dataset.root: dataset={config.dataset.name} needs the folder with your images: dataset.root=<folder>"
        )


def plain(node: DictConfig) -> dict[str, object]:
    """A part of a config as plain Python values."""
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}

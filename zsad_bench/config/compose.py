"""Typed configuration: every key is checked, and every mistake is one clear line, before anything heavy is imported.

Hydra composes each set of choices of groups (``method=``, ``dataset=`` ...) once; jobs that differ in single keys only
share it. So a sweep over batch sizes and seeds costs as many compositions as it has methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.conf import ConfigSourceInfo
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.config.messages import explain, nearest_key
from zsad_bench.config.run_name import with_name
from zsad_bench.config.schema import CHOICES, CONFIG_MODULE, GROUPS, MINIMUM, BenchConfig
from zsad_bench.config.sweeps import parse_overrides
from zsad_bench.core.errors import UserError

ConfigStore.instance().store("bench_schema", BenchConfig)

_SINGLE_KEYS = {key.name for key in fields(BenchConfig)} - set(GROUPS)
BASIC = "basic"  # launcher and sweeper of Hydra that run all jobs in this process
_preset_folders: ContextVar[tuple[Path, ...]] = ContextVar("preset_folders", default=())


@dataclass(frozen=True)
class Composed:
    """A job's config.

    Attributes:
        config: composed and checked.
        overrides: what it was composed from, as on the command line.
        launcher: name of the Hydra launcher that runs it elsewhere; None for this process.
        sweeper: name of the Hydra sweeper that chooses values; None for plain lists of values.
    """

    config: DictConfig
    overrides: tuple[str, ...]
    launcher: str | None
    sweeper: str | None


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
    return compose_jobs([overrides])[0].config


def compose_jobs(jobs: Sequence[Sequence[str]]) -> list[Composed]:
    """Compose and check the configs of the jobs of one command.

    Args:
        jobs: overrides of each, without sweeps.

    Raises:
        UserError: as :func:`compose_config`.
    """
    chosen: dict[tuple[str, ...], DictConfig] = {}
    with hydra_session():
        return [_compose(with_name(overrides), chosen) for overrides in jobs]


def preset_folders() -> tuple[Path, ...]:
    """Folders of the user (``--config-dir``) that the configs of this process come from, besides our own."""
    if HydraConfig.initialized():
        return _file_sources(HydraConfig.get().runtime.config_sources)
    return _preset_folders.get()


def _file_sources(sources: Iterable[ConfigSourceInfo | DictConfig]) -> tuple[Path, ...]:
    return tuple(Path(source.path) for source in sources if source.schema == "file" and source.path)


def _compose(overrides: Sequence[str], chosen: dict[tuple[str, ...], DictConfig]) -> Composed:
    """One job's config; ``chosen`` holds the compositions so far, by choices of groups."""
    try:
        parsed = parse_overrides(overrides)
        if swept := next((text for text, item in zip(overrides, parsed, strict=True) if item.is_sweep_override()), ""):
            raise UserError(f"{swept}: several values need a sweep: python -m zsad_bench -m {swept}")
        choices = tuple(text for text, item in zip(overrides, parsed, strict=True) if not _is_single_key(item))
        if choices not in chosen:
            given = [*choices, "name=x"]
            chosen[choices] = compose("config", overrides=given, return_hydra_config=True)
        defaults = chosen[choices]
        config = deepcopy(defaults)
        # The function by which Hydra itself changes single keys; it has no public one.
        ConfigLoaderImpl._apply_overrides_to_config([item for item in parsed if _is_single_key(item)], config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides)) from None
    _preset_folders.set(_file_sources(config.hydra.runtime.config_sources))
    names = (str(config.hydra.runtime.choices[f"hydra/{kind}"]) for kind in ("launcher", "sweeper"))
    launcher, sweeper = (None if name == BASIC else name for name in names)
    with open_dict(config):
        del config["hydra"]
    _check_types(config, defaults, [item.key_or_group for item in parsed if not item.is_delete()])
    _check_values(config)
    return Composed(config, tuple(overrides), launcher, sweeper)


def _is_single_key(item: Override) -> bool:
    """Whether an override changes one key, and not which files a config is made of, nor Hydra itself."""
    key = item.key_or_group
    if "/" in key or item.package is not None or key.split(".")[0] == "hydra":
        return False
    return "." in key or key in _SINGLE_KEYS


def _check_types(config: DictConfig, defaults: DictConfig, changed: Sequence[str]) -> None:
    """Keys of methods and datasets have the type of the value in their YAML; ``null`` there leaves it open."""
    for key in changed:
        if key.split(".")[0] not in ("method", "dataset") or "." not in key:
            continue
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
            raise UserError(f"{key}={value}: choose {' or '.join(choices)}{nearest_key(str(value), choices)}")
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

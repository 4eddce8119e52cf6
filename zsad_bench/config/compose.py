"""Typed configuration: every key is checked, and every mistake is one clear line, before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.config.messages import explain, group_choices, nearest_key
from zsad_bench.config.run_name import with_name
from zsad_bench.config.schema import CHOICES, CONFIG_MODULE, MINIMUM, BenchConfig
from zsad_bench.core.errors import UserError

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
            raise UserError(explain(error, overrides)) from None
        _check_types(config, overrides)
    _check_values(config)
    return config


def _check_types(config: DictConfig, overrides: Sequence[str]) -> None:
    """Keys of methods and datasets have the type of the value in their YAML; ``null`` there leaves it open."""
    changed = [
        key
        for key in (text.split("=", 1)[0] for text in overrides)
        if key.split(".")[0] in ("method", "dataset") and "." in key
    ]
    if not changed:
        return
    defaults = compose("config", overrides=[*group_choices(overrides), "name=x"])
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

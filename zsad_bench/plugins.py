"""Plugins (methods, datasets) from their configs. The engine knows them by ``_target_`` only."""

from __future__ import annotations

from typing import TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from zsad_bench.errors import UserError

Plugin = TypeVar("Plugin")


def build(config: DictConfig, base: type[Plugin], key: str) -> Plugin:
    """Instantiate the class that ``config._target_`` names with the other keys as arguments.

    Args:
        config: the plugin's part of the config.
        base: the class it must be derived from.
        key: ``method`` or ``dataset``, for messages.

    Raises:
        UserError: the class is missing, refuses an argument, or is of another kind.
    """
    target = config["_target_"]
    try:
        plugin = instantiate(config, _convert_="object")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{key}._target_={target}: {type(cause).__name__}: {str(cause).splitlines()[0]}") from None
    if not isinstance(plugin, base):
        raise UserError(f"{key}._target_={target}: must be derived from {base.__module__}.{base.__name__}")
    return plugin

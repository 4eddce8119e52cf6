"""Plugins (methods, datasets) from their configs. The engine knows them by ``_target_`` only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from zsad_bench.config.schema import METHOD_CARD
from zsad_bench.core.errors import UserError

Plugin = TypeVar("Plugin")


def build(config: DictConfig, base: Callable[..., Plugin], key: str) -> Plugin:
    """Instantiate the class that ``config._target_`` names with the other keys as arguments.

    A method does not get the keys of its card (:data:`zsad_bench.config.schema.METHOD_CARD`): they describe it to
    readers.

    Args:
        config: the plugin's part of the config.
        base: the class it must be derived from. Typed by what a call of it makes, because type checkers refuse an
            abstract class as ``type[Plugin]``.
        key: ``method`` or ``dataset``, for messages.

    Raises:
        UserError: the class is missing, refuses an argument, or is of another kind.
    """
    target = config["_target_"]
    arguments = {name: config[name] for name in config if name not in METHOD_CARD} if key == "method" else config
    try:
        plugin = instantiate(arguments, _convert_="object")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{key}._target_={target}: {type(cause).__name__}: {str(cause).splitlines()[0]}") from None
    kind = cast(type[Plugin], base)
    if not isinstance(plugin, kind):
        raise UserError(f"{key}._target_={target}: must be derived from {kind.__module__}.{kind.__name__}")
    return plugin


def is_bundled(config: DictConfig) -> bool:
    """Whether a plugin comes with this package; so much is known without importing it."""
    return str(config["_target_"]).startswith(f"{__name__.partition('.')[0]}.")


def target_of(config: DictConfig) -> object:
    """The class or function that ``config._target_`` names; None if it cannot be imported, which :func:`build` says."""
    try:
        return get_object(config["_target_"])
    except (ImportError, AttributeError, ValueError):
        return None

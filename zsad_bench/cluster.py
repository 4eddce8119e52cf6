"""Sweeps in several processes or on several machines: which launcher, and what it has to be told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra import compose

from zsad_bench.config import hydra_session
from zsad_bench.job import BASIC_LAUNCHER

# Variables that say where data, weights and features are. A worker may be started by a daemon with another environment.
_ENVIRONMENT = ("ZSAD_DATA", "ZSAD_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TORCH_HOME")


def launcher_of(overrides: Sequence[str]) -> str | None:
    """Name of the launcher that ``cluster=...`` or ``hydra/launcher=...`` chooses; None for this process."""
    with hydra_session():
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    name = str(config.hydra.runtime.choices["hydra/launcher"])
    return None if name == BASIC_LAUNCHER else name


def launch_overrides(folder: Path) -> list[str]:
    """What Hydra is told besides the user's choices, so that workers write into the same folder and read the same data.

    Args:
        folder: results folder of the sweep.
    """
    settings = {"hydra.sweep.dir": str(folder.absolute())}
    settings |= {f"+hydra.job.env_set.{name}": os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return [f"{key}={_quoted(value)}" for key, value in settings.items()]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

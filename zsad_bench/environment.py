"""Facts about the machine and the software, for timing files only: results themselves do not depend on them."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch


@lru_cache(maxsize=1)
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def device_name(device: torch.device) -> str:
    """What is computed on, in words."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()} ({torch.get_num_threads()} threads)"


def facts(device: torch.device) -> dict[str, str]:
    """Device and versions."""
    packages = {package: version(package) for package in ("torch", "open_clip_torch", "zsad-bench")}
    return {"device": device_name(device), "python": platform.python_version(), **packages, "commit": commit()}


@lru_cache(maxsize=1)
def commit() -> str:
    """Git commit of the code, with ``+`` if files were changed since; empty outside a git checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed somewhere, perhaps inside a checkout of something else
        return ""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")

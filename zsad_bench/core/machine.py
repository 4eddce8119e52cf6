"""Facts about the machine and the software, for timing files only: results themselves do not depend on them."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from zsad_bench.core.version import package_version


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
    return {
        "device": device_name(device),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "open_clip_torch")},
        "zsad-bench": package_version(),
        "commit": commit(),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Git commit of the code, with ``+`` if files were changed since; empty outside a git checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed somewhere, perhaps inside a checkout of something else
        return ""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def limit_threads(threads: int | None) -> None:
    """Use so many CPU threads in this process from now on.

    Args:
        threads: None follows Slurm's ``SLURM_CPUS_PER_TASK`` if there is one, and otherwise changes nothing: joblib and
            Ray tell their workers by ``OMP_NUM_THREADS``, and without a launcher every core is used.
    """
    wanted = threads or int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if wanted:
        torch.set_num_threads(wanted)
        threadpool_limits(wanted)

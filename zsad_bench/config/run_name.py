"""The name of the results folder, made from the choices on the command line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zsad_bench.core.names import safe_name

# Choices that say where and how to run but do not belong into the name of the results folder.
_NOT_IN_NAME = {
    *("name", "dataset.root", "results_dir", "overwrite", "on_error", "maps", "tracker", "cluster", "threads"),
    *("workers", "encoder.device", "encoder.chunk_size", "fail_fast", "shard"),
    *("features", "features.mode", "features.root", "features.max_gb"),
}
_LONGEST_NAME = 100
_QUOTES = "'\""


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

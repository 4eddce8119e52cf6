"""What a method's YAML says about itself, and whether a job's method is that of the YAML.

``conf/method/<preset>.yaml`` holds, besides the keys of the method, its card: ``version``, ``paper``, ``code``,
``citation`` and ``fidelity``. A row may call itself by the variant of a YAML only if it has all its keys; otherwise it
is ``modified``, with the keys that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from zsad_bench.config.compose import plain, preset_folders
from zsad_bench.config.schema import CONFIG_MODULE, METHOD_CARD
from zsad_bench.results.rows import EXAMPLE, MODIFIED, OWN, PARITY, RECONSTRUCTION

if TYPE_CHECKING:
    from zsad_bench.contract import Method

# Choices of an experiment, not of a variant: columns or other labels of a row tell them.
_FREE = ("k_shot", "allow_seen")


@dataclass(frozen=True)
class MethodCard:
    """Where a method comes from, and how that was proven.

    Attributes:
        version: raised when the method's numbers change; results of other versions are not kept.
        paper: authors' title, venue and address.
        code: repository and commit that it was proven against, or why there is none.
        citation: key of the BibTeX entry, or empty.
        level: ``parity``, ``reconstruction``, ``example`` or ``own``.
        evidence: for ``parity`` the test that proves it.
    """

    version: int = 1
    paper: str = ""
    code: str = ""
    citation: str = ""
    level: str = OWN
    evidence: str = ""

    @staticmethod
    def of(values: Mapping[str, object]) -> MethodCard:
        """The card in the keys of a YAML; what is missing there stays empty.

        Raises:
            ValueError: a version that is no whole number, or an unknown level.
        """
        fidelity = values.get("fidelity")
        stated = fidelity if isinstance(fidelity, Mapping) else {}
        level, version = str(stated.get("level", OWN)), values.get("version", 1)
        if level not in (PARITY, RECONSTRUCTION, EXAMPLE, OWN):
            raise ValueError(f"fidelity.level={level}: choose {PARITY}, {RECONSTRUCTION} or {EXAMPLE}")
        if not isinstance(version, int):
            raise ValueError(f"version={version}: must be a whole number")
        texts = {key: str(values.get(key) or "") for key in ("paper", "code", "citation")}
        return MethodCard(version=version, level=level, evidence=str(stated.get("evidence") or ""), **texts)


def _presets(folder: Traversable) -> dict[str, dict[str, object]]:
    """Every method YAML of a folder by its name, with what it takes from others of the folder."""
    if not folder.is_dir():
        return {}
    files = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    raw = {name: yaml.safe_load(entry.read_text("utf-8")) or {} for name, entry in files.items()}

    def resolved(name: str) -> DictConfig:
        values = dict(raw.get(name, {}))
        parents = [parent for parent in values.pop("defaults", []) if isinstance(parent, str) and parent != "_self_"]
        return cast(DictConfig, OmegaConf.merge(*map(resolved, parents), values))

    return {name: plain(resolved(name)) for name in sorted(raw)}


@cache
def bundled_presets() -> dict[str, dict[str, object]]:
    """The YAML files of ``conf/method`` by name, with all their keys."""
    return _presets(resources.files(CONFIG_MODULE) / "method")


def _known_presets() -> list[dict[str, object]]:
    """Bundled presets and those of the folders that ``--config-dir`` names."""
    found = list(bundled_presets().values())
    return found + [values for folder in preset_folders() for values in _presets(folder / "method").values()]


def presets_digest() -> str:
    """Hash of the files of all known presets: 16 hex digits."""
    digest = hashlib.sha256()
    for folder in (resources.files(CONFIG_MODULE), *preset_folders()):
        entries = folder / "method"
        for entry in sorted(entries.iterdir(), key=lambda entry: entry.name) if entries.is_dir() else ():
            digest.update(entry.name.encode() + b"\0")
            digest.update(entry.read_bytes() if entry.is_file() else b"")
    return digest.hexdigest()[:16]


def departures(values: Mapping[str, object], method: Method) -> dict[str, object]:
    """Keys of a job's method that differ from the YAML that has its name and variant, in the YAML's order.

    Where several YAML files share name and variant, the one with the fewest differences counts. A method of which no
    YAML is known departs from nothing.

    Args:
        values: the keys of the method as composed.
        method: the plugin, which knows which keys name files.
    """
    ignored = {*METHOD_CARD, *_FREE, *method.FILES}
    same_name = [preset for preset in _known_presets() if preset.get("name") == values.get("name")]
    same = [preset for preset in same_name if preset.get("variant") == values.get("variant")] or same_name
    settings = {key: value for key, value in values.items() if key not in ignored}
    found = [
        {key: value for key, value in settings.items() if key not in preset or preset[key] != value} for preset in same
    ]
    return min(found, key=len, default={})


def variant_text(variant: str, changed: Mapping[str, object]) -> str:
    """The variant of a row: that of the YAML, or ``modified (key=value, ...)``, which replaces ``paper``."""
    if not changed:
        return variant
    modified = f"{MODIFIED} ({', '.join(f'{key}={literal(value)}' for key, value in changed.items())})"
    return modified if variant == "paper" else f"{variant}, {modified}"


def literal(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {literal(item)}" for key, item in value.items()) + "}"
    return str(value)

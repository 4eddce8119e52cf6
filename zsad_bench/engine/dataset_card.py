"""What is known about each dataset: the YAML files in ``conf/dataset`` as values; no dataset is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import cast

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from zsad_bench.config.schema import CONFIG_MODULE
from zsad_bench.contract import Dataset
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import near_misses


@dataclass(frozen=True)
class Download:
    """An archive that may be fetched without registration."""

    url: str
    sha256: str
    file: str = ""  # name of the archive; "": the last part of the URL

    @property
    def file_name(self) -> str:
        """Name of the archive."""
        return self.file or self.url.rpartition("/")[2]


@dataclass(frozen=True)
class About:
    """The ``about`` key of a dataset: what documentation and ``zsad-bench data`` show. It changes no result."""

    kind: str = ""  # industrial, medical, demo, yours
    layout: str = ""  # what lies where below the root
    masks: str = ""  # what a mask file holds, and which rule makes a mask of it
    protocols: Mapping[str, str] | None = None  # variant -> what it means, the usual one first
    used_by: str = ""  # whose published numbers used it, in which setting
    hints: str = ""  # counts that are not certain enough to be checked
    tested: str = ""  # what the loader was tested on here
    obtain: str = ""  # how to get it where it cannot be fetched directly
    download: Mapping[str, str] | None = None
    aliases: tuple[str, ...] = ()  # names that converted copies give to categories


@dataclass(frozen=True)
class Card:
    """One dataset: its YAML without what only a loader needs."""

    key: str  # dataset=<key>
    name: str  # what result rows say
    target: str
    title: str
    page: str
    licence: str
    citation: str
    protocol: str
    mask_threshold: int
    class_names: Mapping[str, str]
    textures: frozenset[str]
    expected: Mapping[str, Mapping[str, int]]
    about: About

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of the published dataset, as far as the YAML names them."""
        return tuple(category for category in self.class_names if category not in self.about.aliases)

    @property
    def download(self) -> Download | None:
        """Where the archive can be fetched directly, None if it cannot."""
        return None if self.about.download is None else Download(**self.about.download)


@cache
def cards() -> dict[str, Card]:
    """Every dataset that has a YAML in ``conf/dataset``, by the name of that file, sorted."""
    folder = resources.files(CONFIG_MODULE) / "dataset"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): _card(name.removesuffix(".yaml")) for name in names}


def card(key: str) -> Card:
    """The card of ``dataset=<key>``. UserError naming the nearest valid one."""
    found = cards().get(key)
    if found is None:
        near = near_misses(key, cards())
        hint = f"did you mean {near[0]}?" if near else "'zsad-bench data list' names them"
        raise UserError(f"dataset={key}: no such dataset; {hint}")
    return found


def dataset_at(key: str, root: Path, **changes: object) -> Dataset:
    """The dataset that the YAML ``key`` describes, at a place on disk, with some keys changed.

    Raises:
        UserError: as the loader.
    """
    values: dict[str, object] = {**_values(key), "root": str(root), **changes}
    dataset = get_object(str(values.pop("_target_")))(**values)
    assert isinstance(dataset, Dataset)
    return dataset


@cache
def _values(key: str) -> dict[str, object]:
    """The YAML without its root."""
    text = (resources.files(CONFIG_MODULE) / "dataset" / f"{key}.yaml").read_text("utf-8")
    config = cast(DictConfig, OmegaConf.create(text))
    config.pop("defaults", None)
    del config["root"]
    return cast(dict[str, object], OmegaConf.to_container(config, resolve=True))


def _card(key: str) -> Card:
    values = _values(key)
    about = dict(cast(dict[str, object], values.get("about") or {}))
    known = {field.name for field in fields(About)}
    if unknown := about.keys() - known:
        raise UserError(f"conf/dataset/{key}.yaml: about has no key {', '.join(sorted(unknown))}")
    about["aliases"] = tuple(cast(list[str], about.get("aliases", [])))
    return Card(
        key=key,
        name=str(values["name"] or key),
        target=str(values["_target_"]),
        title=str(values["title"]),
        page=str(values.get("page", "")),
        licence=str(values.get("licence", "")),
        citation=str(values.get("citation", "")),
        protocol=str(values.get("protocol") or "standard"),
        mask_threshold=cast(int, values.get("mask_threshold") or 0),
        class_names=cast(dict[str, str], values.get("class_names") or {}),
        textures=frozenset(cast(list[str], values.get("textures") or [])),
        expected=cast(dict[str, dict[str, int]], values.get("expected") or {}),
        about=About(**about),  # type: ignore[arg-type]
    )

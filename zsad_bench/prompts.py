"""Prompt ensembles: state words x templates -> text embeddings of the normal and the abnormal state.

An ensemble is data (``conf/prompts/<name>.yaml``). A method names one; the engine writes the prompts for a category,
encodes them once and hands over the raw embeddings of every prompt.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from yaml import YAMLError

from zsad_bench.core.devices import synchronize
from zsad_bench.core.laps import Cost
from zsad_bench.environment import device_name
from zsad_bench.errors import UserError
from zsad_bench.files import atomic_path

AVERAGES = ("unit", "raw")
# The part of a cost that is the encoding of a list of prompts.
TEXT = "text"


@dataclass(frozen=True)
class PromptEnsemble:
    """State phrases put into templates.

    Attributes:
        name: file name in ``conf/prompts`` without the suffix.
        normal: phrases of the normal state; ``{}`` stands for the class name.
        abnormal: phrases of the abnormal state.
        templates: sentences; ``{}`` stands for the state phrase and ``{noun}``, if present, for a noun of ``nouns``.
        nouns: words for the picture by kind of category, keys ``object`` and ``texture``; empty without ``{noun}``.
        outer: which loop is the outer one when prompts are listed, ``state`` or ``template``.
        average: how the embeddings of one state become one vector: ``unit`` normalises each before the mean (CLIP's own
            prompt ensembling), ``raw`` takes the mean of the embeddings as they are. Both normalise the result.
        class_names: ``readable`` names ("metal nut") or ``folder`` names as they stand on disk (``metal_nut``).
        class_name_map: replacements that this ensemble makes in class names.
    """

    name: str
    normal: list[str]
    abnormal: list[str]
    templates: list[str]
    nouns: dict[str, list[str]] = field(default_factory=dict)
    outer: str = "state"
    average: str = "unit"
    class_names: str = "readable"
    class_name_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("normal", "abnormal", "templates"):
            lines = getattr(self, key)
            if not lines or any("{}" not in line for line in lines):
                raise UserError(f"prompts {self.name}: {key} must be a list of texts that each hold {{}}")
        for key, choices in (
            ("outer", ("state", "template")),
            ("average", AVERAGES),
            ("class_names", ("readable", "folder")),
        ):
            if getattr(self, key) not in choices:
                raise UserError(f"prompts {self.name}: {key}={getattr(self, key)}; choose {' or '.join(choices)}")

    def write(self, class_name: str, is_texture: bool = False) -> tuple[list[str], list[str]]:
        """All normal and all abnormal prompts of a class, in the order of the ensemble."""
        name = self.class_name_map.get(class_name, class_name)
        nouns = self.nouns.get("texture" if is_texture else "object", [""])
        templates = [_with_article(line.replace("{noun}", noun)) for noun in nouns for line in self.templates]

        def fill(states: list[str]) -> list[str]:
            phrases = [state.replace("{}", name) for state in states]
            if self.outer == "state":
                return [template.replace("{}", phrase) for phrase in phrases for template in templates]
            return [template.replace("{}", phrase) for template in templates for phrase in phrases]

        return fill(self.normal), fill(self.abnormal)


def _with_article(text: str) -> str:
    """``a industrial photo`` -> ``an industrial photo``."""
    return re.sub(r"\ba (?=industrial\b)", "an ", text)


def ensemble_names() -> list[str]:
    """Names of the bundled ensembles."""
    folder = resources.files("zsad_bench.conf") / "prompts"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_ensemble(name: str) -> PromptEnsemble:
    """An ensemble by its name in ``conf/prompts``, or by the path of a YAML file with the same keys.

    Raises:
        UserError: no such ensemble, unknown key, or a state or template without its placeholder.
    """
    if name.endswith((".yaml", ".yml")):
        source: Traversable = Path(name)
    elif name in ensemble_names():
        source = resources.files("zsad_bench.conf") / "prompts" / f"{name}.yaml"
    else:
        known = ", ".join(ensemble_names())
        raise UserError(f"method.prompts={name}: no such ensemble; choose from {known} or give a YAML file")
    try:
        written = OmegaConf.create(source.read_text("utf-8"))
        content = OmegaConf.merge(OmegaConf.structured(PromptEnsemble), {"name": name}, written)
        return cast(PromptEnsemble, OmegaConf.to_object(content))
    except OSError as error:
        raise UserError(f"method.prompts={name}: cannot be read ({error.strerror})") from None
    except OmegaConfBaseException as error:
        raise UserError(f"method.prompts={name}: {str(error).splitlines()[0]}") from None
    except YAMLError as error:
        raise UserError(f"method.prompts={name}: not valid YAML ({error})") from None


@dataclass(frozen=True)
class TextFeatures:
    """Text embeddings of one category.

    Attributes:
        class_name: the words that were put into the prompts.
        normal: (n_normal, D) embeddings as CLIP gives them, not normalised, in the ensemble's order.
        abnormal: (n_abnormal, D) likewise.
        average: the ensemble's rule, ``unit`` or ``raw``.
    """

    class_name: str
    normal: Tensor
    abnormal: Tensor
    average: str = "unit"

    @property
    def device(self) -> torch.device:
        """Where the embeddings lie, the encoder's device."""
        return self.normal.device

    def vectors(self, average: str | None = None) -> Tensor:
        """Unit vectors (2, D) of the normal (row 0) and the abnormal state (row 1); ``average`` overrides the rule."""
        rule = average or self.average
        if rule not in AVERAGES:
            raise UserError(f"method.prompt_average={rule}; choose {' or '.join(AVERAGES)}")
        groups = [F.normalize(group, dim=-1) if rule == "unit" else group for group in (self.normal, self.abnormal)]
        return F.normalize(torch.stack([group.mean(dim=0) for group in groups]), dim=-1)


class TextEncoder(Protocol):
    """What is needed of an encoder here."""

    def ready(self) -> None:
        """Do now what is done once and is not encoding."""

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Texts to embeddings (n, D)."""


class TextCache:
    """Text embeddings by content: a list of prompts is encoded once per encoder, and kept on disk if a folder is given.

    A list is always encoded as a whole, so its embeddings do not depend, not even in the last bits, on what else was
    encoded before.

    Args:
        encoder: encodes what is not known.
        device: where embeddings come out, whether they were encoded, kept in memory or read from disk; None leaves new
            ones where the encoder makes them.

    Attributes:
        folder: where embeddings are kept between runs; None keeps them in memory only.
        may_encode: False refuses to encode lists that are not known.
    """

    def __init__(self, encoder: TextEncoder, device: torch.device | None = None) -> None:
        self.folder: Path | None = None
        self.may_encode = True
        self._encoder = encoder
        self._device = device
        self._known: dict[str, tuple[Tensor, Cost | None]] = {}

    def knows(self, prompts: list[str]) -> bool:
        """Whether a list was encoded before, in this process or in one that kept it on disk."""
        return self._find(prompts, _key(prompts)) is not None

    def encode(self, prompts: list[str]) -> Tensor:
        """(n, D) embeddings in the order of the prompts.

        Raises:
            UserError: encoding is not allowed and the list is not known, or the folder cannot be written.
        """
        key = _key(prompts)
        found = self._find(prompts, key)
        if found is None:
            found = self._known[key] = self._encode(prompts, key)
        return found[0]

    def cost(self, prompts: list[str]) -> Cost | None:
        """What encoding a list took when it was done, wherever that was; None if it was not timed or is not known."""
        found = self._find(prompts, _key(prompts))
        return None if found is None else found[1]

    def _find(self, prompts: list[str], key: str) -> tuple[Tensor, Cost | None] | None:
        if key not in self._known and self.folder is not None:
            stored = _read_embeddings(self.folder / f"{key}.safetensors", len(prompts))
            if stored is not None:
                self._known[key] = self._placed(stored[0]), stored[1]
        return self._known.get(key)

    def _placed(self, embeddings: Tensor) -> Tensor:
        return embeddings if self._device is None else embeddings.to(self._device)

    def _encode(self, prompts: list[str], key: str) -> tuple[Tensor, Cost]:
        if not self.may_encode:
            raise UserError("overwrite=cached: text embeddings are not stored; run without it to encode them")
        self._encoder.ready()
        device = self._device or torch.device("cpu")
        distinct = list(dict.fromkeys(prompts))
        start = time.perf_counter()
        vectors = dict(zip(distinct, self._encoder.encode_text(distinct), strict=True))
        embeddings = torch.stack([vectors[prompt] for prompt in prompts])
        synchronize(device)
        cost = Cost({TEXT: time.perf_counter() - start}, device_name(device))
        if self.folder is not None:
            with atomic_path(self.folder / f"{key}.safetensors") as path:
                save_file({"embeddings": embeddings.cpu().contiguous()}, path, cost.to_metadata())
        return self._placed(embeddings), cost

    def features(self, ensemble: PromptEnsemble, class_name: str, is_texture: bool = False) -> TextFeatures:
        """Text features of a class."""
        normal, abnormal = ensemble.write(class_name, is_texture)
        embeddings = self.encode(normal + abnormal)
        return TextFeatures(class_name, embeddings[: len(normal)], embeddings[len(normal) :], ensemble.average)


def _key(prompts: list[str]) -> str:
    return hashlib.sha256("\0".join(prompts).encode()).hexdigest()


def _read_embeddings(path: Path, count: int) -> tuple[Tensor, Cost | None] | None:
    """Stored embeddings (count, D) with what they took, or None if there are none that can be used."""
    try:
        with safe_open(path, framework="pt") as file:
            embeddings, cost = file.get_tensor("embeddings"), Cost.from_metadata(file.metadata() or {})
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
    return (embeddings, cost) if len(embeddings) == count else None

"""Prompt ensembles: state words x templates -> text embeddings of the normal and the abnormal state.

An ensemble is data (``conf/prompts/<name>.yaml``). A method names one; the engine writes the prompts for a category,
encodes them once and hands over the raw embeddings of every prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zsad_bench.contract.averages import AVERAGES
from zsad_bench.core.errors import UserError


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
        return cast(PromptEnsemble, OmegaConf.to_object(_parsed(name, source.read_text("utf-8"))))
    except OSError as error:
        raise UserError(f"method.prompts={name}: cannot be read ({error.strerror})") from None
    except OmegaConfBaseException as error:
        raise UserError(f"method.prompts={name}: {str(error).splitlines()[0]}") from None
    except YAMLError as error:
        raise UserError(f"method.prompts={name}: not valid YAML ({error})") from None


@lru_cache(maxsize=16)
def _parsed(name: str, text: str) -> DictConfig:
    """What a file says; every job asks several times, for its identity and for its prompts."""
    content = OmegaConf.merge(OmegaConf.structured(PromptEnsemble), {"name": name}, OmegaConf.create(text))
    return cast(DictConfig, content)

"""Checkpoints: trained parameters with their provenance, and the guard against testing on training data.

A checkpoint is a safetensors file; its metadata say on which images of which dataset, with which encoder and with which
settings it was trained. It holds no date and no path, so the same training gives the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad_bench.contract import EncoderSpec, Facts
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import atomic_path

FORMAT = "zsad-bench checkpoint 1"
# One metadata entry: safetensors writes several in an order of its own, and equal trainings would give unequal files.
METADATA_KEY = "zsad_bench"


def encoder_facts(spec: EncoderSpec) -> Facts:
    """The encoder that a checkpoint belongs to. The image size is free: parameters act on tokens."""
    names = ("name", "weights", "n_blocks", "width", "embed_dim")
    return {f"encoder.{key}": str(getattr(spec, key)) for key in names}


def image_mark(image_id: str) -> str:
    """12 hex digits that stand for an image in a checkpoint's list of training images."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Checkpoint:
    """Trained tensors and where they come from.

    Attributes:
        tensors: parameters by name.
        facts: provenance, all as text: ``dataset``, ``categories``, ``encoder.name``, ``epochs``, ``seed`` ...
    """

    tensors: dict[str, Tensor]
    facts: Facts

    def save(self, path: Path) -> None:
        """Write it atomically; raises UserError if the folder cannot be written."""
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tensors.items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {METADATA_KEY: json.dumps({"format": FORMAT, **self.facts}, sort_keys=True)})

    @staticmethod
    def load(path: Path, expected: Facts | None = None) -> Checkpoint:
        """Read a checkpoint.

        Args:
            path: a file that the training program wrote.
            expected: facts it must have.

        Raises:
            UserError: no such file, another kind of file, or a fact that differs.
        """
        facts, tensors = _read(path, with_tensors=True)
        for key, value in (expected or {}).items():
            if facts.get(key) != value:
                raise UserError(
                    f"method.checkpoint={path}: it was trained with {key}={facts.get(key)} and this run has "
                    f"{key}={value}; change that, or train another with python -m zsad_bench.train"
                )
        return Checkpoint(tensors, facts)

    @staticmethod
    def read_facts(path: Path) -> Facts:
        """The facts alone; raises UserError as :meth:`load` does for what is not a checkpoint."""
        return _read(path, with_tensors=False)[0]

    def refuse_seen(self, image_ids: Iterable[str]) -> None:
        """Raise UserError if one of the images was trained on, by its name in the dataset."""
        marks = set(self.facts.get("images", "").split())
        seen = next((image_id for image_id in image_ids if image_mark(image_id) in marks), None)
        if seen is not None:
            raise UserError(
                f"method.checkpoint: it was trained on {seen} (dataset {self.facts.get('dataset')}); results on "
                "training images say nothing. Evaluate on another dataset, or set method.allow_seen=true"
            )


def _read(path: Path, with_tensors: bool) -> tuple[Facts, dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"method.checkpoint={path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            facts: Facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()} if with_tensors else {}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"method.checkpoint={path}: not a readable safetensors file ({error})") from None
    if facts.pop("format", None) != FORMAT:
        raise UserError(
            f"method.checkpoint={path}: not a checkpoint of this program; make one with python -m zsad_bench.train"
        )
    return facts, tensors


def training_label(facts: Facts, dataset: str, categories: Iterable[str], allow_seen: bool) -> str:
    """How a row must be labelled whose dataset the checkpoint was trained on; empty for another dataset.

    Args:
        facts: of the checkpoint.
        dataset: the name that rows give to the dataset to be tested on.
        categories: those to be tested on.
        allow_seen: label training categories instead of refusing them.

    Raises:
        UserError: a category that was trained on, in any split, unless ``allow_seen``.
    """
    if facts.get("dataset") != dataset:
        return ""
    seen = sorted(set(facts.get("categories", "").split()) & set(categories))
    if not seen:
        return f"trained on other categories of {dataset}"
    if not allow_seen:
        raise UserError(
            f"method.checkpoint: it was trained on the {facts.get('split', 'test')} split of this dataset "
            f"({dataset}: {', '.join(seen)}), and results there are not zero-shot; evaluate on another dataset, or set "
            "method.allow_seen=true to get rows that say so"
        )
    return f"trained on {dataset}"

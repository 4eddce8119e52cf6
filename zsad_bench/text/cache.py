"""Text embeddings by content, kept in memory and on disk."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad_bench.contract import TextFeatures
from zsad_bench.core.devices import synchronize
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import atomic_path
from zsad_bench.core.laps import Cost
from zsad_bench.core.machine import device_name
from zsad_bench.text.ensembles import PromptEnsemble

# The part of a cost that is the encoding of a list of prompts.
TEXT = "text"


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

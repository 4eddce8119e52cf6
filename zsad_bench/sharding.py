"""One job on many machines: ``shard=3/16`` does the third of sixteen parts, and whoever is last puts them together.

By category, a shard evaluates every sixteenth category. By image, it predicts a run of consecutive batches of every
category and leaves scores and maps in a file; once all sixteen are there, the metrics are computed from all of them.
Batches are the same as in one run, so the numbers are too.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from zsad_bench.errors import UserError
from zsad_bench.files import atomic_path
from zsad_bench.method import Prediction
from zsad_bench.stacks import ReadOnDemand, Stack, load_stack, save_arrays


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A shard from ``3/16``. Raises UserError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"shard={text}: write it as part/parts, from 1/16 to 16/16 for sixteen parts")
        return cls(int(match[1]), int(match[2]))

    def categories(self, names: Sequence[str]) -> list[str]:
        """Its share of the categories."""
        return list(names[self.index - 1 :: self.count])

    def batches(self, n_batches: int) -> range:
        """Its run of consecutive batches, by number; empty if there are more shards than batches."""
        return range(n_batches * (self.index - 1) // self.count, n_batches * self.index // self.count)

    @property
    def name(self) -> str:
        """For file names."""
        return f"{self.index:04}-of-{self.count:04}"


@dataclass(frozen=True)
class Predicted:
    """Predictions of some batches of a category.

    Attributes:
        image_ids: of the predicted images, in the order of the batches.
        scores: (n,) of the predicted images.
        maps: n maps (H, W).
        sizes: images of each batch that had a readable one.
        numbers: of these batches.
        unreadable: what was wrong with each image that was left out.
        seconds: per stage.
    """

    image_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    maps: Stack[np.float32]
    sizes: tuple[int, ...]
    numbers: tuple[int, ...]
    unreadable: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def predictions(self) -> Predictions:
        """The predictions of each batch, on the CPU."""
        return Predictions(self)

    @classmethod
    def join(cls, parts: Sequence[Predicted], folder: Path | None = None) -> Predicted:
        """Consecutive parts as one; its maps go to ``folder`` if they are too many for memory."""
        stages = {stage for part in parts for stage in part.seconds}
        return cls(
            tuple(name for part in parts for name in part.image_ids),
            np.concatenate([part.scores for part in parts]),
            Stack.of((anomaly_map for part in parts for anomaly_map in part.maps), np.float32, folder),
            tuple(size for part in parts for size in part.sizes),
            tuple(number for part in parts for number in part.numbers),
            tuple(message for part in parts for message in part.unreadable),
            {stage: sum(part.seconds.get(stage, 0.0) for part in parts) for stage in sorted(stages)},
        )


class Predictions(ReadOnDemand[Prediction]):
    """One prediction a batch."""

    def __init__(self, predicted: Predicted) -> None:
        self._predicted = predicted
        self._ends = np.cumsum(predicted.sizes).tolist()

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, position: int) -> Prediction:
        """The prediction of one batch."""
        stop = self._ends[position]
        batch = slice(stop - self._predicted.sizes[position], stop)
        maps = np.stack(self._predicted.maps[batch])
        return Prediction(torch.from_numpy(self._predicted.scores[batch]), torch.from_numpy(maps))


class Parts:
    """The files that the shards of one category leave behind until the last one is there.

    Args:
        folder: of the category's parts.
        count: how many shards there are.
        fingerprint: of the category's files; parts of other files do not count.
    """

    def __init__(self, folder: Path, count: int, fingerprint: str) -> None:
        self.folder, self.count, self.fingerprint = folder, count, fingerprint

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.name}.npz"

    def save(self, shard: Shard, part: Predicted) -> None:
        """Write a shard's predictions: scores (n,) and maps (n, H, W), both float32."""
        facts = {
            "fingerprint": self.fingerprint,
            "image_ids": part.image_ids,
            "sizes": part.sizes,
            "numbers": part.numbers,
            "unreadable": part.unreadable,
            "seconds": part.seconds,
        }
        with atomic_path(self._path(shard)) as path, path.open("wb") as file:
            save_arrays(file, {"facts": np.array(json.dumps(facts)), "scores": part.scores}, {"maps": part.maps})

    def load(self, shard: Shard) -> Predicted | None:
        """A shard's predictions, or None if they are missing, damaged or of other files."""
        try:
            with np.load(self._path(shard)) as content:
                facts = json.loads(str(content["facts"]))
                if facts["fingerprint"] != self.fingerprint:
                    return None
                scores = content["scores"]
            maps = load_stack(self._path(shard), "maps", np.float32, self.folder)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return Predicted(
            tuple(facts["image_ids"]),
            scores,
            maps,
            tuple(facts["sizes"]),
            tuple(facts["numbers"]),
            tuple(facts["unreadable"]),
            facts["seconds"],
        )

    def load_all(self) -> Predicted | None:
        """The whole category, or None as long as a shard is missing."""
        shards = [Shard(index, self.count) for index in range(1, self.count + 1)]
        if not all(self._path(shard).exists() for shard in shards):
            return None
        parts = [part for shard in shards if (part := self.load(shard)) is not None]
        return Predicted.join(parts, self.folder) if len(parts) == self.count else None

    def clear(self) -> None:
        """Delete the files: the category is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one process at a time puts parts together."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.with_suffix(".lock")):
            yield
        self.folder.with_suffix(".lock").unlink(missing_ok=True)

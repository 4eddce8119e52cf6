"""Predictions of a category batch after batch, as methods that adjust them afterwards see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zsad_bench.contract import Prediction, Sample
from zsad_bench.core.spooled import ReadOnDemand, Stack
from zsad_bench.engine.batches import Batch


@dataclass(frozen=True)
class Predicted:
    """Predictions of the batches of a category, without second predictions of images that filled a batch."""

    batches: list[Batch]
    scores: NDArray[np.float32]
    maps: Stack[np.float32]

    @property
    def samples(self) -> list[Sample]:
        """The images in the order of scores and maps."""
        return [sample for batch in self.batches for sample in batch.new]


class Predictions(ReadOnDemand[Prediction]):
    """One prediction a batch, on the CPU; its maps may lie on disk."""

    def __init__(self, predicted: Predicted) -> None:
        self._predicted = predicted
        self._ends = np.cumsum([batch.n_new for batch in predicted.batches]).tolist()

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, position: int) -> Prediction:
        """The prediction of one batch."""
        stop = self._ends[position]
        batch = slice(stop - self._predicted.batches[position].n_new, stop)
        maps = np.stack(self._predicted.maps[batch])
        return Prediction(torch.from_numpy(self._predicted.scores[batch]), torch.from_numpy(maps))

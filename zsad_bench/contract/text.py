"""Text embeddings as a method gets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract.averages import AVERAGES
from zsad_bench.core.errors import UserError


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

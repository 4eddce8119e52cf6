"""The contract of a method plugin: features of one batch in, image scores and anomaly maps out.

Where things lie. Whatever a method is given lies on the encoder's device: features (encoded now or stored before),
text embeddings, references, pixels, and the masks of a training. Whatever it makes is made there (``x.new_zeros``,
``torch.zeros(..., device=batch.device)``), in float32 or lower, because Apple's GPUs have no float64. Scores and maps
leave the device once, in the engine, so :meth:`Method.predict` reads no value back: no ``.item()``, ``.tolist()``,
``.numpy()``, ``.cpu()``, ``float(x)`` or ``if x > y`` of a tensor. What the host decides (an order, a choice, a size)
it draws from :meth:`Method.random`; random tensors are drawn on the CPU and moved (:mod:`zsad_bench.toolkit.draws`), so
that results do not depend on the device. :meth:`Method.prepare`, which runs once a category, may go to the host for a
library that knows no devices, but what it keeps lies on the device again.

Features are made in inference mode, and autograd takes no such tensors. A method that fits something to them does so
under ``torch.inference_mode(False), torch.enable_grad()`` on a ``clone()`` made there; text that enters the loss is
prepared under ``torch.inference_mode(False)`` too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from zsad_bench.contract.encoder_spec import EncoderSpec
from zsad_bench.contract.features import FeatureBatch, FeatureRequest
from zsad_bench.contract.keys import check_keys
from zsad_bench.contract.text import TextFeatures
from zsad_bench.core.seeds import named_seed

Setting = Literal["single", "batch", "transductive", "few_shot", "auxiliary"]


@dataclass(frozen=True)
class Prediction:
    """Result of one batch, on the device of its features until the engine takes it.

    Attributes:
        scores: (B,) float32, larger is more anomalous.
        maps: (B, H, W) float32 at the encoder's input size, larger is more anomalous.
    """

    scores: Tensor
    maps: Tensor

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.maps.ndim != 3 or len(self.scores) != len(self.maps):
            raise ValueError(
                f"Prediction needs (B,) scores and (B, H, W) maps, got {self.scores.shape} and {self.maps.shape}"
            )


@dataclass(kw_only=True, eq=False)
class Method(ABC):
    """Base class of all methods. A method owns no encoder, data loader, metric or file.

    The engine calls, in this order: the constructor with the keys of the method's YAML; :meth:`attach` once with the
    encoder's dimensions; :meth:`request`; for each category :meth:`prepare` and then :meth:`predict` for every batch;
    :meth:`finalize` once all batches of the category are predicted.

    A method that is a dataclass too, ``@dataclass(kw_only=True, eq=False)``, declares its keys as fields, once:
    :mod:`zsad_bench.contract.keys` checks their types and constraints. One with an ``__init__`` of its own hands the
    keys of this class on to ``super().__init__`` and checks the others itself.

    Attributes:
        setting: what the method sees. ``single``: one image; ``batch``: the images of its batch; ``transductive``: the
            whole test set; ``few_shot``: normal reference images; ``auxiliary``: it was trained on other data.
        FILES: keys of the YAML that name files. They count by their content, not by their name, when it is decided
            whether a finished result may be kept, and they do not make a row a modified variant.
        name: what rows and tables call the method.
        variant: which form of the method it is, for rows and tables.
        prompts: name of the prompt ensemble, or None for methods without text.
        reference_quirks: reproduce what is peculiar to the reference code rather than meant by the paper.
        k_shot: normal reference images per category that the method wants; above 0 only in setting ``few_shot``.
        encoder: dimensions of the encoder, set by :meth:`attach`.
        seed: the job's seed, set by :meth:`attach`.
    """

    setting: ClassVar[Setting]
    FILES: ClassVar[tuple[str, ...]] = ()
    name: str
    variant: str = "paper"
    prompts: str | None = None
    reference_quirks: bool = False
    k_shot: int = field(default=0, init=False)
    encoder: EncoderSpec = field(init=False, repr=False)
    seed: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the declared keys; override to check what several keys must keep together.

        Raises:
            UserError: a value has the wrong type or breaks a constraint.
        """
        check_keys(self)

    def attach(self, encoder: EncoderSpec, seed: int = 0) -> None:
        """Take note of the encoder's dimensions and the job's seed; override to check that the settings fit."""
        self.encoder = encoder
        self.seed = seed

    def variant_on(self, dataset: str, categories: Sequence[str]) -> str:
        """The ``variant`` of rows on a dataset; override to label or refuse data that was trained on.

        Args:
            dataset: the name that rows give to it.
            categories: those to be evaluated.
        """
        return self.variant

    def generator(self, *names: str) -> torch.Generator:
        """Random tensors for an image (or a group of images), whatever was computed before it.

        It is a generator of the CPU on every device; :mod:`zsad_bench.toolkit.draws` moves what it draws.

        Args:
            *names: image ids; the same names and job seed give the same numbers.
        """
        return torch.Generator().manual_seed(named_seed(self.seed, *names))

    def random(self, *names: str) -> np.random.Generator:
        """Random decisions of the host for an image (or a group of images): an order, a choice, a size.

        Args:
            *names: as in :meth:`generator`.
        """
        return np.random.default_rng(named_seed(self.seed, *names))

    @abstractmethod
    def request(self) -> FeatureRequest:
        """Features that :meth:`predict` needs."""

    def prepare(self, text: TextFeatures | None) -> None:
        """Start a category: take its text features, None if ``prompts`` is None, and forget the category before.

        Here it hands the text on to :meth:`take_text`, which is enough for a method that keeps nothing else.
        """
        if text is not None:
            self.take_text(text)

    def take_text(self, text: TextFeatures) -> None:
        """Text features of the category; for methods with ``prompts`` only."""
        raise TypeError(f"{type(self).__name__} has prompts={self.prompts} but does not take text")

    def take_references(self, references: FeatureBatch) -> None:
        """Features of ``k_shot`` normal training images of the category, after :meth:`prepare`; few-shot only."""
        raise TypeError(f"{type(self).__name__} asks for k_shot references but does not take them")

    @abstractmethod
    def predict(self, batch: FeatureBatch) -> Prediction:
        """Scores and maps of the images of one batch."""

    def finalize(self, predictions: Sequence[Prediction]) -> Iterable[Prediction]:
        """Adjust the predictions of a whole category; only methods of setting ``transductive`` may use this.

        The engine gives them after they left the device, so they lie on the CPU; compute wherever they are.

        Maps may lie on disk: each prediction is read whenever it is asked for, so go through them one by one, and give
        the new ones one by one (a generator) to keep the memory independent of the number of images.
        """
        return predictions

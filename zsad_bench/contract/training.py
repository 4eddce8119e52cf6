"""The contract of methods with parameters that the training program learns."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from zsad_bench.contract.encoder_spec import EncoderSpec
from zsad_bench.contract.features import FeatureBatch, FeatureRequest
from zsad_bench.contract.method import Method
from zsad_bench.contract.text import TextFeatures


class TrainableMethod(Method):
    """A method with parameters that the training program learns and a ``checkpoint`` key brings back."""

    FILES: ClassVar[tuple[str, ...]] = ("checkpoint",)

    @abstractmethod
    def begin_training(self, encoder: EncoderSpec, seed: int) -> nn.Module:
        """Stand in for :meth:`attach`: make fresh parameters, drawn from ``seed``, and return them."""

    @abstractmethod
    def training_request(self) -> FeatureRequest:
        """Features that :meth:`training_loss` needs."""

    @abstractmethod
    def text_vectors(self, text: TextFeatures) -> Tensor:
        """Text vectors (2, D) of a category."""

    @abstractmethod
    def training_loss(self, batch: FeatureBatch, text: Tensor, masks: Tensor) -> Tensor:
        """Loss of a batch, a scalar with gradients.

        Args:
            batch: features of :meth:`training_request`; images may be of several categories.
            text: (B, 2, D) text vectors of each image's category, on the batch's device.
            masks: (B, H, W) float, 1 where anomalous, on the batch's device.
        """

    @abstractmethod
    def must_match(self) -> Facts:
        """What a checkpoint and the method that loads it must have in common, besides the encoder."""

    @abstractmethod
    def training_settings(self) -> Facts:
        """Further settings of the method that enter the loss, for the record."""


Facts = dict[str, str]

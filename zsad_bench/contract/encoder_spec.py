"""Dimensions of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class EncoderSpec:
    """What a method may know of the encoder.

    Attributes:
        name: open_clip model name, or the stem of the config file.
        weights: label of the weights.
        n_blocks: blocks of the image tower.
        width: channels of unprojected tokens.
        embed_dim: channels of projected tokens and text embeddings.
        patch_size: pixels per patch side.
        image_size: side of the square input in pixels.
        grid: patches (h, w).
        precision: ``fp32``, ``bf16`` or ``fp16``: features are no more exact, so a method may compute in it.
    """

    name: str
    weights: str
    n_blocks: int
    width: int
    embed_dim: int
    patch_size: int
    image_size: int
    grid: tuple[int, int]
    precision: str = "fp32"

    @property
    def factors(self) -> torch.dtype:
        """Type that products of patch tokens may have their factors in: bfloat16 where the tokens are no more exact."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

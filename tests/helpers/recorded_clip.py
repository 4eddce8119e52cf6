"""The small CLIP whose outputs the public reference codes recorded, and the images that it saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zsad_bench import load_encoder
from zsad_bench.encoder.clip import ClipEncoder


def recorded_encoder(folder: Path, device: str = "cpu") -> ClipEncoder:
    """The encoder of a set of recordings (``recordings.plain_files``)."""
    return load_encoder(str(folder / "tiny_clip.json"), str(folder / "tiny_clip.safetensors"), device=device)


def recorded_images(folder: Path) -> torch.Tensor:
    """Its normalised images (N, 3, H, W)."""
    return torch.from_numpy(np.load(folder / "inputs.npz")["images"])

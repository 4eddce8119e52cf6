"""The model of the tests: a random ViT of 4 blocks on 6 x 6 patches, as a path and on the command line."""

from __future__ import annotations

from pathlib import Path

TINY_MODEL = Path(__file__).parents[1] / "files" / "tiny_clip.json"
TINY_ENCODER = (f"encoder.model={TINY_MODEL}", "encoder.pretrained=null", "encoder.device=cpu")

"""From a PIL image to the encoder's input, and from a mask to the size of the anomaly map, by one geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsad_bench.data.images import in_rgb


@dataclass(frozen=True)
class Geometry:
    """How an image becomes a square of ``size`` pixels.

    Attributes:
        size: side of the square in pixels.
        resize: ``squash`` scales both sides to ``size`` (what the reference codes do); ``shortest`` scales the shorter
            side to ``size``, keeps the aspect ratio and cuts the centre out (open_clip's own transform).
    """

    size: int
    resize: str = "squash"

    def apply(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Resize (and cut) an image; PIL filters antialias when they shrink."""
        if self.resize == "squash":
            return image.resize((self.size, self.size), resample)
        width, height = image.size
        scale = self.size / min(width, height)
        scaled = image.resize((max(self.size, round(width * scale)), max(self.size, round(height * scale))), resample)
        left, top = (scaled.width - self.size) // 2, (scaled.height - self.size) // 2
        return scaled.crop((left, top, left + self.size, top + self.size))


def image_to_array(image: Image.Image, geometry: Geometry) -> NDArray[np.uint8]:
    """Resized RGB pixels (size, size, 3), bicubic with antialiasing."""
    return np.asarray(geometry.apply(in_rgb(image), Image.Resampling.BICUBIC))


def mask_to_array(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Ground-truth mask at the map's size: bilinear (antialiased) on 0/1, then ``> 0.5``.

    The mask was binarised on its original size before. This is the rule of the CLIP papers' codes.
    """
    if not mask.any():
        return np.zeros((geometry.size, geometry.size), dtype=bool)
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(geometry.apply(image, Image.Resampling.BILINEAR)) > 127

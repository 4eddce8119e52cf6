"""The canvas to paint on: coordinates in a random pose, bevel shading, soft shadows, coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from .fields import Field, slope_shading

Colour = tuple[float, float, float] | Field


@dataclass(frozen=True)
class Pose:
    """Where the object stands (image coordinates run over [-1, 1]) and where the light comes from."""

    angle: float
    zoom: float
    shift: tuple[float, float]
    light: tuple[float, float, float]

    @classmethod
    def random(cls, rng: Generator, spin: float, spread: float = 0.08) -> Pose:
        """A pose turned by at most `spin` radians either way and moved by at most `spread`."""
        azimuth, tilt = rng.uniform(-2.9, -0.2), rng.uniform(0.35, 0.6)
        light = (float(np.cos(azimuth) * tilt), float(np.sin(azimuth) * tilt), float(np.sqrt(1 - tilt * tilt)))
        return cls(
            angle=rng.uniform(-spin, spin),
            zoom=rng.uniform(0.92, 1.08),
            shift=(rng.uniform(-spread, spread), rng.uniform(-spread, spread)),
            light=light,
        )


class Canvas:
    """RGB image in [0, 1] with the coverage of the object and the bare background behind it.

    Attributes: x, y image coordinates; u, v object coordinates; pixel = side of a pixel in object units; image and
    background (size, size, 3); alpha (size, size) in [0, 1].
    """

    def __init__(self, size: int, pose: Pose) -> None:
        step = 2.0 / size
        axis = (np.arange(size) + 0.5) * step - 1.0
        self.size, self.pose = size, pose
        self.x, self.y = np.meshgrid(axis, axis)
        dx, dy = self.x - pose.shift[0], self.y - pose.shift[1]
        c, s = float(np.cos(pose.angle)), float(np.sin(pose.angle))
        self.u, self.v = (c * dx + s * dy) / pose.zoom, (c * dy - s * dx) / pose.zoom
        self.pixel = step / pose.zoom
        self.image = np.full((size, size, 3), 0.5)
        self.background = self.image.copy()
        self.alpha = np.zeros((size, size))

    def fill(self, colour: ArrayLike, relief: Field | None = None, gloss: float = 0.0) -> None:
        """Cover everything with a texture: `colour` (3,) or (size, size, 3), shaded by a relief in object units."""
        surface = np.broadcast_to(np.asarray(colour, dtype=np.float64), self.image.shape)
        if relief is not None:
            lambert, glance = slope_shading(relief, self.pose.light, self.pixel)
            surface = surface * lambert[..., None] + gloss * (glance**24)[..., None]
        self.image = np.clip(surface, 0.0, 1.0)
        self.alpha = np.ones_like(self.alpha)

    def set_background(self, image: Field) -> None:
        """The plate (size, size, 3) the object lies on; it shows again where a part of the object is missing."""
        self.image = np.clip(image, 0.0, 1.0)
        self.background = self.image.copy()

    def shadow(self, sdf: Field, strength: float = 0.45, reach: float = 0.1) -> None:
        """Darken what lies beside a shape, away from the light; the shape itself is painted afterwards."""
        lx, ly, _ = self.pose.light
        move = reach * self.size / 4
        dx, dy = round(-lx * move * 2), round(-ly * move * 2)
        padded = np.pad(sdf, max(abs(dx), abs(dy), 1), mode="edge")
        margin = max(abs(dx), abs(dy), 1)
        moved = padded[margin - dy : margin - dy + self.size, margin - dx : margin - dx + self.size]
        dark = np.clip(0.5 - moved / (2 * reach), 0.0, 1.0)
        self.image = self.image * (1 - strength * dark)[..., None]
        self.background = self.background * (1 - 0.3 * strength * dark)[..., None]

    def paint(
        self,
        sdf: Field,
        colour: ArrayLike,
        *,
        bevel: float = 0.0,
        gloss: float = 0.0,
        relief: Field | None = None,
        form: Field | None = None,
        opacity: float = 1.0,
        carve: bool = False,
    ) -> None:
        """Paint the inside of `sdf` with a rounded edge of width `bevel` (object units).

        `form` is the distance that shapes the rounded edge where it is not `sdf` itself. `carve` shades the edge as a
        recess and keeps the coverage; an ordinary part adds to the coverage.
        """
        window = self._window(sdf)
        if window is None:
            return
        sdf = sdf[window]
        form = sdf if form is None else form[window]
        cover = np.clip(0.5 - sdf / self.pixel, 0.0, 1.0) * opacity
        surface = np.broadcast_to(np.asarray(colour, dtype=np.float64), self.image.shape)[window]
        height = None if relief is None else relief[window]
        if bevel:
            t = np.clip(1 + form / bevel, 0.0, 1.0)
            edge = bevel * np.sqrt(1 - t * t)
            edge = -edge if carve else edge
            height = edge if height is None else height + edge
        if height is not None:
            lambert, glance = slope_shading(height, self.pose.light, self.pixel)
            surface = surface * lambert[..., None] + (gloss * glance**20)[..., None]
        self.image[window] += cover[..., None] * (np.clip(surface, 0.0, 1.0) - self.image[window])
        if not carve:
            self.alpha[window] = np.maximum(self.alpha[window], cover)

    def _window(self, sdf: Field) -> tuple[slice, slice] | None:
        """The rows and columns a shape touches, with a margin for its slopes: small parts are painted quickly."""
        spans = []
        for axis in (1, 0):
            touched = np.flatnonzero(sdf.min(axis=axis) < self.pixel)
            if not len(touched):
                return None
            spans.append(slice(max(0, int(touched[0]) - 2), int(touched[-1]) + 3))
        return spans[0], spans[1]

    def pierce(self, sdf: Field) -> None:
        """Cut a hole through which the background is seen, dark at the rim that shades it."""
        cover = np.clip(0.5 - sdf / self.pixel, 0.0, 1.0)
        depth = np.clip(0.55 - sdf / 0.25, 0.55, 1.0)
        self.image += cover[..., None] * (self.background * depth[..., None] - self.image)
        self.alpha = self.alpha * (1 - cover)


def hsv(hue: float, saturation: float, value: float) -> Field:
    """RGB (3,) of a hue (a turn = 1), saturation and value in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0.0, 1.0)


def random_colour(rng: Generator, value: tuple[float, float] = (0.3, 0.9), saturation: float = 0.7) -> Field:
    """A random RGB colour (3,) with a value in the given range and at most the given saturation."""
    return hsv(rng.random(), saturation * rng.random(), rng.uniform(*value))


def metal(rng: Generator) -> Field:
    """A greyish, steel, brass or copper colour (3,)."""
    tone = rng.integers(4)
    value = rng.uniform(0.5, 0.8)
    if tone < 2:
        return hsv(0.6, rng.uniform(0.0, 0.12), value)
    return hsv(rng.uniform(0.05, 0.13), rng.uniform(0.25, 0.5), value)


def blend(low: ArrayLike, high: ArrayLike, t: Field) -> Field:
    """Colours (size, size, 3) between two colours by the weight `t` in [0, 1]."""
    weight = np.clip(t, 0.0, 1.0)[..., None]
    a, b = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    return a + weight * (b - a)

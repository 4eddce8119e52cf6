"""Defect painters. Each changes a scene near one place; the mask is measured afterwards from what really changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.random import Generator

from .canvas import random_colour
from .fields import Field, fractal, noise, slope_shading, smoothstep
from .shapes import PI, box, ring, segment, turn


@dataclass(frozen=True)
class Site:
    """A scene and the place of a defect.

    image, background (size, size, 3) in [0, 1]; alpha (size, size) coverage; x, y coordinates relative to the defect
    centre in image units (the image is 2 wide); edge = a point of the object's rim in the same coordinates; scale in
    [0, 1] runs from the tiniest to the largest defect.
    """

    image: Field
    background: Field
    alpha: Field
    x: Field
    y: Field
    edge: tuple[float, float]
    light: tuple[float, float, float]
    scale: float

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return int(self.alpha.shape[0])

    def radius(self, low: float, high: float) -> float:
        """A length between `low` and `high` (image units), geometric in the scale."""
        return float(low * (high / low) ** self.scale)

    def mix(self, colour: Field, weight: Field, *, spill: bool = False) -> Field:
        """Blend a colour (3,) or (size, size, 3) over the image; only on the object unless it may spill."""
        cover = np.clip(weight if spill else weight * self.alpha, 0.0, 1.0)
        return self.image + cover[..., None] * (colour - self.image)

    def local_colour(self) -> Field:
        """Mean colour (3,) round the place."""
        near = np.exp(-(self.x**2 + self.y**2) / 0.02) * (self.alpha + 1e-6)
        return np.asarray((self.image * near[..., None]).sum((0, 1)) / near.sum())


def _blob(site: Site, rng: Generator, radius: float, rough: float = 0.22) -> Field:
    """Signed distance of an irregular, possibly elongated patch."""
    u, v = turn(site.x, site.y, rng.uniform(0, PI))
    aspect = rng.uniform(0.65, 1.0)
    angle = np.arctan2(v, u)
    rim = sum(rng.normal(0, rough / k) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5))
    fine = 0.12 * noise(rng, site.size, 28)
    return np.asarray(np.sqrt(u * u + (v / aspect) ** 2) - radius * np.clip(1 + rim + fine, 0.4, 1.8))


def _soft(sdf: Field, width: float) -> Field:
    return 1 - smoothstep(-width, width, sdf)


def _polyline(site: Site, points: Field, radius: float) -> Field:
    """Distance to a line through `points` (n, 2), thinner towards its ends."""
    n = len(points) - 1
    sdf = np.full_like(site.x, 9.0)
    for k in range(n):
        taper = radius * (1.15 - 0.75 * abs(2 * (k + 0.5) / n - 1))
        (ax, ay), (bx, by) = points[k], points[k + 1]
        sdf = np.minimum(sdf, segment(site.x, site.y, ax, ay, bx, by, taper))
    return sdf


def _walk(rng: Generator, length: float, steps: int, wander: float) -> Field:
    """A wandering path (steps + 1, 2) of about the given length, centred on the origin."""
    heading = rng.uniform(0, 2 * PI) + np.cumsum(rng.normal(0, wander, steps))
    stride = length / steps * rng.uniform(0.6, 1.4, steps)
    path = np.concatenate(
        [np.zeros((1, 2)), np.cumsum(stride[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1), 0)]
    )
    return np.asarray(path - path.mean(0))


def scratch(site: Site, rng: Generator) -> Field:
    """One to three nearly parallel lines, light or dark, with a lit edge."""
    length, width = site.radius(0.18, 1.3), site.radius(0.011, 0.02)
    path, tone = _walk(rng, length, 4, 0.12), rng.choice([0.95, 0.95, 0.08])
    image = site.image
    for k in range(int(rng.integers(1, 4))):
        shift = np.array([rng.normal(0, 0.04), rng.normal(0, 0.04)]) * (k > 0)
        sdf = _polyline(site, path * rng.uniform(0.7, 1.0) + shift, width)
        colour = 0.75 * np.full(3, tone) + 0.25 * site.local_colour()
        cover = np.clip(0.5 - sdf * site.size / 2, 0, 1) * site.alpha * rng.uniform(0.7, 1.0)
        image = image + cover[..., None] * (colour - image)
    return image


def crack(site: Site, rng: Generator) -> Field:
    """A jagged dark line with branches."""
    length, width = site.radius(0.2, 1.1), site.radius(0.009, 0.02)
    path = _walk(rng, length, 9, 0.55)
    sdf = _polyline(site, path, width)
    for _ in range(int(rng.integers(0, 4))):
        start = path[int(rng.integers(2, 8))]
        branch = _walk(rng, length * rng.uniform(0.2, 0.4), 4, 0.5)
        sdf = np.minimum(sdf, _polyline(site, branch - branch[0] + start, width * 0.7))
    dark = site.local_colour() * rng.uniform(0.05, 0.35)
    return site.mix(dark, np.clip(0.6 - sdf * site.size / 2, 0, 1) * rng.uniform(0.85, 1.0))


def hole(site: Site, rng: Generator) -> Field:
    """A pit: dark inside, its rim shaded."""
    sdf = _blob(site, rng, site.radius(0.035, 0.16), 0.1)
    rim = 0.05 * _soft(sdf, 0.04)
    lambert, _ = slope_shading(-rim, site.light, 2 / site.size)
    inside = np.clip(0.5 - sdf * site.size / 2, 0, 1)
    deep = site.local_colour() * rng.uniform(0.05, 0.3)
    shaded = np.clip(site.image * lambert[..., None], 0, 1)
    near = _soft(sdf - 0.03, 0.02) * site.alpha
    image = site.image + near[..., None] * (shaded - site.image)
    return np.asarray(image + (inside * site.alpha)[..., None] * (deep - image))


def stain(site: Site, rng: Generator) -> Field:
    """A soft-edged tinted blotch, stronger near its rim like a dried liquid."""
    radius = site.radius(0.07, 0.34)
    sdf = _blob(site, rng, radius)
    ink = random_colour(rng, (0.05, 0.5), 0.9)
    body = _soft(sdf, 0.035) * np.clip(0.75 + 0.2 * fractal(rng, site.size, 8, 3), 0.3, 1)
    edge = np.exp(-((sdf / 0.025) ** 2)) * 0.25
    return site.mix(site.image * (0.25 + 0.75 * ink), (body + edge) * rng.uniform(0.6, 1.0))


def contamination(site: Site, rng: Generator) -> Field:
    """A cluster of specks or crumbs which may lie partly beside the object."""
    spread, grain = site.radius(0.05, 0.3), site.radius(0.018, 0.035)
    colour = random_colour(rng, (0.03, 0.95), 0.8)
    sdf = np.full_like(site.x, 9.0)
    for _ in range(int(rng.integers(3, 6) + 12 * site.scale)):
        px, py = rng.normal(0, spread * 0.5, 2)
        r = grain * rng.uniform(0.6, 1.5)
        sdf = np.minimum(sdf, segment(site.x, site.y, px, py, px + rng.normal(0, r), py + rng.normal(0, r), r))
    shade = 1 + 0.12 * fractal(rng, site.size, 28, 2)
    return site.mix(colour * shade[..., None], np.clip(0.5 - sdf * site.size / 2, 0, 1), spill=True)


def dent(site: Site, rng: Generator) -> Field:
    """A shallow dimple or bump seen only by its shading."""
    radius = site.radius(0.09, 0.3)
    u, v = turn(site.x, site.y, rng.uniform(0, PI))
    dimple = np.exp(-(((u / radius) ** 2 + (v / (radius * rng.uniform(0.5, 1))) ** 2) ** 1.5))
    depth = radius * rng.uniform(0.7, 1.3) * rng.choice([-1.0, -1.0, 1.0])
    lambert, glance = slope_shading(depth * dimple, site.light, 2 / site.size)
    shaded = site.image * np.clip(lambert, 0.25, 1.7)[..., None] + 0.12 * (glance**20 * dimple)[..., None]
    return site.mix(np.clip(shaded, 0, 1), _soft(np.hypot(u, v) - 1.6 * radius, 0.05))


def colour_spot(site: Site, rng: Generator) -> Field:
    """A patch whose colour is wrong while its pattern stays."""
    sdf = _blob(site, rng, site.radius(0.055, 0.28))
    wrong = random_colour(rng, (0.2, 0.95), 0.95)
    grey = site.image.mean(2, keepdims=True)
    own = site.local_colour()
    recoloured = np.clip(wrong * grey / max(0.12, float(own.mean())), 0, 1)
    return site.mix(recoloured, _soft(sdf, 0.012) * rng.uniform(0.7, 1.0))


def missing_part(site: Site, rng: Generator) -> Field:
    """A piece broken off at the rim (the background shows), or off a surface (a rough lower layer shows)."""
    surface = bool(site.alpha.min() > 0.5)
    px, py = (0.0, 0.0) if surface else site.edge
    moved = Site(site.image, site.background, site.alpha, site.x - px, site.y - py, site.edge, site.light, site.scale)
    sdf = _blob(moved, rng, site.radius(0.07, 0.3), 0.15)
    gone = np.clip(0.5 - sdf * site.size / 2, 0, 1)
    rough = 1 + 0.12 * fractal(rng, site.size, 14, 4, 0.7)
    if surface:
        lower = site.local_colour() * rng.choice([0.45, 0.6, 1.6]) * rough[..., None]
        lambert, _ = slope_shading(-0.06 * _soft(sdf, 0.03), site.light, 2 / site.size)
        return site.mix(np.clip(lower * lambert[..., None], 0, 1), gone)
    # The fresh break catches less light than the old surface.
    rim = np.exp(-(((sdf - 0.015) / 0.015) ** 2)) * site.alpha
    broken = site.image * (1 - 0.45 * rim * rough)[..., None]
    return np.asarray(broken + gone[..., None] * (site.background - broken))


def misplaced(site: Site, rng: Generator) -> Field:
    """A block of the image copied, turned, to a place where it does not belong."""
    half = site.radius(0.08, 0.26)
    u, v = turn(site.x, site.y, rng.uniform(0, PI))
    inside = np.clip(0.5 - box(u, v, half, half * rng.uniform(0.6, 1), 0.02) * site.size / 2, 0, 1)
    moved = np.rot90(site.image, int(rng.integers(1, 4)))
    moved = np.roll(moved, tuple(int(k * site.size) for k in rng.uniform(0.15, 0.85, 2)), (0, 1))
    return site.mix(moved, inside)


def bent(site: Site, rng: Generator) -> Field:
    """The neighbourhood pushed aside and twisted."""
    px, py = (0.0, 0.0) if site.alpha.min() > 0.5 or rng.random() < 0.4 else site.edge
    radius = site.radius(0.14, 0.4)
    x, y = site.x - px, site.y - py
    weight = np.exp(-(((x * x + y * y) / radius**2) ** 1.5))
    push, twist = radius * rng.uniform(0.5, 0.9), rng.uniform(-0.9, 0.9)
    heading = rng.uniform(0, 2 * PI)
    dx = weight * (push * np.cos(heading) - twist * y)
    dy = weight * (push * np.sin(heading) + twist * x)
    rows, columns = np.indices(site.alpha.shape).astype(np.float64)
    at = np.stack([rows + dy * site.size / 2, columns + dx * site.size / 2])
    planes = [scipy.ndimage.map_coordinates(site.image[..., k], at, order=1, mode="nearest") for k in range(3)]
    return np.stack(planes, axis=-1)


def foreign_patch(site: Site, rng: Generator) -> Field:
    """A piece of some other material lying on top."""
    sdf = _blob(site, rng, site.radius(0.07, 0.26), 0.3)
    low, high = random_colour(rng, (0.05, 0.95)), random_colour(rng, (0.05, 0.95))
    t = 0.5 + 0.3 * fractal(rng, site.size, float(rng.uniform(8, 24)), 3)
    return site.mix(low + t[..., None] * (high - low), np.clip(0.5 - sdf * site.size / 2, 0, 1))


def burn(site: Site, rng: Generator) -> Field:
    """A charred spot that fades out through brown."""
    radius = site.radius(0.08, 0.3)
    sdf = _blob(site, rng, radius)
    char = np.array([0.1, 0.07, 0.05]) * rng.uniform(0.5, 1.5)
    core, halo = _soft(sdf + 0.45 * radius, 0.3 * radius), _soft(sdf - 0.1 * radius, 0.35 * radius)
    brown = site.image * np.array([0.62, 0.45, 0.3])
    scorched = site.mix(brown, halo * 0.85)
    return np.asarray(scorched + (core * site.alpha * 0.9)[..., None] * (char - scorched))


def residue(site: Site, rng: Generator) -> Field:
    """A drop of glue or grease: a smooth raised blob with a highlight."""
    sdf = _blob(site, rng, site.radius(0.05, 0.22), 0.25)
    t = np.clip(-sdf / 0.09, 0, 1)
    height = 0.07 * np.sqrt(np.clip(t * (2 - t), 0, 1))
    lambert, glance = slope_shading(height, site.light, 2 / site.size)
    tint = random_colour(rng, (0.6, 1.0), 0.6)
    opacity = rng.uniform(0.35, 0.8)
    body = (site.image + opacity * (tint - site.image)) * lambert[..., None] + 0.6 * (glance**30)[..., None]
    return site.mix(np.clip(body, 0, 1), np.clip(0.5 - sdf * site.size / 2, 0, 1))


def thread(site: Site, rng: Generator) -> Field:
    """A curly fibre lying on the object, with a thin shadow."""
    length, width = site.radius(0.3, 1.5), site.radius(0.011, 0.018)
    path = _walk(rng, length, 14, 0.35)
    turns = np.linspace(0, rng.uniform(0.5, 2.0) * PI, len(path))
    path = path + 0.06 * length * np.stack([np.cos(turns), np.sin(turns)], 1)
    colour = random_colour(rng, (0.05, 0.98), 0.8)
    drop = 0.016 * np.array(site.light[:2]) / 0.5
    shaded = (
        site.image * (1 - 0.4 * np.clip(0.6 - _polyline(site, path - drop, width) * site.size / 4, 0, 1))[..., None]
    )
    cover = np.clip(0.5 - _polyline(site, path, width) * site.size / 2, 0, 1)
    return np.asarray(shaded + cover[..., None] * (colour - shaded))


def misprint(site: Site, rng: Generator) -> Field:
    """A stray stamp: a few letter-like strokes in one ink."""
    height, count = site.radius(0.07, 0.17), int(rng.integers(2, 4) + 2 * site.scale)
    u, v = turn(site.x, site.y, rng.uniform(-0.6, 0.6))
    sdf, stroke = np.full_like(u, 9.0), height * 0.16
    for k in range(count):
        a = u - (k - (count - 1) / 2) * height * 1.5
        for kind in rng.choice(5, 2, replace=False):
            h, w = height, height * 0.5
            ends = ((-w, -h, -w, h), (-w, h, w, -h), (-w, 0.0, w, 0.0), (w, -h, w, h))
            part = ring(a, v, w, 2 * stroke) if kind == 4 else segment(a, v, *ends[kind], stroke)
            sdf = np.minimum(sdf, part)
    ink = (
        random_colour(rng, (0.03, 0.35), 0.9)
        if site.local_colour().mean() > 0.4
        else random_colour(rng, (0.75, 1.0), 0.5)
    )
    return site.mix(ink, np.clip(0.5 - sdf * site.size / 2, 0, 1) * rng.uniform(0.8, 1.0))


Painter = Callable[[Site, Generator], Field]

TRAINED: tuple[Painter, ...] = (scratch, crack, hole, stain, contamination, dent, colour_spot, missing_part, misplaced,
                                bent, foreign_patch, burn, residue)  # fmt: skip
HELD_OUT: tuple[Painter, ...] = (thread, misprint)

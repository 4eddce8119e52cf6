"""Rendering: a scene from a seed, a defect in it, a camera, and the exact mask of what the defect changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.random import Generator
from numpy.typing import NDArray

from .canvas import Canvas, Pose
from .categories import CATEGORIES, DEFECT_PAINTERS, Category
from .defects import Site
from .families import background
from .fields import Field

# Raised whenever any pixel of any category changes: stored renderings of another version are not comparable.
VERSION = 1

_GOLDEN = 0.6180339887498949
_VISIBLE_CHANGE = 0.045
_MEAN_CHANGE = 0.09
_SMALLEST_AREA = 0.0011
_ATTEMPTS = 40


@dataclass(frozen=True)
class Rendering:
    """image uint8 (size, size, 3) RGB; mask bool (size, size), true where the defect changed the object."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def seeded(*parts: object) -> Generator:
    """A generator seeded by a hash of the parts: the same on every machine and independent of call order."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def paint_scene(category: Category, style: tuple[object, ...], image: tuple[object, ...], size: int) -> Canvas:
    """The flawless scene: `style` seeds what all images of a kind share, `image` seeds pose, light and grain."""
    rng = seeded("image", category.name, *image)
    style_rng = seeded("style", category.name, *style)
    canvas = Canvas(size, Pose.random(rng, category.spin, 0.3 if category.texture else 0.07))
    if not category.texture:
        background(canvas, seeded("plate", category.name, *style, int(rng.integers(3))), rng)
    category.painter(canvas, style_rng, rng)
    canvas.image = np.clip(canvas.image, 0.0, 1.0)
    return canvas


def add_defect(canvas: Canvas, defect: str, rng: Generator, scale: float) -> tuple[Field, NDArray[np.bool_]]:
    """The scene (size, size, 3) with a visible defect and its mask (size, size).

    A defect that can hardly be seen is drawn again elsewhere and a little larger: no mask without a visible change.
    """
    inside = canvas.alpha > 0.5
    # Outer pixels are avoided so that the defect's body lies in the image.
    inside &= (np.abs(canvas.x) < 0.86) & (np.abs(canvas.y) < 0.86)
    places = np.flatnonzero(inside)
    rim = np.flatnonzero(inside & ~scipy.ndimage.binary_erosion(canvas.alpha > 0.5, border_value=1))
    flat_x, flat_y = canvas.x.ravel(), canvas.y.ravel()
    for attempt in range(_ATTEMPTS):
        at = places[int(rng.random() * len(places))]
        # The first candidates of the rim are not preferred: any rim point may break off.
        edge = rim[int(rng.random() * len(rim))] if len(rim) else at
        site = Site(
            image=canvas.image,
            background=canvas.background,
            alpha=canvas.alpha,
            x=canvas.x - flat_x[at],
            y=canvas.y - flat_y[at],
            edge=(float(flat_x[edge] - flat_x[at]), float(flat_y[edge] - flat_y[at])),
            light=canvas.pose.light,
            scale=min(1.0, scale + 0.04 * attempt),
        )
        image = np.clip(DEFECT_PAINTERS[defect](site, rng), 0.0, 1.0)
        change = np.abs(image - canvas.image).max(axis=2)
        mask = _changed_region(change)
        if mask.sum() >= _SMALLEST_AREA * mask.size and change[mask].mean() > _MEAN_CHANGE:
            return image, mask
    raise RuntimeError(f"no visible {defect!r} found in {_ATTEMPTS} attempts")


def _changed_region(change: Field) -> NDArray[np.bool_]:
    """Pixels that visibly changed, with gaps of a pixel or two closed and single stray pixels dropped."""
    changed = np.pad(change > _VISIBLE_CHANGE, 4)
    steps = max(1, change.shape[0] // 112)
    closed = scipy.ndimage.binary_closing(changed, iterations=steps)
    tidy = closed & (scipy.ndimage.uniform_filter(closed.astype(np.float64), 3) > 0.3)
    return np.asarray(tidy[4:-4, 4:-4])


def photograph(image: Field, rng: Generator, strength: float = 1.0) -> NDArray[np.uint8]:
    """What the camera makes of a scene in [0, 1]: uneven light, exposure, slight blur and noise; uint8."""
    size = image.shape[0]
    axis = np.linspace(-1, 1, size)
    slope = strength * rng.uniform(-0.08, 0.08, 2)
    light = 1 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    light = light * (1 - strength * rng.uniform(0, 0.06) * (axis[None, :] ** 2 + axis[:, None] ** 2))
    gain = 1 + strength * rng.uniform(-0.08, 0.08) + strength * rng.uniform(-0.015, 0.015, 3)
    out = image * light[..., None] * gain
    blur = rng.uniform(0.0, 0.0045) * size
    # A blur far below a pixel changes nothing but costs time.
    if blur > 0.2:
        out = scipy.ndimage.gaussian_filter(out, (blur, blur, 0), truncate=3.0)
    out = out + rng.uniform(0.002, 0.012) * strength * rng.standard_normal(out.shape)
    return np.rint(np.clip(out, 0.0, 1.0) * 255).astype(np.uint8)


def defect_scale(index: int, offset: float) -> float:
    """Scale in [0, 1] of the defect of image `index`: a low-discrepancy sequence, so every size occurs evenly."""
    return float((index * _GOLDEN + offset) % 1.0)


def render(category: str, index: int, *, defect: str | None, seed: int, size: int = 224) -> Rendering:
    """Image number `index` of a category, flawless or with a defect; depends on nothing but the arguments."""
    if category not in CATEGORIES:
        raise ValueError(f"unknown category {category!r}; known: {', '.join(sorted(CATEGORIES))}")
    if defect is not None and defect not in DEFECT_PAINTERS:
        raise ValueError(f"unknown defect {defect!r}; known: {', '.join(DEFECT_PAINTERS)}")
    canvas = paint_scene(CATEGORIES[category], (seed,), (seed, index), size)
    image, mask = canvas.image, np.zeros((size, size), dtype=np.bool_)
    if defect is not None:
        offset = float(seeded("scale", seed, category).random())
        image, mask = add_defect(
            canvas, defect, seeded("defect", seed, category, index, defect), defect_scale(index, offset)
        )
    return Rendering(photograph(image, seeded("camera", seed, category, index, defect)), mask)


def plan(category: str, n_normal: int, n_anomalous: int, seed: int) -> list[tuple[int, str | None]]:
    """(index, defect) of the test images: normal ones first, then the category's defect types in turn.

    Sizes run from tiny to large within the anomalous ones, see `defect_scale`; `seed` turns the order of the types.
    """
    kinds = CATEGORIES[category].defects
    turn = int(seeded("plan", seed, category).integers(len(kinds)))
    normal: list[tuple[int, str | None]] = [(index, None) for index in range(n_normal)]
    return normal + [(n_normal + k, kinds[(k + turn) % len(kinds)]) for k in range(n_anomalous)]

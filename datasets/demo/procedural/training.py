"""Endless training images: pairs of one scene without and with a defect, from auxiliary categories only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from . import families
from .categories import AUXILIARY_CATEGORIES, TRAINED_DEFECTS, Category
from .render import add_defect, paint_scene, photograph, seeded
from .shapes import PI

_FAMILIES = {
    painter.__name__: Category(painter.__name__, painter, painter is families.random_texture, PI, TRAINED_DEFECTS)
    for painter in families.PAINTERS
}
SOURCES: dict[str, Category] = {**AUXILIARY_CATEGORIES, **_FAMILIES}
# The random families carry the variety. Textures are learnt long before objects, so they get the smaller share.
_WEIGHTS = {"random_texture": 6.0, "random_shape": 20.0, "random_assembly": 20.0}
_NAMED_TEXTURE, _NAMED_OBJECT = 0.6, 1.0


@dataclass(frozen=True)
class TrainingPair:
    """One scene twice: normal and defective, uint8 (size, size, 3) each, with the mask (size, size) and the labels."""

    source: str
    normal: NDArray[np.uint8]
    defective: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    defects: tuple[str, ...]


def draw_source(rng: Generator) -> str:
    """A training category or family, by weight."""
    names = list(SOURCES)
    weights = np.array(
        [_WEIGHTS.get(name, _NAMED_TEXTURE if SOURCES[name].texture else _NAMED_OBJECT) for name in names]
    )
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def training_pair(number: int, *, seed: int, size: int) -> TrainingPair:
    """Pair `number` of the endless training set of a seed; 30 % carry a second defect."""
    rng = seeded("training", seed, number)
    category = SOURCES[draw_source(rng)]
    for attempt in range(20):
        canvas = paint_scene(category, ("training", seed, number, attempt), ("training", seed, number, attempt), size)
        chosen = rng.choice(len(TRAINED_DEFECTS), 2 if rng.random() < 0.3 else 1, replace=False)
        kinds = tuple(TRAINED_DEFECTS[k] for k in chosen)
        try:
            normal, mask = canvas.image, np.zeros((size, size), dtype=np.bool_)
            for kind in kinds:
                canvas.image, changed = add_defect(canvas, kind, rng, float(rng.random()))
                mask |= changed
        except (RuntimeError, ValueError):
            # A scene may leave no room for a defect (all covered by holes); another scene is drawn instead.
            continue
        return TrainingPair(category.name, photograph(normal, rng), photograph(canvas.image, rng), mask, kinds)
    raise RuntimeError(f"training pair {number} of seed {seed}: no scene could carry a visible defect")

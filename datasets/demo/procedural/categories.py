"""The registry: which categories are evaluated, which are only trained on, and which defects they may show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from . import defects, evaluation, objects, textures
from .canvas import Canvas
from .shapes import PI

Painter = Callable[[Canvas, Generator, Generator], None]

DEFECTS: tuple[str, ...] = tuple(painter.__name__ for painter in defects.TRAINED + defects.HELD_OUT)
EVALUATION_ONLY_DEFECTS: tuple[str, ...] = tuple(painter.__name__ for painter in defects.HELD_OUT)
TRAINED_DEFECTS: tuple[str, ...] = tuple(painter.__name__ for painter in defects.TRAINED)
DEFECT_PAINTERS: dict[str, defects.Painter] = {p.__name__: p for p in defects.TRAINED + defects.HELD_OUT}


@dataclass(frozen=True)
class Category:
    """What is drawn, by which painter, how far it may be turned (radians), and its defect types."""

    name: str
    painter: Painter
    texture: bool
    spin: float
    defects: tuple[str, ...]


_EVALUATED: dict[str, tuple[float, tuple[str, ...]]] = {
    "tile": (0.12, ("crack", "stain", "hole", "colour_spot", "residue", "misprint")),
    "leather": (PI, ("scratch", "hole", "stain", "dent", "burn", "thread")),
    "wood": (0.1, ("scratch", "hole", "stain", "colour_spot", "burn", "thread")),
    "capsule": (PI, ("scratch", "crack", "dent", "missing_part", "contamination", "misprint")),
    "gear": (PI, ("missing_part", "scratch", "bent", "contamination", "stain", "thread")),
    "cable": (PI, ("missing_part", "hole", "bent", "contamination", "misplaced", "thread")),
    "pcb": (0.1, ("missing_part", "scratch", "burn", "misplaced", "residue", "misprint")),
}
# Their appearance has a direction that a photograph keeps, so they are turned only a little.
_UPRIGHT = frozenset({"brick", "knit", "bottle", "chip", "connector", "spool", "key", "battery"})

# On a fine or plain texture these change nothing that could be seen.
_NEEDS_STRUCTURE = frozenset({"bent", "misplaced", "dent"})


def _auxiliary() -> dict[str, Category]:
    found = {}
    for painters, texture in ((textures.PAINTERS, True), (objects.PAINTERS, False)):
        for painter in painters:
            name = painter.__name__
            kinds = tuple(kind for kind in TRAINED_DEFECTS if not (texture and kind in _NEEDS_STRUCTURE))
            found[name] = Category(name, painter, texture, 0.2 if name in _UPRIGHT else PI, kinds)
    return found


def _evaluation() -> dict[str, Category]:
    painters = {painter.__name__: painter for painter in evaluation.PAINTERS}
    flat = {"tile", "leather", "wood"}
    return {
        name: Category(name, painters[name], name in flat, spin, kinds) for name, (spin, kinds) in _EVALUATED.items()
    }


AUXILIARY_CATEGORIES: dict[str, Category] = _auxiliary()
EVALUATION_CATEGORIES: dict[str, Category] = _evaluation()
CATEGORIES: dict[str, Category] = {**AUXILIARY_CATEGORIES, **EVALUATION_CATEGORIES}

EVALUATION: tuple[str, ...] = tuple(EVALUATION_CATEGORIES)
AUXILIARY: tuple[str, ...] = tuple(AUXILIARY_CATEGORIES)
TEXTURES: frozenset[str] = frozenset(name for name, category in CATEGORIES.items() if category.texture)
CLASS_NAMES: dict[str, str] = {
    **{name: name.replace("_", " ") for name in CATEGORIES},
    "pcb": "printed circuit board",
    "tablet": "round tablet",
    "mesh": "wire mesh",
    "felt": "felt cloth",
    "knit": "knitted fabric",
    "studs": "studded rubber",
    "chip": "computer chip",
    "spool": "spool of wire",
    "hoop": "rubber hoop",
}

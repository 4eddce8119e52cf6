"""Where boxes stand in a drawing of layers, so that its arrows can be followed; see ``architecture.py``."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

COLUMNS, STARTS = 5, 16
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 180, 64, 34, 36, 16

Place = tuple[int, int]  # row, and column in half boxes
Arrow = tuple[str, str]
Point = tuple[float, float]


def size_of(n_layers: int) -> tuple[int, int]:
    """Width and height of a drawing in pixels."""
    return COLUMNS * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN, n_layers * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN


def corner(place: Place) -> tuple[int, int]:
    """The upper left corner of a box."""
    row, column = place
    return MARGIN + column * (WIDTH + GAP_X) // 2, MARGIN + row * (HEIGHT + GAP_Y)


def ends(upper: Place, lower: Place) -> tuple[Point, Point]:
    """From the lower edge of one box to the upper edge of the other; slanted arrows end beside the middle."""
    (x1, y1), (x2, y2) = corner(upper), corner(lower)
    lean = max(-0.3, min(0.3, (x2 - x1) / (4 * WIDTH)))
    return (x1 + WIDTH * (0.5 + lean), y1 + HEIGHT), (x2 + WIDTH * (0.5 - lean), y2)


def arranged(layers: Sequence[Sequence[str]], arrows: Sequence[Arrow]) -> dict[str, Place]:
    """A place for every box in the row of its layer: arrows run through no box and cross as little as can be found.

    From drawn starts, the same ones every time, boxes are moved one by one to where the drawing is best, until no move
    improves it. The best drawing counts.
    """
    found = []
    for seed in range(STARTS):
        draw = random.Random(seed)
        start = {}
        for row, layer in enumerate(layers):
            columns = draw.sample(range(0, 2 * COLUMNS, 2), len(layer))
            start.update({box: (row, column) for box, column in zip(layer, columns, strict=True)})
        found.append(_improved(start, arrows))
    return min(found, key=lambda places: _faults(places, arrows))


def _improved(places: dict[str, Place], arrows: Sequence[Arrow]) -> dict[str, Place]:
    best, better = _faults(places, arrows), True
    while better:
        better = False
        for box in list(places):
            for column in range(2 * COLUMNS - 1):
                tried = {**places, box: (places[box][0], column)}
                if (faults := _faults(tried, arrows)) < best:
                    places, best, better = tried, faults, True
    return places


def _faults(places: Mapping[str, Place], arrows: Sequence[Arrow]) -> float:
    """How bad a drawing is: boxes on each other, arrows through boxes, crossings, sideways length."""
    near = through = 0
    for (row, column), (other_row, other_column) in combinations(places.values(), 2):
        near += row == other_row and abs(column - other_column) < 2
    drawn = [ends(places[upper], places[lower]) for upper, lower in arrows]
    for (upper, lower), line in zip(arrows, drawn, strict=True):
        first, last = places[upper][0], places[lower][0]
        through += sum(_passes(line, corner(place)) for place in places.values() if first < place[0] < last)
    crossings = sum(_cross(one, two) for one, two in combinations(drawn, 2))
    sideways = sum(abs(start[0] - stop[0]) for start, stop in drawn)
    return 1000 * near + 100 * through + 12 * crossings + sideways / 100


def _passes(line: tuple[Point, Point], box: Point) -> bool:
    """Whether an arrow touches a box between its ends, with some room around it."""
    ((x1, y1), (x2, y2)), (x, y) = line, box
    upper = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    lower = x1 + (y + HEIGHT - y1) / (y2 - y1) * (x2 - x1)
    return min(upper, lower) < x + WIDTH + 8 and max(upper, lower) > x - 8


def _cross(one: tuple[Point, Point], two: tuple[Point, Point]) -> bool:
    """Whether two arrows cross; those that begin or end together do not."""
    (start, stop), (start2, stop2) = one, two
    if stop[1] <= start2[1] or stop2[1] <= start[1]:
        return False
    return _side(*one, start2) * _side(*one, stop2) < 0 and _side(*two, start) * _side(*two, stop) < 0


def _side(a: Point, b: Point, c: Point) -> float:
    """On which side of the line from a to b a point lies: the sign."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

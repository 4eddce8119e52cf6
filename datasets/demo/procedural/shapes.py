"""Signed distances (negative inside) of plane shapes. Coordinates and distances are in object units."""

from __future__ import annotations

import numpy as np

from .fields import Field

PI = float(np.pi)


def turn(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates in a frame turned by `angle` radians."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return c * x + s * y, c * y - s * x


def circle(x: Field, y: Field, radius: float) -> Field:
    return np.sqrt(x * x + y * y) - radius


def ring(x: Field, y: Field, radius: float, width: float) -> Field:
    """Annulus of the given mean radius and full width."""
    return np.abs(circle(x, y, radius)) - width / 2


def box(x: Field, y: Field, half_x: float, half_y: float, corner: float = 0.0) -> Field:
    """Rectangle with rounded corners."""
    dx, dy = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner


def segment(x: Field, y: Field, ax: float, ay: float, bx: float, by: float, radius: float) -> Field:
    """Stadium round the line from a to b."""
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-12), 0.0, 1.0)
    return np.sqrt((x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2) - radius


def polygon(x: Field, y: Field, sides: int, radius: float, corner: float = 0.0) -> Field:
    """Regular polygon of the given inner radius."""
    angle = np.arctan2(y, x)
    sector = 2 * PI / sides
    folded = np.mod(angle + sector / 2, sector) - sector / 2
    r = np.sqrt(x * x + y * y)
    px, py = r * np.cos(folded), r * np.sin(folded)
    inner = radius - corner
    half_side = inner * float(np.tan(PI / sides))
    over = np.maximum(np.abs(py) - half_side, 0.0)
    flat = px - inner
    return np.where((flat > 0) & (over > 0), np.sqrt(flat * flat + over * over), flat) - corner


def lobes(x: Field, y: Field, count: int, radius: float, depth: float, sharp: float = 1.0) -> Field:
    """Disc whose rim waves `count` times by +-`depth`; a large `sharp` makes the waves square."""
    wave = np.sin(count * np.arctan2(y, x))
    if sharp > 1:
        wave = np.clip(wave * sharp, -1.0, 1.0)
    return np.sqrt(x * x + y * y) - radius - depth * wave


def superellipse(x: Field, y: Field, half_x: float, half_y: float, power: float) -> Field:
    """Rounded shape between an ellipse (power 2) and a rectangle (large power); the distance is approximate."""
    level = (np.abs(x / half_x) ** power + np.abs(y / half_y) ** power + 1e-12) ** (1 / power)
    return (level - 1) * min(half_x, half_y)


def radial_copies(x: Field, y: Field, count: int, radius: float, phase: float = 0.0) -> tuple[Field, Field]:
    """Coordinates round the nearest of `count` centres on a circle: one shape drawn there appears at all of them."""
    sector = 2 * PI / count
    angle = np.mod(np.arctan2(y, x) - phase + sector / 2, sector) - sector / 2
    r = np.sqrt(x * x + y * y)
    return r * np.cos(angle) - radius, r * np.sin(angle)


def repeat(x: Field, period: float, limit: int | None = None) -> tuple[Field, Field]:
    """Coordinate round the nearest multiple of `period` and that multiple's number (at most +-`limit`)."""
    number = np.round(x / period)
    if limit is not None:
        number = np.clip(number, -limit, limit)
    return x - number * period, number

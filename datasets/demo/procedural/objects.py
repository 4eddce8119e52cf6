"""Auxiliary (training) objects, drawn by signed distances in object units: the image spans about [-1, 1]."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, blend, hsv, metal, random_colour
from .fields import Field, fractal, noise_at
from .shapes import (
    PI,
    box,
    circle,
    lobes,
    polygon,
    radial_copies,
    repeat,
    ring,
    segment,
    superellipse,
    turn,  # fmt: skip
)


def _tinted(c: Canvas, rng: Generator, colour: Field, amount: float = 0.03) -> Field:
    """A colour (3,) with faint mottling, (size, size, 3)."""
    return np.asarray(colour * (1 + amount * fractal(rng, c.size, 8, 3))[..., None])


def nut(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius, hole = metal(style), style.uniform(0.55, 0.7), style.uniform(0.28, 0.36)
    body = polygon(c.u, c.v, 6, radius, 0.05)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=0.1, gloss=0.4)
    c.paint(ring(c.u, c.v, hole + 0.05, 0.1), colour * 0.8, bevel=0.05)
    c.pierce(circle(c.u, c.v, hole))


def washer(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius, width = metal(style), style.uniform(0.4, 0.55), style.uniform(0.2, 0.4)
    body = ring(c.u, c.v, radius, width)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.05), bevel=0.05, gloss=0.4)


def screw(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius, slots = metal(style), style.uniform(0.5, 0.7), int(style.integers(1, 4))
    depth = style.uniform(0.06, 0.1)
    body = circle(c.u, c.v, radius)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=style.uniform(0.1, 0.4), gloss=0.5)
    for k in range(slots):
        a, b = turn(c.u, c.v, PI * k / slots)
        c.paint(box(a, b, radius * 0.6, depth, 0.03), colour * 0.35, bevel=0.04, carve=True)


def bottle_cap(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius, teeth = (
        random_colour(style, (0.35, 0.9), 0.9),
        style.uniform(0.6, 0.72),
        int(style.integers(18, 30)),
    )
    mark, label = random_colour(style, (0.3, 0.95), 0.9), style.uniform(0.3, 0.45)
    body = lobes(c.u, c.v, teeth, radius, 0.025)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=0.16, gloss=0.4)
    c.paint(circle(c.u, c.v, label), mark, bevel=0.03)
    c.paint(polygon(c.u, c.v, int(style.integers(3, 6)), label * 0.5), colour)


def button(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius, holes = random_colour(style), style.uniform(0.5, 0.7), int(style.choice([2, 4]))
    rim = style.uniform(0.08, 0.16)
    body = circle(c.u, c.v, radius)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.05), bevel=0.1, gloss=0.3)
    c.paint(circle(c.u, c.v, radius - rim), _tinted(c, rng, colour * 0.95, 0.05), bevel=0.08, carve=True)
    c.pierce(circle(*radial_copies(c.u, c.v, holes, 0.17), 0.08))


def coin(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius = metal(style), style.uniform(0.6, 0.75)
    dots, points = int(style.integers(20, 40)), int(style.integers(4, 8))
    body = circle(c.u, c.v, radius)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.04), bevel=0.05, gloss=0.3)
    c.paint(ring(c.u, c.v, radius - 0.06, 0.05), colour, bevel=0.03, gloss=0.3)
    c.paint(circle(*radial_copies(c.u, c.v, dots, radius - 0.15), 0.02), colour * 1.1, bevel=0.02)
    c.paint(lobes(c.u, c.v, points, 0.25, 0.1), colour * 1.05, bevel=0.08, gloss=0.3)


def bracket(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, long, wide = metal(style), style.uniform(0.6, 0.8), style.uniform(0.2, 0.3)
    hole, offset = style.uniform(0.07, 0.12), style.uniform(0.2, 0.4)
    body = np.minimum(box(c.u, c.v + offset, long, wide, 0.06), box(c.u + long - wide, c.v - 0.1, wide, 0.6, 0.06))
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.05), bevel=0.06, gloss=0.3)
    for x, y in ((long - 0.2, -offset), (0.1, -offset), (wide - long, 0.45)):
        c.pierce(circle(c.u - x, c.v - y, hole))


def hoop(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, radius, width = random_colour(style, (0.15, 0.8)), style.uniform(0.5, 0.65), style.uniform(0.12, 0.24)
    body = ring(c.u, c.v, radius, width)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=width / 2, gloss=0.5)


def bearing(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, balls, radius = metal(style), int(style.integers(7, 13)), style.uniform(0.6, 0.72)
    body = ring(c.u, c.v, radius - 0.22, 0.5)
    c.shadow(body)
    c.paint(body, colour * 0.35)
    c.paint(ring(c.u, c.v, radius - 0.03, 0.11), _tinted(c, rng, colour), bevel=0.05, gloss=0.4)
    c.paint(ring(c.u, c.v, radius - 0.41, 0.12), _tinted(c, rng, colour), bevel=0.05, gloss=0.4)
    cu, cv = turn(c.u, c.v, rng.uniform(0, PI))
    c.paint(circle(*radial_copies(cu, cv, balls, radius - 0.22), 0.11), colour * 1.1, bevel=0.11, gloss=0.7)


def key(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, bow, cuts = metal(style), style.uniform(0.24, 0.32), style.uniform(0.0, 0.1, 5)
    body = np.minimum(circle(c.u + 0.5, c.v, bow), box(c.u - 0.2, c.v, 0.6, 0.1, 0.02))
    for k, cut in enumerate(cuts):
        body = np.maximum(body, -box(c.u - 0.25 - 0.11 * k, c.v - 0.1, 0.035, cut))
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.05), bevel=0.05, gloss=0.4)
    c.paint(box(c.u - 0.15, c.v + 0.02, 0.5, 0.02), colour * 0.6, bevel=0.02, carve=True)
    c.pierce(circle(c.u + 0.58, c.v, bow * 0.35))


def lens(c: Canvas, style: Generator, rng: Generator) -> None:
    tint, radius, frame = (
        random_colour(style, (0.3, 0.7)),
        style.uniform(0.5, 0.65),
        random_colour(style, (0.1, 0.4), 0.2),
    )
    body = circle(c.u, c.v, radius + 0.12)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, frame), bevel=0.08, gloss=0.4)
    glow = np.exp(-((c.u + 0.2) ** 2 + (c.v + 0.25) ** 2) / 0.12)
    c.paint(circle(c.u, c.v, radius), blend(tint * 0.6, np.ones(3), 0.7 * glow + 0.1), bevel=0.06, carve=True)


def bottle(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, wide, label = random_colour(style, (0.2, 0.8)), style.uniform(0.25, 0.4), random_colour(style, (0.5, 0.95))
    neck = style.uniform(0.1, 0.16)
    body = np.minimum(box(c.u, c.v - 0.25, wide, 0.55, 0.12), box(c.u, c.v + 0.4, neck, 0.35, 0.05))
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=wide * 0.8, gloss=0.5)
    c.paint(box(c.u, c.v - 0.3, wide, 0.22), label * np.sqrt(np.clip(1.1 - (c.u / wide) ** 2, 0.2, 1))[..., None])
    c.paint(box(c.u, c.v + 0.72, neck + 0.03, 0.08, 0.02), label * 0.8, bevel=0.05)


def tablet(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, power = random_colour(style, (0.7, 0.97), 0.5), style.uniform(2, 3)
    half, score = style.uniform(0.4, 0.65), style.random() < 0.6
    body = superellipse(c.u, c.v, 0.62, half, power)
    c.shadow(body)
    speck = noise_at(rng, c.u * 25, c.v * 25)
    c.paint(body, colour * (1 - 0.15 * (speck > 0.75))[..., None], bevel=0.2, gloss=0.1)
    if score:
        c.paint(box(c.u, c.v, 0.025, half * 0.9), colour * 0.85, bevel=0.03, carve=True)


def chip(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, pins, half = hsv(0.6, 0.1, style.uniform(0.1, 0.3)), int(style.integers(4, 9)), style.uniform(0.3, 0.45)
    lead, pitch = metal(style), 1.3 / pins
    legs, number = repeat(c.u + (0.5 * pitch if pins % 2 == 0 else 0.0), pitch)
    keep = np.where(np.abs(c.u) < 0.65, -9.0, 9.0) + 0 * number
    c.paint(np.maximum(box(legs, c.v, pitch * 0.22, half + 0.25), keep), lead, bevel=0.05, gloss=0.4)
    body = box(c.u, c.v, 0.72, half, 0.03)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.05), bevel=0.06, gloss=0.2)
    c.paint(circle(c.u + 0.55, c.v + half - 0.15, 0.06), colour * 0.6, bevel=0.04, carve=True)
    c.paint(box(c.u - 0.1, c.v, 0.35, 0.03), np.array([0.75, 0.75, 0.75]), opacity=0.7)


def battery(c: Canvas, style: Generator, rng: Generator) -> None:
    wrap, top, split = (
        random_colour(style, (0.2, 0.8), 0.9),
        random_colour(style, (0.3, 0.9), 0.8),
        style.uniform(-0.3, 0.4),
    )
    body = box(c.u, c.v, 0.75, 0.3, 0.06)
    c.paint(box(c.u - 0.78, c.v, 0.07, 0.12, 0.02), metal(style), bevel=0.08, gloss=0.4)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, blend(wrap, top, (c.u > split) * 1.0), 0.02), bevel=0.28, gloss=0.5)


def flange(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, bolts, radius = metal(style), int(style.integers(3, 9)), style.uniform(0.62, 0.75)
    body = circle(c.u, c.v, radius)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour, 0.05), bevel=0.06, gloss=0.3)
    c.paint(circle(c.u, c.v, radius * 0.55), _tinted(c, rng, colour), bevel=0.08, gloss=0.3)
    c.pierce(circle(*radial_copies(c.u, c.v, bolts, radius * 0.78), 0.07))
    c.pierce(circle(c.u, c.v, radius * 0.3))


def fuse(c: Canvas, style: Generator, rng: Generator) -> None:
    glass, cap, wire = random_colour(style, (0.6, 0.9), 0.3), metal(style), random_colour(style, (0.1, 0.4))
    body = box(c.u, c.v, 0.72, 0.2, 0.05)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, glass), bevel=0.18, gloss=0.7)
    c.paint(segment(c.u, c.v, -0.5, 0.0, 0.5, 0.0, 0.02), wire)
    for side in (-0.62, 0.62):
        c.paint(box(c.u - side, c.v, 0.16, 0.22, 0.03), cap, bevel=0.2, gloss=0.5)


def connector(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, columns, rows = random_colour(style, (0.15, 0.9)), int(style.integers(3, 7)), int(style.integers(1, 4))
    pitch, pin = 1.2 / columns, metal(style)
    body = box(c.u, c.v, 0.72, pitch * rows / 2 + 0.12, 0.05)
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=0.06, gloss=0.2)
    for row in range(rows):
        for column in range(columns):
            x, y = (column - (columns - 1) / 2) * pitch, (row - (rows - 1) / 2) * pitch
            c.paint(box(c.u - x, c.v - y, pitch * 0.33, pitch * 0.33, 0.02), colour * 0.4, bevel=0.04, carve=True)
            c.paint(box(c.u - x, c.v - y, pitch * 0.12, pitch * 0.12), pin, bevel=0.03)


def spool(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, winding, turns = random_colour(style), random_colour(style, (0.3, 0.9), 0.9), style.uniform(10, 20)
    body = np.minimum(box(c.u, c.v, 0.4, 0.6), box(c.u, np.abs(c.v) - 0.62, 0.55, 0.1, 0.03))
    c.shadow(body)
    c.paint(body, _tinted(c, rng, colour), bevel=0.08, gloss=0.3)
    wave = np.abs(np.cos(PI * turns * (c.v + 0.05 * c.u)))
    c.paint(box(c.u, c.v, 0.42, 0.5, 0.03), winding * (0.6 + 0.4 * wave)[..., None], bevel=0.3, relief=0.02 * wave)


PAINTERS = (nut, washer, screw, bottle_cap, button, coin, bracket, hoop, bearing, key, lens, bottle, tablet, chip,
            battery, flange, fuse, connector, spool)  # fmt: skip

"""Unlimited random families for training: mixed textures, random shapes, random assemblies of parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, blend, metal, random_colour
from .fields import Field, cellular, fractal, noise_at, smoothstep
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


def _layer(c: Canvas, style: Generator, rng: Generator) -> Field:
    """A random pattern field in about [0, 1]."""
    kind, freq = style.integers(8), float(np.exp(style.uniform(np.log(2.5), np.log(14))))
    u, v = turn(c.u, c.v, style.uniform(0, PI))
    stretch, bend, cut = style.uniform(1, 8), style.uniform(0, 0.5), style.uniform(0.05, 0.5)
    u = u + bend / freq * noise_at(rng, c.u * freq * 0.5, c.v * freq * 0.5) + rng.uniform(0, 5)
    if kind == 0:
        return np.clip(0.5 + 0.25 * fractal(rng, c.size, freq, 4, cut + 0.3), 0, 1)
    if kind == 1:
        return np.clip(0.5 + 0.5 * noise_at(rng, u * freq / stretch, v * freq), 0, 1)
    if kind == 2:
        return np.asarray(0.5 + 0.5 * np.sin(PI * freq * u))
    if kind == 3:
        return np.asarray(0.5 + 0.5 * np.cos(PI * freq * u) * np.cos(PI * freq * v))
    if kind == 4:
        near, second, value = cellular(rng, u * freq, v * freq, style.uniform(0.3, 0.95))
        return np.asarray(smoothstep(0, cut, second - near) * (0.6 + 0.4 * value))
    if kind == 5:
        near, _, value = cellular(rng, u * freq, v * freq, style.uniform(0.0, 0.9))
        return np.asarray((1 - smoothstep(cut, cut + 0.1, near)) * (0.4 + 0.6 * value))
    if kind == 6:
        a, column = repeat(u * freq, 1.0)
        b, row = repeat(v * freq / stretch + 0.5 * np.mod(column, 2) * style.integers(2), 1.0)
        tone = rng.random((32, 32))[np.mod(row, 32).astype(int), np.mod(column, 32).astype(int)]
        edge = np.minimum(0.5 - np.abs(a), (0.5 - np.abs(b)) * stretch)
        return np.asarray(smoothstep(0.02, 0.02 + 0.2 * cut, edge) * (0.75 + 0.25 * tone))
    return np.asarray(1 - np.abs(np.sin(freq * u + fractal(rng, c.size, 3, 3))) ** 0.5)


def _skin(c: Canvas, style: Generator, rng: Generator, plain: float) -> tuple[Field, Field | None]:
    """Colours (size, size, 3) and a relief for a surface; with probability `plain` it has no pattern but mottling."""
    base = metal(style) if style.random() < 0.25 else random_colour(style, (0.15, 0.95))
    mottle = style.uniform(0.0, 0.06) * fractal(rng, c.size, 10, 3)
    if style.random() < plain:
        return np.asarray(base * (1 + mottle)[..., None]), None
    contrast = style.uniform(0.1, 1.0)
    other = base + contrast * (random_colour(style, (0.1, 0.95)) - base)
    field = _layer(c, style, rng)
    if style.random() < 0.4:
        weight = style.uniform(0.2, 0.8)
        field = weight * field + (1 - weight) * _layer(c, style, rng)
    relief = style.uniform(0.005, 0.06) * field if style.random() < 0.5 else None
    return blend(base, other, field) * (1 + mottle)[..., None], relief


def random_texture(c: Canvas, style: Generator, rng: Generator) -> None:
    colour, relief = _skin(c, style, rng, 0.05)
    c.fill(colour, relief, style.uniform(0, 0.3))


def background(c: Canvas, style: Generator, rng: Generator) -> None:
    """The plate an object lies on: plain, mottled or patterned, nearly black to nearly white."""
    base = random_colour(style, (0.05, 0.98), 0.35)
    kind = style.random()
    if kind < 0.7:
        slope = rng.uniform(-0.06, 0.06, 2)
        field = style.uniform(0, 0.06) * fractal(rng, c.size, 6, 5, 0.7) + slope[0] * c.x + slope[1] * c.y
        c.set_background(base * (1 + field)[..., None])
    else:
        other = base + style.uniform(0.1, 0.4) * (random_colour(style, (0.05, 0.95), 0.4) - base)
        c.set_background(blend(base, other, _layer(c, style, rng)))


def _outline(style: Generator, scale: float) -> Callable[[Field, Field], Field]:
    """A random closed shape of about the given half size, as a function from coordinates to signed distance."""
    kind = int(style.integers(7))
    a, b = scale * style.uniform(0.7, 1.0), scale * style.uniform(0.35, 1.0)
    corner, count = min(a, b) * style.uniform(0.0, 0.5), int(style.integers(3, 13))
    depth, sharp, power = style.uniform(0.03, 0.2) * scale, style.choice([1.0, 1.0, 4.0]), style.uniform(1.6, 6)
    if kind == 0:
        return lambda x, y: box(x, y, a, b, corner)
    if kind == 1:
        return lambda x, y: polygon(x, y, count, a * 0.9, corner * 0.4)
    if kind == 2:
        return lambda x, y: lobes(x, y, count, a * 0.85, depth * 0.7, sharp)
    if kind == 3:
        return lambda x, y: superellipse(x, y, a, b, power)
    if kind == 4:
        return lambda x, y: segment(x, y, b - a, 0.0, a - b, 0.0, b) if a > b else circle(x, y, a)
    if kind == 5:
        return lambda x, y: ring(x, y, 0.7 * a, max(0.5 * b, 0.15 * scale))
    shift = style.uniform(-0.5, 0.5, 2) * scale
    return lambda x, y: np.minimum(
        box(x, y, a, 0.4 * b, 0.3 * corner), box(x - shift[0], y - shift[1], 0.35 * b, a * 0.6)
    )


def _finish(style: Generator, scale: float) -> tuple[float, float]:
    """Bevel width and gloss."""
    return scale * float(np.exp(style.uniform(np.log(0.04), np.log(0.6)))), style.uniform(0, 0.5)


def random_shape(c: Canvas, style: Generator, rng: Generator) -> None:
    shape = _outline(style, style.uniform(0.55, 0.8))
    body = shape(c.u, c.v)
    c.shadow(body, style.uniform(0.1, 0.6), style.uniform(0.05, 0.2))
    bevel, gloss = _finish(style, 0.5)
    colour, relief = _skin(c, style, rng, 0.6)
    c.paint(body, colour, bevel=bevel, gloss=gloss, relief=relief)
    for _ in range(int(style.integers(0, 5))):
        _detail(c, style, body)


def _detail(c: Canvas, style: Generator, body: Field) -> None:
    """One thing on the body: holes, copies round a circle, rings, bars, a coloured zone."""
    kind, scale = int(style.integers(6)), style.uniform(0.06, 0.22)
    colour = random_colour(style, (0.1, 0.95), 0.9) if style.random() < 0.7 else metal(style)
    shape, (bevel, gloss) = _outline(style, scale), _finish(style, scale)
    place, carve = style.uniform(-0.4, 0.4, 2), bool(style.random() < 0.4)
    if kind == 0:
        c.pierce(np.maximum(shape(c.u - place[0], c.v - place[1]), body + 0.04))
        return
    if kind == 1:
        sdf = shape(*radial_copies(c.u, c.v, int(style.integers(2, 13)), style.uniform(0.15, 0.5)))
    elif kind == 2:
        sdf = ring(c.u, c.v, style.uniform(0.1, 0.55), style.uniform(0.02, 0.12))
    elif kind == 3:
        a, b = turn(c.u, c.v, style.choice([0.0, PI / 2, PI / 4]))
        sdf = box(a - place[0], b, style.uniform(0.02, 0.15), 2.0)
    elif kind == 4:
        limit, pitch = int(style.integers(1, 4)), scale * style.uniform(1.6, 3)
        sdf = shape(repeat(c.u - place[0] * 0.3, pitch, limit)[0], repeat(c.v - place[1], pitch, limit // 2)[0])
    else:
        sdf = shape(c.u - place[0], c.v - place[1])
    c.paint(np.maximum(sdf, body + 0.02), colour, bevel=bevel, gloss=gloss, carve=carve)


def random_assembly(c: Canvas, style: Generator, rng: Generator) -> None:
    """A plate or disc that carries many parts of a few kinds, lines and pads; or parts packed side by side."""
    half = style.uniform(0.6, 0.85)
    body = box(c.u, c.v, half, half * style.uniform(0.6, 1), 0.08) if style.random() < 0.6 else circle(c.u, c.v, half)
    packed = style.random() < 0.3
    colour, relief = _skin(c, style, rng, 0.5)
    c.shadow(body)
    c.paint(body, colour, bevel=style.uniform(0.02, 0.1), gloss=style.uniform(0, 0.3), relief=relief)
    if not packed:
        _lines(c, style, body)
    count = int(style.integers(3, 8))
    for k in range(count):
        scale = style.uniform(0.2, 0.36) if packed else style.uniform(0.05, 0.22)
        shape, (bevel, gloss) = _outline(style, scale), _finish(style, scale)
        r, angle = half * style.uniform(0.1, 0.75), 2 * PI * k / count + style.uniform(-0.3, 0.3)
        if packed:
            r = half - scale
        # Parts sit almost where the style puts them: images of one style share their layout.
        x, y = r * np.cos(angle) + rng.normal(0, 0.008), r * np.sin(angle) + rng.normal(0, 0.008)
        a, b = turn(c.u - x, c.v - y, style.choice([0.0, PI / 2, style.uniform(0, PI)]))
        part = np.maximum(shape(a, b), body + 0.02)
        tint = random_colour(style, (0.05, 0.95), 0.9)
        if style.random() < 0.35:
            near, second, _ = cellular(rng, a / scale * 4, b / scale * 4, 0.3)
            skin = tint * (0.4 + 0.6 * smoothstep(0, 0.4, second - near))[..., None]
        else:
            skin = np.asarray(tint * (1 + 0.03 * fractal(rng, c.size, 8, 2))[..., None])
        c.paint(part, skin, bevel=bevel, gloss=gloss)
        if style.random() < 0.5:
            inner = shape(a / 0.6, b / 0.6) * 0.6
            c.paint(np.maximum(inner, part), random_colour(style, (0.1, 0.95), 0.9), bevel=bevel / 2)


def _lines(c: Canvas, style: Generator, body: Field) -> None:
    """Straight strips with round ends, all in one colour."""
    sdf = np.full_like(body, 9.0)
    width, colour = style.uniform(0.012, 0.04), random_colour(style, (0.1, 0.95))
    for _ in range(int(style.integers(0, 9))):
        x, y, length = style.uniform(-0.7, 0.7), style.uniform(-0.7, 0.7), style.uniform(0.2, 1.0)
        dx, dy = (length, 0.0) if style.random() < 0.5 else (0.0, length)
        sdf = np.minimum(sdf, segment(c.u, c.v, x, y, x + dx, y + dy, width))
        sdf = np.minimum(sdf, ring(c.u - x, c.v - y, width * 1.6, width * 1.4))
    c.paint(np.maximum(sdf, body + 0.02), colour, bevel=width)


PAINTERS = (random_texture, random_shape, random_assembly)

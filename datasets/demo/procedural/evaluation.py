"""Painters of the evaluation categories. No training image is ever drawn with one of these functions."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, blend, hsv
from .fields import Field, cellular, fractal, noise, noise_at, smoothstep
from .shapes import PI, box, circle, radial_copies, ring, segment, turn


def tile(c: Canvas, style: Generator, rng: Generator) -> None:
    """Glazed square tiles with mottled glaze and sunken joints."""
    per_side, hue, joint = style.uniform(1.3, 1.8), style.uniform(0.45, 0.62), style.uniform(0.03, 0.045)
    glaze, deep = hsv(hue, style.uniform(0.25, 0.4), 0.78), hsv(hue + 0.04, style.uniform(0.4, 0.55), 0.55)
    grout = hsv(0.1, 0.08, style.uniform(0.72, 0.85))
    u, v = c.u * per_side + rng.uniform(0, 20), c.v * per_side + rng.uniform(0, 20)
    iu, iv = np.floor(u), np.floor(v)
    edge = np.minimum(0.5 - np.abs(u - iu - 0.5), 0.5 - np.abs(v - iv - 0.5))
    inside = smoothstep(joint * 0.7, joint * 1.3, edge)
    tone = rng.random((16, 16))[np.mod(iv, 16).astype(int), np.mod(iu, 16).astype(int)]
    mottle = 0.45 + 0.17 * fractal(rng, c.size, 9, 4, 0.7) + 0.25 * (tone - 0.5)
    colour = blend(glaze, deep, mottle)
    dome = smoothstep(joint, joint + 0.09, edge)
    speck = fractal(rng, c.size, 30, 2)
    colour = blend(grout * (1 + 0.06 * speck)[..., None], colour, inside)
    c.fill(colour, 0.035 * dome / per_side + 0.02 * inside / per_side, 0.16)


def leather(c: Canvas, style: Generator, rng: Generator) -> None:
    """Grained hide: soft rounded pebbles between fine creases."""
    base, freq = (
        hsv(style.uniform(0.03, 0.07), style.uniform(0.55, 0.7), style.uniform(0.5, 0.62)),
        style.uniform(11, 13),
    )
    bend_u, bend_v = noise(rng, c.size, 7) * 0.3, noise(rng, c.size, 7) * 0.3
    near, second, value = cellular(rng, c.u * freq + bend_u, c.v * freq + bend_v, 0.7)
    crease = smoothstep(-0.05, 0.4, second - near)
    shade = 0.8 + 0.2 * crease + 0.06 * (value - 0.5) + 0.05 * fractal(rng, c.size, 4, 5, 0.7)
    pebble = crease + 0.4 * np.clip(1 - near, 0, 1)
    c.fill(base * shade[..., None], 0.016 * pebble + 0.002 * fractal(rng, c.size, 24, 2), 0.1)


def wood(c: Canvas, style: Generator, rng: Generator) -> None:
    """A planed board: wavy growth lines, long fibres and fine pores along the grain."""
    light, dark = hsv(style.uniform(0.07, 0.09), 0.45, 0.8), hsv(style.uniform(0.05, 0.07), 0.6, 0.5)
    rings = style.uniform(4, 6)
    u, v = c.u + rng.uniform(-0.4, 0.4), c.v + rng.uniform(0, 9)
    bend = 0.9 * noise_at(rng, u * 1.1, v * 0.35) + 0.25 * noise_at(rng, u * 2.5, v * 0.8)
    phase = rings * u + 1.6 * bend
    late = (phase - np.floor(phase)) ** 2.2
    fibre = noise_at(rng, u * 26, v * 1.6) + 0.8 * noise_at(rng, u * 55, v * 3.2)
    pore = smoothstep(0.72, 0.95, noise_at(rng, u * 32, v * 3.0))
    weight = 0.15 + 0.5 * late + 0.09 * fibre + 0.35 * pore
    c.fill(blend(light, dark, weight), -0.006 * pore + 0.003 * fibre)


def capsule(c: Canvas, style: Generator, rng: Generator) -> None:
    """A two-coloured gelatine capsule with a seam and a printed bar."""
    left, right = (
        hsv(style.uniform(0.02, 0.1), 0.78, 0.86),
        hsv(style.uniform(0.1, 0.14), style.uniform(0.06, 0.18), 0.93),
    )
    radius, long = style.uniform(0.28, 0.31), 0.42
    body = segment(c.u, c.v, -long, 0.0, long, 0.0, radius)
    cap = np.maximum(segment(c.u, c.v, -long, 0.0, long, 0.0, radius + 0.022), c.u - 0.06)
    c.shadow(np.minimum(body, cap), 0.5, 0.13)
    cloud = (1 + 0.02 * fractal(rng, c.size, 7, 3))[..., None]
    c.paint(body, right * cloud, bevel=radius * 0.95, gloss=0.35)
    c.paint(
        cap,
        left * cloud,
        bevel=radius * 0.95,
        gloss=0.35,
        form=segment(c.u, c.v, -long, 0.0, long, 0.0, radius + 0.022),
    )
    c.paint(np.maximum(np.abs(c.u + 0.02) - 0.012, cap + 0.004), left * 0.72)
    shine = np.exp(-(((c.v + 0.13) / 0.035) ** 2)) * smoothstep(-0.05, 0.1, -body - 0.05)
    c.image = np.clip(c.image + 0.28 * shine[..., None], 0.0, 1.0)
    for k in range(3):
        c.paint(box(c.u - 0.24 - 0.1 * k, c.v - 0.02, 0.022, 0.075, 0.01), right * 0.42, opacity=0.8)


def _toothed(u: Field, v: Field, teeth: int, root: float, tip: float) -> Field:
    """Distance to a wheel with trapezoid teeth."""
    a, b = radial_copies(u, v, teeth, 0.0)
    pitch = PI * (root + tip) / 2 / teeth
    taper = pitch * (0.58 - 0.28 * (a - root) / (tip - root))
    tooth = np.maximum(np.maximum(np.abs(b) - taper, a - tip), -a)
    return np.minimum(circle(u, v, root), tooth)


def gear(c: Canvas, style: Generator, rng: Generator) -> None:
    """A machined spur gear with a hub, a keyway and lightening holes."""
    steel, teeth, holes = (
        hsv(0.6, style.uniform(0.03, 0.1), 0.72),
        int(style.integers(18, 23)),
        int(style.integers(5, 7)),
    )
    body = _toothed(c.u, c.v, teeth, 0.62, 0.76)
    c.shadow(body, 0.5, 0.1)
    angle = np.arctan2(c.v, c.u)
    brushed = noise_at(rng, 0.8 * np.cos(angle) + 9, circle(c.u, c.v, 0.0) * 42)
    sheen = 0.07 * np.cos(2 * angle + rng.uniform(0, 6))
    skin = steel * (1 + 0.05 * brushed + sheen)[..., None]
    c.paint(body, skin, bevel=0.05, gloss=0.35)
    c.paint(ring(c.u, c.v, 0.4, 0.24), skin * 0.86, bevel=0.03, carve=True)
    c.pierce(circle(*radial_copies(c.u, c.v, holes, 0.4), 0.08))
    c.paint(circle(c.u, c.v, 0.24), skin * 1.05, bevel=0.05, gloss=0.35)
    c.pierce(np.minimum(circle(c.u, c.v, 0.13), box(c.u - 0.13, c.v, 0.06, 0.04)))


def _strands(u: Field, v: Field, radius: float, pitch: float) -> tuple[Field, Field]:
    """Round strands on a hexagonal lattice, cut at `radius`: distance and the strand height."""
    row = np.round(v / (pitch * 0.866))
    x = u - 0.5 * pitch * np.mod(row, 2)
    column = np.round(x / pitch)
    du, dv = x - column * pitch, v - row * pitch * 0.866
    centre = np.hypot(u - du, v - dv)
    return np.maximum(np.hypot(du, dv) - 0.47 * pitch, np.where(centre < radius - 0.4 * pitch, -9.0, 9.0)), du


def cable(c: Canvas, style: Generator, rng: Generator) -> None:
    """Cross-section of a three-core cable: sheath, filler, three insulated cores of copper strands."""
    sheath, filler = hsv(0.6, 0.08, style.uniform(0.2, 0.28)), hsv(0.1, 0.07, style.uniform(0.8, 0.9))
    colours = (hsv(0.57, 0.75, 0.72), hsv(0.07, 0.65, 0.52), hsv(0.3, 0.6, 0.62))
    copper = hsv(0.065, style.uniform(0.5, 0.6), 0.82)
    body = circle(c.u, c.v, 0.8)
    c.shadow(body, 0.5, 0.1)
    c.paint(body, sheath * (1 + 0.05 * fractal(rng, c.size, 16, 3))[..., None], bevel=0.06, gloss=0.2)
    c.paint(circle(c.u, c.v, 0.7), filler * (1 + 0.05 * fractal(rng, c.size, 20, 3))[..., None], bevel=0.05, carve=True)
    for k, colour in enumerate(colours):
        place = 2 * PI * k / 3
        a, b = c.u - 0.365 * np.cos(place), c.v - 0.365 * np.sin(place)
        a, b = turn(a, b, rng.uniform(0, PI))
        c.paint(circle(a, b, 0.3), colour * (1 + 0.03 * fractal(rng, c.size, 12, 2))[..., None], bevel=0.05, gloss=0.25)
        c.paint(circle(a, b, 0.2), copper * 0.3)
        strand, _ = _strands(a, b, 0.2, 0.092)
        cut = 1 + 0.07 * noise_at(rng, a * 30, b * 30)
        c.paint(strand, copper * cut[..., None], bevel=0.045, gloss=0.45)


def pcb(c: Canvas, style: Generator, rng: Generator) -> None:
    """A circuit board with a fixed layout: traces, vias, chips, resistors, electrolytic capacitors."""
    green, mask = hsv(style.uniform(0.34, 0.42), 0.75, style.uniform(0.36, 0.44)), 1.35
    body = box(c.u, c.v, 0.86, 0.8, 0.05)
    c.shadow(body, 0.5, 0.1)
    weave = np.cos(PI * 34 * c.u) * np.cos(PI * 34 * c.v)
    c.paint(body, green * (1 + 0.03 * weave + 0.03 * fractal(rng, c.size, 10, 3))[..., None], bevel=0.03, gloss=0.1)
    traces, pads = np.full_like(body, 9.0), np.full_like(body, 9.0)
    for k in range(9):
        y, x = -0.66 + 0.165 * k, style.uniform(-0.75, -0.1)
        bend, end = x + style.uniform(0.2, 0.6), style.uniform(0.3, 0.75)
        dy = float(style.choice([-0.08, 0.08]))
        for ax, ay, bx, by in ((x, y, bend, y), (bend, y, bend + 0.08, y + dy), (bend + 0.08, y + dy, end, y + dy)):
            traces = np.minimum(traces, segment(c.u, c.v, ax, ay, bx, by, 0.013))
        for ax, ay in ((x, y), (end, y + dy)):
            pads = np.minimum(pads, ring(c.u - ax, c.v - ay, 0.024, 0.022))
    traces, pads = np.maximum(traces, body + 0.03), np.maximum(pads, body + 0.03)
    c.paint(traces, green * mask, bevel=0.013)
    c.paint(pads, hsv(0.12, 0.5, 0.85), bevel=0.01, gloss=0.4)
    for x, y, half_x, half_y in ((-0.3, -0.2, 0.3, 0.2), (0.45, 0.42, 0.2, 0.2)):
        _package(c, rng, c.u - x, c.v - y, half_x, half_y)
    for x, y in ((-0.62, 0.5), (-0.36, 0.5), (-0.1, 0.5), (0.3, -0.55), (0.55, -0.55)):
        a, b = c.u - x - rng.normal(0, 0.004), c.v - y - rng.normal(0, 0.004)
        c.paint(box(a, b, 0.05, 0.115, 0.01), hsv(0.6, 0.03, 0.82), bevel=0.03, gloss=0.5)
        c.paint(box(a, b, 0.05, 0.07), hsv(0.07, 0.35, 0.25), bevel=0.025)
    for x, y in ((0.5, -0.12), (0.68, -0.12)):
        can = circle(c.u - x, c.v - y, 0.085)
        c.paint(can, hsv(0.6, 0.04, 0.82), bevel=0.04, gloss=0.5)
        c.paint(np.maximum(can, 0.045 - (c.u - x)), hsv(0.6, 0.3, 0.2), bevel=0.03)
    c.pierce(circle(np.abs(c.u) - 0.77, np.abs(c.v) - 0.71, 0.045))


def _package(c: Canvas, rng: Generator, a: Field, b: Field, half_x: float, half_y: float) -> None:
    """A black integrated circuit with legs on two sides and a printed line."""
    pitch = 0.085
    number = np.round(a / pitch)
    legs = np.maximum(box(a - number * pitch, b, 0.022, half_y + 0.06), np.abs(a) - half_x + 0.02)
    c.paint(legs, hsv(0.6, 0.03, 0.78), bevel=0.02, gloss=0.4)
    c.paint(box(a, b, half_x, half_y, 0.015), np.full(3, 0.17) * (1 + 0.04 * fractal(rng, c.size, 24, 2))[..., None],
            bevel=0.04, gloss=0.15)  # fmt: skip
    c.paint(circle(a + half_x - 0.055, b + half_y - 0.055, 0.024), np.full(3, 0.1), bevel=0.02, carve=True)
    for k in (-1, 1):
        c.paint(box(a, b - 0.04 * k, half_x * 0.5, 0.012), np.full(3, 0.62), opacity=0.7)


PAINTERS = (tile, leather, wood, capsule, gear, cable, pcb)

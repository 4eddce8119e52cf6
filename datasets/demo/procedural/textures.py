"""Auxiliary (training) textures. Each painter draws its style first, so that one style seed is one kind of material."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, blend, hsv, metal, random_colour
from .fields import cellular, fractal, noise, noise_at, smoothstep
from .shapes import PI, repeat, turn


def brick(c: Canvas, style: Generator, rng: Generator) -> None:
    rows, aspect, base = style.uniform(4, 8), style.uniform(1.6, 3.0), random_colour(style)
    mortar, gap, spread = hsv(0.1, 0.1, style.uniform(0.4, 0.85)), style.uniform(0.04, 0.1), style.uniform(0.02, 0.12)
    v = c.v * rows / 2 + rng.uniform(0, 9)
    row = np.floor(v)
    u = c.u * rows / 2 / aspect + 0.5 * np.mod(row, 2) + rng.uniform(0, 9)
    tone = rng.random((32, 32))[np.mod(row, 32).astype(int), np.mod(np.floor(u), 32).astype(int)]
    edge = np.minimum(0.5 - np.abs(u - np.floor(u) - 0.5), 10) * aspect
    edge = np.minimum(edge, 0.5 - np.abs(v - row - 0.5))
    inside = smoothstep(gap * 0.6, gap * 1.4, edge)
    grain = fractal(rng, c.size, 14)
    colour = base * (1 + spread * (2 * tone - 1) + 0.05 * grain)[..., None]
    c.fill(blend(mortar * np.ones_like(colour), colour, inside), 0.05 * inside + 0.004 * grain)


def carpet(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq, mix = random_colour(style), style.uniform(14, 26), style.uniform(0.3, 0.6)
    other = base * style.uniform(0.4, 0.8)
    tuft = noise_at(rng, c.u * freq, c.v * freq) + 0.5 * noise_at(rng, c.u * freq * 2, c.v * freq * 2)
    c.fill(blend(other, base, 0.5 + mix * tuft), 0.03 * tuft)


def fabric(c: Canvas, style: Generator, rng: Generator) -> None:
    warp_colour, freq = random_colour(style), style.uniform(9, 20)
    weft_colour = np.clip(warp_colour * style.uniform(0.6, 1.3), 0, 1) if style.random() < 0.6 else random_colour(style)
    u = c.u * freq + 0.15 * noise_at(rng, c.u * 3, c.v * 3)
    v = c.v * freq + 0.15 * noise_at(rng, c.u * 3, c.v * 3)
    over = np.cos(PI * u) * np.cos(PI * v)
    grain = noise(rng, c.size, 40)
    surface = blend(weft_colour, warp_colour, smoothstep(-0.15, 0.15, over))
    relief = np.where(over > 0, np.abs(np.cos(PI * u)), np.abs(np.cos(PI * v)))
    c.fill(surface * (0.75 + 0.25 * relief + 0.03 * grain)[..., None], 0.3 / freq * relief)


def concrete(c: Canvas, style: Generator, rng: Generator) -> None:
    base, rough = hsv(style.random(), 0.12 * style.random(), style.uniform(0.4, 0.8)), style.uniform(0.05, 0.12)
    pores = style.uniform(5, 11)
    field = fractal(rng, c.size, 5, 5, 0.65)
    near, _, value = cellular(rng, c.u * pores, c.v * pores)
    pit = (1 - smoothstep(0.05, 0.14, near)) * (value > 0.6)
    c.fill(base * (1 + rough * field - 0.35 * pit)[..., None], 0.006 * field)


def marble(c: Canvas, style: Generator, rng: Generator) -> None:
    base, vein, freq = (
        random_colour(style, (0.6, 0.95), 0.25),
        random_colour(style, (0.2, 0.5), 0.4),
        style.uniform(2, 5),
    )
    u, v = turn(c.u, c.v, style.uniform(0, PI))
    bend = fractal(rng, c.size, 3, 4)
    line = 1 - np.abs(np.sin(freq * u + 1.2 * bend))
    c.fill(blend(base, vein, 0.75 * line**4 + 0.07 * fractal(rng, c.size, 8)) + 0.02 * v[..., None])


def sand(c: Canvas, style: Generator, rng: Generator) -> None:
    base, ripple, freq = hsv(style.uniform(0.06, 0.14), style.uniform(0.2, 0.5), style.uniform(0.6, 0.9)), 0.04, 3.0
    ripple, freq = style.uniform(0, 0.05), style.uniform(3, 7)
    grain = fractal(rng, c.size, 28, 2, 0.9)
    wave = np.sin(PI * freq * c.v + 1.5 * noise(rng, c.size, 4))
    c.fill(base * (1 + 0.09 * grain)[..., None], ripple * wave + 0.008 * grain)


def cork(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq = (
        hsv(0.08 + 0.03 * style.random(), style.uniform(0.3, 0.6), style.uniform(0.5, 0.85)),
        style.uniform(6, 12),
    )
    near, second, value = cellular(rng, c.u * freq, c.v * freq)
    seam = smoothstep(0.0, 0.16, second - near)
    grain = fractal(rng, c.size, 16, 3)
    c.fill(base * ((0.6 + 0.4 * seam) * (0.85 + 0.3 * value) + 0.06 * grain)[..., None], 0.012 * seam + 0.005 * grain)


def brushed_metal(c: Canvas, style: Generator, rng: Generator) -> None:
    base, stretch, angle = metal(style), style.uniform(12, 30), style.uniform(0, PI)
    u, v = turn(c.u, c.v, angle)
    line = noise_at(rng, u * 1.2, v * stretch) + 0.7 * noise_at(rng, u * 2.5, v * stretch * 2)
    sheen = np.exp(-((c.x - rng.uniform(-0.7, 0.7)) ** 2) / 0.3)
    c.fill(base * (0.9 + 0.09 * line + 0.2 * sheen)[..., None])


def paper(c: Canvas, style: Generator, rng: Generator) -> None:
    base = random_colour(style, (0.75, 0.97), 0.2)
    fibre = fractal(rng, c.size, 10, 4, 0.8)
    c.fill(base * (1 + 0.02 * fibre)[..., None], 0.003 * fibre)


def mesh(c: Canvas, style: Generator, rng: Generator) -> None:
    wire, hole, freq = metal(style), random_colour(style, (0.05, 0.3)), style.uniform(3.5, 7)
    width, skew = style.uniform(0.1, 0.2), PI / 4 * style.integers(2)
    u, v = turn(c.u, c.v, skew)
    a, _ = repeat(u * freq / 1.5 + rng.random(), 1.0)
    b, _ = repeat(v * freq / 1.5 + rng.random(), 1.0)
    c.fill(hole * (1 + 0.1 * fractal(rng, c.size, 6))[..., None])
    for across in (a, b):
        c.paint((np.abs(across) - width) * 1.5 / freq, wire, bevel=width * 1.4 / freq, gloss=0.3)
    c.alpha = np.ones_like(c.alpha)


def foam(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq, depth = random_colour(style, (0.5, 0.95)), style.uniform(6, 12), style.uniform(0.3, 0.6)
    near, second, value = cellular(rng, c.u * freq, c.v * freq, 0.8)
    wall = smoothstep(0.02, 0.35, second - near)
    c.fill(base * (1 - depth * wall * (0.5 + 0.5 * value))[..., None], -0.03 * wall)


def terrazzo(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq = random_colour(style, (0.6, 0.95), 0.2), style.uniform(4, 9)
    palette = np.stack([random_colour(style, (0.2, 0.85), 0.6) for _ in range(4)])
    near, second, value = cellular(rng, c.u * freq, c.v * freq, 0.95)
    chip = smoothstep(0.05, 0.1, second - near) * (value > 0.3) * (near < 0.45)
    colour = palette[np.clip(value * 4, 0, 3).astype(int)]
    c.fill(blend(base * np.ones_like(colour), colour, chip) * (1 + 0.02 * fractal(rng, c.size, 12))[..., None])


def felt(c: Canvas, style: Generator, rng: Generator) -> None:
    base = random_colour(style)
    fibre = sum(noise_at(rng, *turn(c.u * f, c.v * f * 4, a)) for f, a in ((5, 0.3), (6, 1.4), (5, 2.6)))
    c.fill(base * (1 + 0.09 * fibre + 0.05 * fractal(rng, c.size, 5))[..., None])


def knit(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq, slant = random_colour(style), style.uniform(5, 10), style.uniform(0.5, 1.0)
    u, _ = repeat(c.u * freq, 1.0)
    v = c.v * freq * 1.2 + slant * np.abs(u) * 2 + 0.2 * noise_at(rng, c.u * 3, c.v * 3)
    loop = np.abs(np.cos(PI * v)) * np.sqrt(
        np.clip(1 - 3.2 * (np.abs(u) - 0.25) ** 2 - 0.6 * (np.abs(u) > 0.48), 0.05, 1)
    )
    c.fill(base * (0.45 + 0.6 * loop + 0.03 * fractal(rng, c.size, 20))[..., None], 0.25 / freq * loop)


def corrugated(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq, angle = random_colour(style), style.uniform(3, 9), style.uniform(0, PI)
    square = style.uniform(0.5, 4)
    u, v = turn(c.u, c.v, angle)
    wave = np.tanh(square * np.sin(PI * freq * u + rng.uniform(0, 6))) / np.tanh(square)
    grain = fractal(rng, c.size, 12)
    c.fill(base * (0.85 + 0.15 * wave + 0.03 * grain)[..., None] + 0.01 * v[..., None], 0.12 / freq * wave, 0.2)


def granite(c: Canvas, style: Generator, rng: Generator) -> None:
    palette = np.stack([random_colour(style, (0.15, 0.9), 0.3) for _ in range(3)])
    freq = style.uniform(10, 20)
    _, _, value = cellular(rng, c.u * freq, c.v * freq)
    _, _, fine = cellular(rng, c.u * freq * 2, c.v * freq * 2)
    c.fill(0.7 * palette[(value * 2.999).astype(int)] + 0.3 * palette[(fine * 2.999).astype(int)])


def plaster(c: Canvas, style: Generator, rng: Generator) -> None:
    base, scale, depth = random_colour(style, (0.5, 0.95), 0.4), int(style.integers(4, 10)), style.uniform(0.01, 0.035)
    bump = np.abs(fractal(rng, c.size, scale, 3))
    c.fill(base * (1 + 0.02 * fractal(rng, c.size, 24, 2))[..., None], depth * bump)


def studs(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq, radius = random_colour(style, (0.15, 0.7)), style.uniform(2.5, 6), style.uniform(0.2, 0.4)
    u, column = repeat(c.u * freq + rng.random(), 1.0)
    v, _ = repeat(c.v * freq + 0.5 * np.mod(column, 2) + rng.random(), 1.0)
    t = np.clip(1 - (u * u + v * v) / radius**2, 0, 1)
    c.fill(base * (1 + 0.05 * fractal(rng, c.size, 16))[..., None], 0.6 * radius / freq * np.sqrt(t), 0.25)


def asphalt(c: Canvas, style: Generator, rng: Generator) -> None:
    base, freq = hsv(0.6, 0.08, style.uniform(0.2, 0.45)), style.uniform(12, 22)
    near, _, value = cellular(rng, c.u * freq, c.v * freq)
    stone = 1 - smoothstep(0.2, 0.5, near)
    c.fill(base * (0.7 + 0.7 * value * stone + 0.06 * fractal(rng, c.size, 8))[..., None], 0.02 * stone)


PAINTERS = (brick, carpet, fabric, concrete, marble, sand, cork, brushed_metal, paper, mesh, foam, terrazzo, felt, knit,
            corrugated, granite, plaster, studs, asphalt)  # fmt: skip

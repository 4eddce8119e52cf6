"""Anomaly maps as pictures: contact sheets of a category, all its maps on ONE colour scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from zipfile import ZIP_DEFLATED

import numpy as np
import scipy
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.files import atomic_path
from zsad_bench.core.names import safe_name
from zsad_bench.core.npz import save_arrays
from zsad_bench.core.sequences import evenly_spaced
from zsad_bench.core.spooled import Stack
from zsad_bench.data.geometry import Geometry
from zsad_bench.engine.looked_at import small_mask, small_photo
from zsad_bench.metrics.units import units_of
from zsad_bench.toolkit.maps import quantiles

Maps: TypeAlias = Sequence[NDArray[np.float32]]
"""One map (H, W) an image, read one by one."""

IMAGES_PER_SHEET = 12
WORST = 6
"""False positives, and as many misses, on the sheet of a category's worst images."""
TILE = 168
GAP = 6
TITLE = 30
_FONT_SIZES = (12, 11, 10)
OUTLINE = (0, 230, 118)
COLOURS = "inferno"
COLOUR_RANGE = 0.01, 0.999
"""Shares of a category's map values at which the colours begin and end."""
HALF_PRECISION = 2.0**-11
"""Largest relative error of a number that is rounded to float16, where its range suffices."""
# A sweep writes hundreds of sheets: this level takes a third of the time and a tenth more space than the default.
PNG_EFFORT = 3


def write_maps(
    folder: Path,
    category: str,
    dataset: Dataset,
    samples: Sequence[Sample],
    maps: Maps,
    what: str,
    geometry: Geometry,
) -> None:
    """Write ``<category>.png`` (``sheet``, ``all``) and ``<category>.npz`` (``all``: image_ids, maps).

    Stored maps have the type of :func:`stored_type`. A category whose name is no plain file name gets one from
    :func:`~zsad_bench.core.names.safe_name`.
    """
    name = safe_name(category)
    if what == "all":
        with atomic_path(folder / f"{name}.npz") as path, path.open("wb") as file:
            names = np.array([sample.image_id for sample in samples])
            kind = stored_type(maps)
            kept = Stack.of((anomaly_map.astype(kind) for anomaly_map in maps), kind, folder)
            save_arrays(file, {"image_ids": names}, {"maps": kept}, ZIP_DEFLATED)
    if what in ("sheet", "all"):
        sheet = contact_sheet(f"{dataset.name} / {category}", dataset, samples, maps, geometry)
        with atomic_path(folder / f"{name}.png") as path:
            sheet.save(path, format="PNG", compress_level=PNG_EFFORT)


def stored_type(maps: Maps) -> type[np.floating]:
    """Type of a category's stored maps: float16 if that holds every value to 2^-11 of itself, else float32.

    Values above 65504 would become infinite in float16, and those below 6e-5 lose digits.
    """
    with np.errstate(over="ignore"):
        fits = all(
            np.allclose(anomaly_map.astype(np.float16), anomaly_map, rtol=HALF_PRECISION, atol=0, equal_nan=True)
            for anomaly_map in maps
        )
    return np.float16 if fits else np.float32


def choose(samples: Sequence[Sample], maps: Maps) -> list[int]:
    """Which images to show: the strongest and evenly spaced weaker maps of both classes, anomalous images first."""
    peaks = [float(anomaly_map.max()) for anomaly_map in maps]
    anomalous = sorted(
        (i for i, sample in enumerate(samples) if sample.label == 1), key=lambda i: (-peaks[i], samples[i].image_id)
    )
    others = sorted(
        (i for i, sample in enumerate(samples) if sample.label != 1), key=lambda i: (-peaks[i], samples[i].image_id)
    )
    n_others = min(len(others), max(IMAGES_PER_SHEET // 3, IMAGES_PER_SHEET - len(anomalous)))
    return evenly_spaced(anomalous, IMAGES_PER_SHEET - n_others) + evenly_spaced(others, n_others)


def contact_sheet(
    title: str, dataset: Dataset, samples: Sequence[Sample], maps: Maps, geometry: Geometry
) -> Image.Image:
    """Photo with the true outline above, anomaly map below; the colour bar gives the scale of the whole category."""
    tiles = [
        (index, f"{samples[index].defect_type or 'no label'}  {samples[index].path.name}")
        for index in choose(samples, maps)
    ]
    return _sheet(title, dataset, samples, maps, geometry, tiles)


def write_worst(
    folder: Path,
    category: str,
    dataset: Dataset,
    samples: Sequence[Sample],
    maps: Maps,
    scores: Mapping[str, float],
    geometry: Geometry,
) -> None:
    """Write ``<category>.worst.png``: normal images with the highest and anomalous ones with the lowest scores.

    Objects are judged by their score and shown by one photo (:meth:`~zsad_bench.metrics.units.Units.telling`).

    Args:
        scores: image score by image id.
    """
    ordered = [scores[sample.image_id] for sample in samples]
    units = units_of(samples, ordered)
    tiles = []
    for kind, label in (("false alarm", 0), ("miss", 1)):
        for number in units.worst(label, WORST):
            index = units.telling(number, ordered)
            what = f"{units.defect_type(number)} {samples[index].path.stem}"
            tiles.append((index, f"{kind} {units.scores[number]:.3g}  {what}"))
    if tiles:
        sheet = _sheet(f"{dataset.name} / {category}: worst images", dataset, samples, maps, geometry, tiles)
        with atomic_path(folder / f"{safe_name(category)}.worst.png") as path:
            sheet.save(path, format="PNG", compress_level=PNG_EFFORT)


def _sheet(
    title: str,
    dataset: Dataset,
    samples: Sequence[Sample],
    maps: Maps,
    geometry: Geometry,
    tiles: Sequence[tuple[int, str]],
) -> Image.Image:
    """Tiles (position in ``samples``, caption) in rows of six."""
    low, high = quantiles(maps, COLOUR_RANGE)
    columns = min(6, max(1, len(tiles)))
    rows = -(-len(tiles) // columns)
    cell_height = 2 * TILE + GAP + 18
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, TITLE + rows * (cell_height + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZES[0])
    for position, (index, caption) in enumerate(tiles):
        left = GAP + (position % columns) * (TILE + GAP)
        top = TITLE + (position // columns) * (cell_height + GAP)
        photo, heat = _panels(dataset, samples[index], maps[index], geometry, low, high)
        draw.text((left, top), *_fitted(draw, caption))
        sheet.paste(photo, (left, top + 18))
        sheet.paste(heat, (left, top + 18 + TILE + GAP))
    _legend(sheet, draw, font, title, low, high)
    return sheet


def _fitted(draw: ImageDraw.ImageDraw, text: str) -> tuple[str, str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """A caption no wider than its tile, with colour and font: in smaller letters, or else cut."""
    for size in _FONT_SIZES:
        font = ImageFont.load_default(size)
        if draw.textlength(text, font) <= TILE:
            return text, "black", font
    while draw.textlength(text, font) > TILE:
        text = text[:-2].rstrip(".") + "."
    return text, "black", font


def _panels(
    dataset: Dataset, sample: Sample, anomaly_map: NDArray[np.float32], geometry: Geometry, low: float, high: float
) -> tuple[Image.Image, Image.Image]:
    small = Geometry(TILE, geometry.resize)
    photo = small_photo(dataset, sample, small).copy()
    inside = small_mask(dataset, sample, small) if sample.label == 1 else None
    scaled = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    heat = colormaps[COLOURS](scaled, bytes=True)[..., :3]
    heat = np.array(Image.fromarray(heat).resize((TILE, TILE), Image.Resampling.BILINEAR))
    if inside is not None:
        outline = scipy.ndimage.binary_dilation(inside, iterations=2) & ~inside
        photo[outline] = OUTLINE
        heat[outline] = OUTLINE
    return Image.fromarray(photo), Image.fromarray(heat)


def _legend(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    title: str,
    low: float,
    high: float,
) -> None:
    """Title at the left, colour bar with its two ends at the right of the first line."""
    bar = (colormaps[COLOURS](np.linspace(0, 1, 90))[None, :, :3] * 255).astype(np.uint8).repeat(12, axis=0)
    left_text, right_text = f"{low:.3g}", f"{high:.3g}"
    right = sheet.width - GAP - draw.textlength(right_text, font)
    draw.text((right, 8), right_text, "black", font)
    sheet.paste(Image.fromarray(bar), (int(right) - 96, 9))
    draw.text((right - 102 - draw.textlength(left_text, font), 8), left_text, "black", font)
    draw.text((GAP, 8), title, "black", font)

"""``zsad-bench data show``: a picture of a dataset, some images of every category with the outlines of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy
from PIL import Image, ImageDraw, ImageFont

from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import atomic_path
from zsad_bench.core.sequences import evenly_spaced

TILE = 144
GAP = 6
LINE = 16  # height of a line of text
OUTLINE = (0, 230, 118)


def write_sheet(dataset: Dataset, path: Path, per_category: int = 8) -> int:
    """Write the sheet of all selected categories as PNG; returns how many images it shows.

    Images keep their shape. What cannot be read is an empty tile that says so.

    Raises:
        UserError: the dataset or the file cannot be used, or no category has an image.
    """
    rows = {category: chosen(dataset.listed(category), per_category) for category in dataset.categories}
    rows = {category: samples for category, samples in rows.items() if samples}
    if not rows:
        raise UserError(f"{dataset.root}: no category has a test image to show")
    columns = max(len(samples) for samples in rows.values())
    height = LINE + GAP + len(rows) * (2 * LINE + TILE + GAP)
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((GAP, 2), f"{dataset.title} ({dataset.protocol})", "black", font)
    for row, (category, samples) in enumerate(rows.items()):
        top = LINE + GAP + row * (2 * LINE + TILE + GAP)
        draw.text((GAP, top), f"{category}: {dataset.class_name(category)}", "black", font)
        for column, sample in enumerate(samples):
            left = GAP + column * (TILE + GAP)
            name = f"{sample.defect_type or 'no label'}  {Path(sample.image_id).name}"
            draw.text((left, top + LINE), fit_text(draw, font, name), "dimgray", font)
            sheet.paste(_tile(dataset, sample), (left, top + 2 * LINE))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return sum(len(samples) for samples in rows.values())


def chosen(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most ``count`` samples, evenly spaced; about a third of them normal, every defect type while there is room."""
    others = [sample for sample in samples if sample.label != 1]
    anomalous = [sample for sample in samples if sample.label == 1]
    n_others = min(len(others), max(count // 3, count - len(anomalous)))
    kinds: dict[str, list[Sample]] = {}
    for sample in anomalous:
        kinds.setdefault(sample.defect_type, []).append(sample)
    turns = [evenly_spaced(group, count) for group in kinds.values()]
    mixed = [group[turn] for turn in range(count) for group in turns if turn < len(group)]
    return [*evenly_spaced(others, n_others), *sorted(mixed[: count - n_others], key=lambda sample: sample.image_id)]


def fit_text(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> str:
    """The text, or what of its beginning fits the width of a tile."""
    while draw.textlength(text, font) > TILE:
        text = text[:-2].rstrip(".") + "."
    return text


def _tile(dataset: Dataset, sample: Sample) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "gainsboro")
    try:
        image = dataset.read_image(sample)
        mask = dataset.read_mask(sample) if sample.label == 1 else None
    except UserError:
        ImageDraw.Draw(tile).text((GAP, TILE // 2), "cannot be read", "red", ImageFont.load_default(12))
        return tile
    scale = TILE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    pixels = np.array(image.resize(size, Image.Resampling.BICUBIC))
    if mask is not None and mask.any():
        shrunk = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        inside = np.asarray(shrunk) > 0  # the thinnest crack stays visible
        pixels[scipy.ndimage.binary_dilation(inside, iterations=2) & ~inside] = OUTLINE
    tile.paste(Image.fromarray(pixels), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile

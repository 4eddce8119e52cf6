"""Draw the contact sheet of the evaluation categories: normal images, then one image per defect type, outlined.

python tools/demo_contact_sheet.py docs/images/demo_contact_sheet.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from zsad_bench.datasets.demo.procedural import EVALUATION, plan, render

_TILE, _GAP, _CAPTION, _MARGIN = 120, 6, 16, 62
_NORMAL, _DEFECTIVE = 2, 6


def tile(category: str, index: int, defect: str | None) -> Image.Image:
    """One image at sheet size with the outline of its mask in red."""
    rendering = render(category, index, defect=defect, seed=0)
    pixels = rendering.image.copy()
    around = ndimage.binary_dilation(rendering.mask, iterations=4) & ~ndimage.binary_dilation(
        rendering.mask, iterations=2
    )
    pixels[around] = (255, 30, 30)
    return Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.LANCZOS)


def sheet() -> Image.Image:
    """The whole sheet: one row per category."""
    columns = _NORMAL + _DEFECTIVE
    width = _MARGIN + columns * (_TILE + _GAP)
    height = _GAP + len(EVALUATION) * (_TILE + _CAPTION + _GAP)
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for row, category in enumerate(EVALUATION):
        top = _GAP + row * (_TILE + _CAPTION + _GAP)
        draw.text((_GAP, top + _TILE // 2), category, fill="black", font=ImageFont.load_default(13), anchor="lm")
        # The last image of each type among the test images of the demo: types in turn, sizes mixed.
        jobs = plan(category, 18, 22, seed=0)
        chosen = jobs[:_NORMAL] + jobs[18 + _DEFECTIVE : 18 + 2 * _DEFECTIVE]
        for column, (index, defect) in enumerate(chosen):
            left = _MARGIN + column * (_TILE + _GAP)
            page.paste(tile(category, index, defect), (left, top))
            name = "normal" if defect is None else defect.replace("_", " ")
            draw.text((left + _TILE // 2, top + _TILE + 1), name, fill="black", font=font, anchor="ma")
    return page


if __name__ == "__main__":
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/demo_contact_sheet.png")
    output.parent.mkdir(parents=True, exist_ok=True)
    page = sheet()
    # A palette keeps the file small enough for a repository; given explicitly, it is dithered and shows no bands.
    page.quantize(palette=page.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(output, optimize=True)
    print(f"{np.round(output.stat().st_size / 1e3):.0f} kB written to {output}")

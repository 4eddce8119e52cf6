"""Image and mask files to pixels: the only place where Pillow meets a user's files.

Rules (``docs/datasets.md`` gives the reasons):

- The EXIF orientation is applied, to masks too.
- Colour images become 8-bit RGB. Alpha is dropped, not blended, as ``convert("RGB")`` does in the reference codes.
- 16-bit grey keeps its high byte (``value // 256``), which is also what Pillow does with 16-bit colour.
- Masks are compared with a threshold in the units of the file, before any resizing. A palette mask holds class
  numbers, so its indices are compared and its colours are not looked at.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zsad_bench.core.errors import UserError

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
)

_JPEG_BLOCK = 16  # pixels; the largest unit in which JPEG files store colour
_EXIF_ORIENTATION = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD, _PNG_CHECKSUM = struct.Struct(">I4s"), 4
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # where Pillow looks, besides eXIf
_QUARTER_TURNS = frozenset({5, 6, 7, 8})  # orientations that swap width and height


class UnreadableImage(UserError):  # noqa: N818 - the name says what the user has, as FileNotFound does
    """An image or mask file that is missing, empty, truncated, not an image, or of a kind that is not supported."""


def has_image_extension(path: Path) -> bool:
    """True when the file name ends like an image's, in any case (``.JPG``)."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def read_image_file(path: Path) -> Image.Image:
    """Decode a file to an upright 8-bit RGB image. Raises UnreadableImage naming the file."""
    return _to_rgb(_decode(path), path)


def read_reduced_image(path: Path, minimum: int) -> Image.Image:
    """As :func:`read_image_file`, but a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster.

    Args:
        path: the file; formats other than JPEG are decoded in full.
        minimum: both sides of the result have at least this many pixels, unless the file itself has fewer.

    Only files whose sides are multiples of 16 pixels are reduced. Others end in blocks that reach beyond the image; a
    reduced decode would let that invisible content into the last rows and columns.
    """
    return _to_rgb(_decode(path, minimum), path)


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in {"I", "I;16", "I;16L", "I;16B", "I;16N"}:
        image = _high_byte(image, path)
    elif image.mode == "F":
        raise UnreadableImage(f"{path}: floating-point pixels have no agreed range; save it with 8 or 16 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same colours, but Pillow warns about it
    return in_rgb(image)


def in_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB; the same object if it is, where ``convert`` alone would copy it."""
    return image if image.mode == "RGB" else image.convert("RGB")


def read_image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of the upright image, decoding only if the format needs it."""
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":  # Pillow turns these itself and reports the turned size early or late
                image.load()
                return image.height, image.width
            width, height = image.size
            if image.format == "PNG" and not _png_has_exif(path):
                return height, width
            turned = image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
    except Exception as error:
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def _png_has_exif(path: Path) -> bool:
    """Whether a chunk of a PNG can hold an orientation; only the heads of chunks are read.

    Such a chunk may follow the pixels, so Pillow decodes the whole image before it answers.
    """
    with path.open("rb") as file:
        file.seek(len(_PNG_SIGNATURE))
        while len(head := file.read(_PNG_HEAD.size)) == _PNG_HEAD.size:
            length, kind = _PNG_HEAD.unpack(head)
            start = file.tell()
            if kind == b"eXIf" or (kind in _PNG_TEXTS and file.read(80).startswith(_EXIF_TEXTS)):
                return True
            file.seek(start + length + _PNG_CHECKSUM)
    return False


def read_mask_file(path: Path, threshold: int) -> np.ndarray:
    """Read a mask file: bool (H, W), true where a pixel is anomalous, at the file's own size.

    ``threshold`` is in the units of the file: 0 to 255 for 8 bits, 0 to 65535 for 16 bits, class numbers for palette
    images. A pixel is anomalous when it is *greater*; in colour masks any channel is enough and alpha is ignored.
    Raises UnreadableImage naming the file.
    """
    image = _decode(path)
    if image.mode == "1":
        image = image.convert("L")  # 0/255, so that a threshold such as 127 means the same as in 8-bit files
    elif image.mode in {"LA", "La", "PA"}:
        image = image.getchannel(0)
    elif image.mode in {"RGBA", "RGBa", "RGBX"}:
        image = Image.merge("RGB", [image.getchannel(band) for band in range(3)])
    elif image.mode in {"CMYK", "YCbCr", "LAB", "HSV"}:
        image = image.convert("RGB")
    above = np.asarray(np.asarray(image) > threshold)
    return np.asarray(above.any(axis=2)) if above.ndim == 3 else above


def palette_background(path: Path) -> tuple[int, int, int] | None:
    """Colour (0 to 255) of index 0 of a palette mask, None for other images. Raises UnreadableImage.

    Palette masks with class numbers have black there. Another colour may mean that a tool has renumbered the palette.
    """
    image = _decode(path)
    if image.mode != "P":
        return None
    red, green, blue = (image.getpalette("RGB") or [0, 0, 0])[:3]
    return red, green, blue


def _decode(path: Path, minimum: int | None = None) -> Image.Image:
    """Decode and turn upright, in the file's own mode; a JPEG at a reduced scale if ``minimum`` allows it."""
    try:
        with Image.open(path) as image:
            if minimum is not None and not any(side % _JPEG_BLOCK for side in image.size):
                image.draft(None, (minimum, minimum))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # not in place it copies images that are upright already
            return image
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on damaged files: SyntaxError, struct.error, KeyError...
        raise _unreadable(path, error) from error


def _high_byte(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(f"{path}: 32-bit pixels have no agreed range; save it with 8 or 16 bits")
    return Image.fromarray((values // 256).astype(np.uint8))


def _unreadable(path: Path, error: Exception) -> UnreadableImage:
    if isinstance(error, FileNotFoundError):
        reason, remedy = "the file does not exist", "restore it (a broken link also looks like this)"
    elif isinstance(error, PermissionError):
        reason, remedy = "the file may not be read", "change its permissions"
    elif isinstance(error, IsADirectoryError):
        reason, remedy = "this is a folder, not an image file", "rename or remove it"
    elif path.is_file() and path.stat().st_size == 0:
        reason, remedy = "the file is empty (0 bytes)", "restore it or remove it"
    elif isinstance(error, UnidentifiedImageError):
        reason, remedy = "not an image, or of a format that is not supported", "restore it or remove it"
    else:
        reason, remedy = f"the image cannot be decoded ({error})", "restore it or remove it"
    return UnreadableImage(f"{path}: {reason}; {remedy}")

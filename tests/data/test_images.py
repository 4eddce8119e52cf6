"""The data contract: reading images and masks, selection, and messages for everything that goes wrong."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.helpers.miniatures import write_image, write_mask
from zsad_bench.contract import Dataset, Index, Sample
from zsad_bench.core.errors import UserError
from zsad_bench.data.images import (
    UnreadableImage,
    palette_background,
    read_image_file,
    read_image_size,
    read_mask_file,
    read_reduced_image,
)


class Fixed(Dataset):
    """A dataset whose samples the test gives."""

    def __init__(self, root, samples=(), **options):
        super().__init__(root=root, name="fixed", **options)
        self.given = list(samples)

    def _index(self):
        return Index(categories={s.category for s in self.given}, test=list(self.given))


def sample(root, name, category="nut", label=0, mask=None):
    return Sample(name, root / name, category, label, "good" if label == 0 else "hole", mask and root / mask)


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_importing_the_data_module_does_not_import_torch_or_pandas():
    code = (
        "import sys, zsad_bench.contract.dataset; print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- images


STORED_MODES = {".png": ["L", "RGB", "1", "P"], ".JPG": ["L", "RGB", "CMYK"], ".bmp": ["L", "RGB", "1", "P"]}
STORED_MODES[".tif"] = ["L", "RGB", "1", "P", "CMYK"]


@pytest.mark.parametrize(("extension", "mode"), [(ext, mode) for ext, modes in STORED_MODES.items() for mode in modes])
def test_every_mode_becomes_rgb(tmp_path, mode, extension):
    path = tmp_path / f"a{extension}"
    write_image(path, mode=mode)
    image = read_image_file(path)
    assert (image.mode, image.size) == ("RGB", (12, 9))
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(path).convert("RGB")))


def test_alpha_is_dropped_not_blended(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 0] = 200  # transparent red
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (np.asarray(read_image_file(tmp_path / "a.png")) == [200, 0, 0]).all()


def test_palette_with_transparency_gives_colours_without_a_warning(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=b"\x00\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image_file(tmp_path / "a.png")
    assert np.asarray(found).tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path, extension):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{extension}")
    pixels = np.asarray(read_image_file(tmp_path / f"a{extension}"))
    assert np.array_equal(pixels, np.repeat((values // 256).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("array", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70000, np.int32)])
def test_pixels_without_an_agreed_range_are_refused(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="8 or 16 bits") as error:
        read_image_file(tmp_path / "a.tif")
    assert "a.tif" in one_line(error)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, extension, orientation):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16] = 255  # upper left
    path = tmp_path / f"a{extension}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    pixels = np.asarray(read_image_file(path))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() < 30
    assert read_image_size(path) == upright.shape[:2]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@pytest.mark.parametrize("behind_the_pixels", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        chunk(b"eXIf", EXIF),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n32\n" + b"Exif\0\0".hex().encode() + EXIF.hex().encode()),
        ),
        chunk(b"tEXt", b"Software\0a camera"),
        chunk(b"tEXt", b"Comment\0eXIf"),
        b"",
    ],
    ids=["exif", "xmp", "exif in a text", "software", "comment", "nothing"],
)
def test_the_size_of_a_png_needs_no_decoding_and_is_that_of_its_pixels(tmp_path, more, behind_the_pixels):
    buffer = io.BytesIO()
    textured(32, 16).save(buffer, "PNG")
    content = buffer.getvalue()
    place = content.index(b"IEND") - 4 if behind_the_pixels else content.index(b"IDAT") - 4
    path = tmp_path / "a.png"
    path.write_bytes(content[:place] + more + content[place:])
    image = read_image_file(path)
    assert read_image_size(path) == (image.height, image.width)


def test_the_size_of_a_plain_png_is_read_from_the_heads_of_its_chunks(tmp_path, monkeypatch):
    textured(32, 16).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)  # would be called to decode
    assert read_image_size(tmp_path / "a.png") == (16, 32)


def damaged_files():
    png, jpg = io.BytesIO(), io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(png, "PNG")
    noise.save(jpg, "JPEG")
    yield "truncated.png", png.getvalue()[:4000], "decoded"
    yield "truncated.jpg", jpg.getvalue()[:1500], "decoded"
    yield "broken_chunk.png", png.getvalue()[:60] + b"\0" * 40 + png.getvalue()[100:], "decoded"
    yield "empty.png", b"", "0 bytes"
    yield "text.png", b"not an image", "not an image"
    yield "header_only.bmp", b"BM", "not an image|decoded"


@pytest.mark.parametrize(("name", "content", "reason"), list(damaged_files()))
def test_damaged_files_give_one_line_that_names_the_file(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_image_file, lambda p: read_mask_file(p, 0)):
        with pytest.raises(UnreadableImage, match=reason) as error:
            read(path)
        assert str(path) in one_line(error)


def test_missing_file_broken_link_and_folder(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    for name, reason in {"none.png": "not exist", "link.png": "not exist", "folder.png": "folder"}.items():
        for read in (read_image_file, read_image_size):
            with pytest.raises(UnreadableImage, match=reason) as error:
                read(tmp_path / name)
            assert name in one_line(error)


# --- reduced decoding of JPEG files


def textured(width, height):
    rows, columns = np.mgrid[:height, :width]
    grey = 127 + 60 * np.sin(rows / 9) + 60 * np.sin(columns / 13)
    return Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("width", "height", "minimum", "reduced"),
    [
        (1600, 1056, 480, (800, 528)),
        (1600, 1600, 200, (200, 200)),
        (640, 640, 480, (640, 640)),
        (1600, 1060, 480, (1600, 1060)),  # 1060 is not a multiple of 16
        (320, 2048, 480, (320, 2048)),
    ],
)
def test_reduced_decoding_keeps_at_least_the_minimum(tmp_path, width, height, minimum, reduced):
    path = tmp_path / "a.jpg"
    textured(width, height).save(path, quality=90)
    found = read_reduced_image(path, minimum)
    assert (found.mode, found.size) == ("RGB", reduced)
    whole = read_image_file(path)
    if reduced == whole.size:
        assert np.array_equal(np.asarray(found), np.asarray(whole))
    size = (minimum // 2, minimum // 2)
    pixels = [np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(int) for image in (found, whole)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 4


def test_reduced_decoding_of_pixel_noise_is_the_worst_case(tmp_path):
    """No photo looks like this: docs/datasets.md states how far the numbers are from those of photos."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=75)
    images = read_image_file(tmp_path / "a.jpg"), read_reduced_image(tmp_path / "a.jpg", 480)
    whole, reduced = (np.asarray(image.resize((240, 240), Image.Resampling.BICUBIC)).astype(int) for image in images)
    error = np.abs(reduced - whole)
    assert 1 < error.mean() <= 4
    assert error.max() <= 30


def test_reduced_decoding_turns_images_and_leaves_other_formats_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    textured(1600, 800).save(tmp_path / "turned.jpg", exif=exif)
    assert read_reduced_image(tmp_path / "turned.jpg", 400).size == (400, 800)
    textured(1600, 800).save(tmp_path / "a.png")
    assert read_reduced_image(tmp_path / "a.png", 100).size == (1600, 800)
    with pytest.raises(UnreadableImage, match=r"gone\.jpg"):
        read_reduced_image(tmp_path / "gone.jpg", 100)


def test_a_dataset_reduces_only_if_asked_and_its_masks_keep_the_full_size(tmp_path):
    textured(1600, 800).save(tmp_path / "a.jpg")
    write_mask(tmp_path / "m.png", np.ones((800, 1600), bool))
    one = sample(tmp_path, "a.jpg", label=1, mask="m.png")
    exact, fast = Fixed(tmp_path, [one]), Fixed(tmp_path, [one], fast_jpeg=True)
    assert exact.read_image(one, 100).size == fast.read_image(one).size == (1600, 800)
    assert fast.read_image(one, 100).size == (400, 200)
    assert fast.read_mask(one).shape == (800, 1600)
    assert exact.content_key(one) != fast.content_key(one)


# --- masks


def region():
    return np.random.default_rng(3).random((5, 7)) < 0.4


@pytest.mark.parametrize("value", [1, 9, 128, 255])
def test_grey_masks_are_compared_with_the_threshold(tmp_path, value):
    Image.fromarray((region() * value).astype(np.uint8)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask_file(tmp_path / "m.png", 0), region())
    assert np.array_equal(read_mask_file(tmp_path / "m.png", 127), region() & (value > 127))


@pytest.mark.parametrize("threshold", [0, 127, 254])
def test_one_bit_masks_mean_0_and_255(tmp_path, threshold):
    Image.fromarray(region()).save(tmp_path / "m.png")
    assert np.array_equal(read_mask_file(tmp_path / "m.png", threshold), region())


def test_palette_masks_are_read_by_index(tmp_path):
    image = Image.fromarray(region().astype(np.uint8), mode="P")
    image.putpalette([255, 255, 255, 0, 0, 0])  # colours would tell the opposite
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask_file(tmp_path / "m.png", 0), region())
    assert palette_background(tmp_path / "m.png") == (255, 255, 255)
    write_mask(tmp_path / "grey.png", region())
    assert palette_background(tmp_path / "grey.png") is None


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("alpha", [None, 0, 255])
def test_any_colour_channel_counts_and_alpha_does_not(tmp_path, channel, alpha):
    pixels = np.zeros((5, 7, 3 if alpha is None else 4), np.uint8)
    pixels[region(), channel] = 3
    if alpha is not None:
        pixels[..., 3] = alpha
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert np.array_equal(read_mask_file(tmp_path / "m.png", 0), region())


def test_grey_masks_with_alpha_and_16_bits(tmp_path):
    Image.fromarray(np.stack([region() * 255, np.full((5, 7), 255)], axis=2).astype(np.uint8)).save(tmp_path / "la.png")
    assert np.array_equal(read_mask_file(tmp_path / "la.png", 0), region())
    Image.fromarray((region() * 300).astype(np.uint16)).save(tmp_path / "16.png")
    assert np.array_equal(read_mask_file(tmp_path / "16.png", 0), region())
    assert np.array_equal(read_mask_file(tmp_path / "16.png", 299), region())
    assert not read_mask_file(tmp_path / "16.png", 300).any()


# --- Dataset


def test_masks_of_normal_unknown_and_bare_samples(tmp_path):
    for name in ("n.png", "a.png", "u.png"):
        write_image(tmp_path / name)
    samples = [sample(tmp_path, "n.png"), sample(tmp_path, "a.png", label=1), sample(tmp_path, "u.png", label=None)]
    data = Fixed(tmp_path, samples)
    zeros = data.read_mask(samples[0])
    assert zeros.shape == (9, 12)
    assert zeros.dtype == bool
    assert not zeros.any()
    assert data.read_mask(samples[1]) is None
    assert data.read_mask(samples[2]) is None


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_the_mask_of_a_turned_photo_has_the_size_of_the_upright_image(tmp_path, read_first, extension):
    exif = Image.Exif()
    exif[0x0112] = 6
    name = f"a{extension}"
    Image.new("RGB", (12, 9)).save(tmp_path / name, exif=exif)
    write_mask(tmp_path / "upright.png", np.ones((12, 9), bool))
    write_mask(tmp_path / "lying.png", np.ones((9, 12), bool))
    data = Fixed(tmp_path)
    upright, lying = (sample(tmp_path, name, label=1, mask=mask) for mask in ("upright.png", "lying.png"))
    if read_first:
        assert data.read_image(upright).size == (9, 12)
    assert data.read_mask(upright).shape == (12, 9)
    assert data.read_mask(sample(tmp_path, name)).shape == (12, 9)
    with pytest.raises(UserError) as error:
        data.read_mask(lying)
    assert all(text in one_line(error) for text in ("lying.png", name, "12 x 9", "9 x 12"))


def test_class_names_and_textures(tmp_path):
    data = Fixed(tmp_path, class_names={"pcb1": "printed circuit board"}, textures=["wood"])
    assert data.class_name("pcb1") == "printed circuit board"
    assert data.class_name("metal_nut-2") == "metal nut 2"
    assert data.is_texture("wood")
    assert not data.is_texture("pcb1")


def test_categories_are_selected_sorted_and_checked(tmp_path):
    samples = [sample(tmp_path, f"{c}.png", category=c) for c in ("cable", "bottle", "metal_nut")]
    assert Fixed(tmp_path, samples).categories == ("bottle", "cable", "metal_nut")
    assert Fixed(tmp_path, samples, categories=["metal_nut", "cable", "cable"]).categories == ("cable", "metal_nut")
    with pytest.raises(UserError, match=r"'Metal_nuts'.*did you mean 'metal_nut'") as error:
        _ = Fixed(tmp_path, samples, categories=["Metal_nuts"]).categories
    assert "dataset.categories" in one_line(error)
    with pytest.raises(UserError, match=r"'zzz'.*bottle, cable, metal_nut"):
        Fixed(tmp_path, samples).samples("zzz")
    with pytest.raises(UserError, match="selects nothing"):
        _ = Fixed(tmp_path, samples, categories=[]).categories


def test_a_split_without_images_is_refused(tmp_path):
    data = Fixed(tmp_path, [sample(tmp_path, "a.png")])
    with pytest.raises(UserError, match="'nut' has no train image") as error:
        data.samples("nut", "train")
    one_line(error)


def test_missing_root_names_the_path_the_settings_and_the_page(tmp_path):
    data = Fixed(tmp_path / "gone", title="Nuts", page="https://example.org/nuts")
    with pytest.raises(UserError, match="does not exist") as error:
        _ = data.categories
    message = one_line(error)
    assert all(text in message for text in (str(tmp_path / "gone"), "dataset.root=", "ZSAD_DATA", "example.org/nuts"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        _ = Fixed(tmp_path / "file").categories


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Fixed("~/data").root == Path(tmp_path / "data")


@pytest.mark.parametrize("value", [-1, 1.5, "0", True, 65535])
def test_impossible_thresholds_are_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"dataset\.mask_threshold"):
        Fixed(tmp_path, mask_threshold=value)


def test_a_text_instead_of_a_list_of_categories_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"dataset.categories=\[bottle\]"):
        Fixed(tmp_path, categories="bottle")


def test_an_image_in_two_places_is_reported(tmp_path):
    a, b = sample(tmp_path, "a.png"), sample(tmp_path, "a.png", category="bolt")
    twice = Fixed(tmp_path, [a, a])
    with pytest.raises(UserError, match="listed 2 times"):
        twice.samples("nut")
    with pytest.raises(UserError, match="several categories"):
        Fixed(tmp_path, [a, b]).samples("bolt")

"""Random roots: never a traceback, never a wrong pair, and whatever is not used is reported."""

from __future__ import annotations

import io
import shutil
import tempfile
import unicodedata
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from zsad_bench.data import SPLITS
from zsad_bench.data_check import inspect
from zsad_bench.datasets.folder import Folder
from zsad_bench.datasets.meta_json import MetaJson
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.datasets.visa import VisA
from zsad_bench.errors import UserError

FOLDERS = ["", "a", "a/test", "a/test/good", "a/test/hole", "a/test/hole/deep", "a/train/good", "a/train"]
FOLDERS += [
    "a/ground_truth",
    "a/ground_truth/hole",
    "a/ground_truth/good",
    "good",
    "hole",
    "masks",
    "masks/hole",
    "images",
]
STEMS = ["0", "1", "0_mask", "1_MASK", "0_gt", "é", "e\u0301", "A", "a", " ", "[x]", ".hidden", "Thumbs"]
EXTENSIONS = [".png", ".PNG", ".jpg", ".txt", "", ".db"]
KINDS = ["image", "small", "empty", "text", "link", "directory", "broken link"]

files = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(STEMS), st.sampled_from(EXTENSIONS), st.sampled_from(KINDS)),
    max_size=14,
)


def png(size) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, 9).save(buffer, "PNG")
    return buffer.getvalue()


BYTES = {"image": png((4, 3)), "small": png((2, 2)), "empty": b"", "text": b"text"}


def write(root: Path, entries) -> None:
    for folder, stem, extension, kind in entries:
        path = root / folder / f"{stem}{extension}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                path.symlink_to(root)
            elif kind == "broken link":
                path.symlink_to(root / "gone")
            elif kind == "directory":
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(BYTES[kind])
        except OSError:
            continue  # two entries of one path that do not go together


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=files, split_file=st.booleans())
def test_random_roots(entries, split_file):
    root = Path(tempfile.mkdtemp())
    try:
        write(root, entries)
        if split_file:
            (root / "split_csv").mkdir()
            rows = "object,split,label,image,mask\na,test,normal,a/test/good/0.png,\n"
            (root / "split_csv/1cls.csv").write_text(rows)
        for loader in (MVTec, Folder, VisA, MetaJson):
            examine(loader(root=root, name="fuzz"))
    finally:
        shutil.rmtree(root)


def outcome(call):
    """What the call returns, or its UserError after checking that it is one line; other errors fail the test."""
    try:
        return call()
    except UserError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return UserError(message)


def examine(data) -> None:
    found = outcome(lambda: inspect(data, Console(file=io.StringIO())))
    if isinstance(found, UserError):
        return
    _, problems = found
    samples = [s for category in data.categories for split in SPLITS for s in data.listed(category, split)]
    for sample in samples:
        check_pair(data, sample)
    for category in data.categories:
        if isinstance(outcome(lambda c=category: data.samples(c)), UserError):
            assert any(p.severity == "error" and p.category in ("", category) for p in problems)
    if isinstance(data, MVTec):
        known = {s.image_id for s in samples} | {p.path for p in problems}
        for path in (data.root / "a").glob("t*/**/*"):
            name = path.relative_to(data.root)
            if path.is_dir() or path.suffix.lower() not in {".png", ".jpg"} or path.name.startswith("."):
                continue
            assert known & {name.as_posix(), *(parent.as_posix() for parent in list(name.parents)[:-2])}, name


def check_pair(data, sample) -> None:
    """A pair is right when the mask's name says so; reading gives a fitting mask or a UserError."""
    if sample.mask_path is not None:
        stem = unicodedata.normalize("NFC", sample.path.stem).lower()
        mask_stem = unicodedata.normalize("NFC", sample.mask_path.stem).lower()
        assert (
            mask_stem in {f"{stem}{suffix}" for suffix in ("", "_mask", "_gt")} or sample.mask_path.parent.name == stem
        )
    mask, image = outcome(lambda: data.read_mask(sample)), outcome(lambda: data.read_image(sample))
    if not isinstance(mask, UserError) and not isinstance(image, UserError):
        assert mask is None or mask.shape == (image.height, image.width)

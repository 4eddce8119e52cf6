"""Random roots: never a traceback, never a wrong pair, and whatever is not used is reported."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import unicodedata
from pathlib import Path

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from zsad_bench.cli.data.check import inspect
from zsad_bench.contract import SPLITS
from zsad_bench.core.errors import UserError
from zsad_bench.datasets.folder import Folder
from zsad_bench.datasets.meta_json import MetaJson
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.datasets.original_or_copy import Published
from zsad_bench.datasets.visa import VisA
from zsad_bench.engine.dataset_card import cards, dataset_at

RAILS = "Type-I RSDDs dataset"
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
EXAMPLES = int(os.environ.get("ZSAD_FUZZ_EXAMPLES", "40"))  # more for a long search
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking roots takes minutes
SUFFIXES = ("", "_mask", "_gt", "_label", "_segmentation")
KINDS = ["image", "small", "empty", "text", "link", "directory", "broken link"]

files = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(STEMS), st.sampled_from(EXTENSIONS), st.sampled_from(KINDS)),
    max_size=14,
)


# For every layout: folders in which files may lie, and the places of which every image must be accounted for.
LAYOUTS = {
    "dagm": (
        ["", "Class1/Train", "Class1/Test", "Class1/Test/Label", "Class2/Test", "Class2/Test/Label"],
        "Class*/T*/*",
    ),
    "ksdd": (["", "kos01", "kos02", "kos02/deep", "other"], "kos*/*"),
    "ksdd2": (["", "train", "test", "test/deep"], "t*/*"),
    "mvtec_loco": (
        ["a/test/good", "a/test/logical", "a/ground_truth/logical/0", "a/ground_truth/logical/1"],
        "a/test/*/*",
    ),
    "mvtec_ad2": (
        ["a/train/good", "a/test_public/good", "a/test_public/bad", "a/test_public/ground_truth/bad"],
        "a/test_public/[gb]*d/*",
    ),
    "rsdd": (
        ["", f"{RAILS}/Rail surface images", f"{RAILS}/GroundTruth", f"{RAILS}/GroundTruth/deep"],
        f"{RAILS}/R*/*",
    ),
    "clinicdb": (["", "Original", "Ground Truth", "Original/deep", "images", "masks"], "Original/*"),
    "gc10": (["", "1", "2", "10", "11", "lable"], "[12]/*"),
    "bsd": (["", "data", "label", "data/deep"], "data/*"),
    "msd": (["", "JPEGImages", "SegmentationClass"], "JPEGImages/*"),
    "crackforest": (["", "image", "groundTruth"], "image/*"),
    "magnetic_tile": (["", "MT_Free/Imgs", "MT_Break/Imgs", "MT_Fray"], "MT_*/Imgs/*"),
    "br35h": (["", "no", "yes", "pred", "no/deep"], "[ny]*/*"),
    "headct": (["", "head_ct", "head_ct/head_ct"], "head_ct/*"),
    "elpv": (["", "images"], ""),
    "real_iad": (["realiad_512/a/OK", "realiad_512/a/NG", "realiad_jsons"], ""),
    "auto": (
        ["", "Class1/Test/Label", "kos01", "no", "yes", "images", "masks", "a/test/good", "test/hole", "train"],
        "",
    ),
}
PROTOCOLS = {key: tuple(cards()[key].about.protocols or [None]) for key in LAYOUTS}
LAYOUT_STEMS = [
    "0",
    "1",
    "0_mask",
    "1_label",
    "0_GT",
    "1_gt_label",
    "01",
    "É",
    "e\u0301",
    "A",
    "a",
    ".hidden",
    "Thumbs",
    "labels",
]
LAYOUT_EXTENSIONS = [".png", ".PNG", ".jpg", ".tif", ".json", ".xml", ".mat", ".csv", ""]
# Two copies of a dataset in one root, of which only the second has its masks.
UNFINISHED_BESIDE_COMPLETE = [
    ("Original", "a", ".tif", "link"),
    ("Original", "A", ".jpg", "image"),
    ("images", "0", ".png", "image"),
    ("masks", "0", ".png", "image"),
]
TEXTS = [
    "",
    "{",
    "[]",
    "null",
    '{"test": []}',
    '{"train": [1], "test": [{"image_path": "OK/0.png", "anomaly_class": "OK"}]}',
]
TEXTS += [
    '{"shapes": [{"points": [[0, 0], [3, 0], [3, 2]]}]}',
    '{"shapes": [{"points": [[0, "x"]]}]}',
    "<annotation>",
    "<a/>",
]
TEXTS += [
    "<a><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>2</ymax></bndbox></a>",
    "id, hemorrhage\n0,0\n1,1\n",
]
TEXTS += ["images/0.png 1.0 mono\nimages/1.png 0 poly\n", "images/0.png 7 mono\n", "a,b\n1,2\n", "\0", "0\n1\n"]


@st.composite
def layouts(draw):
    key = draw(st.sampled_from(sorted(LAYOUTS)))
    one = st.tuples(
        st.sampled_from(LAYOUTS[key][0]),
        st.sampled_from(LAYOUT_STEMS),
        st.sampled_from(LAYOUT_EXTENSIONS[:4] * 2 + LAYOUT_EXTENSIONS),
        st.one_of(
            st.sampled_from([*KINDS, "image", "image", "image", "locked"]), st.sampled_from(TEXTS).map("text:".__add__)
        ),
    )
    return key, draw(st.lists(one, max_size=16))


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
            elif kind.startswith("text:"):
                path.write_text(kind.removeprefix("text:"))
            elif kind == "locked":
                path.write_bytes(BYTES["image"])
                path.chmod(0)
            else:
                path.write_bytes(BYTES[kind])
        except OSError:
            continue  # two entries of one path that do not go together


@settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
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


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, phases=QUICK, suppress_health_check=list(HealthCheck))
@given(layout=layouts())
@example(layout=("clinicdb", UNFINISHED_BESIDE_COMPLETE))
@example(layout=("ksdd2", [("train", "0", ".tif", "image"), ("train", "0_GT", ".PNG", "text:")]))
def test_random_roots_of_every_layout(layout):
    key, entries = layout
    root = Path(tempfile.mkdtemp())
    try:
        write(root, entries)
        for protocol in {*PROTOCOLS[key]}:
            data = outcome(lambda p=protocol: dataset_at(key, root, protocol=p))
            if isinstance(data, UserError):
                continue
            problems = examine(data)
            leaves_some_out = protocol in ("private", "private_mixed", "labelled", "test_split")
            if problems is not None and not leaves_some_out and isinstance(data, Published) and data.copy is None:
                account_for_every_image(data, problems, LAYOUTS[key][1])
    finally:
        shutil.rmtree(root)


def account_for_every_image(data, problems, pattern) -> None:
    """An image in a place that the layout reads is a sample, a mask of one, or a problem."""
    samples = [s for category in data.categories for split in SPLITS for s in data.listed(category, split)]
    used = {s.path for s in samples} | {path for s in samples for path in data.mask_files(s)}
    named = {p.path for p in problems}
    not_read = {p.path for p in problems if "not read" in p.message}
    stems = {(s.path.parent, unicodedata.normalize("NFC", s.path.stem).casefold()) for s in samples}
    for path in data.root.glob(pattern) if pattern else ():
        name = path.relative_to(data.root)
        if path.is_dir() or path.suffix.lower() not in {".png", ".jpg", ".tif"} or path.name.startswith("."):
            continue
        stem = unicodedata.normalize("NFC", path.stem).casefold()
        of_normal = {(path.parent, stem[: len(stem) - len(suffix)]) for suffix in SUFFIXES if stem.endswith(suffix)}
        mentioned = any(name.as_posix() in problem.message for problem in problems)
        mentioned |= any(folder.as_posix() in not_read for folder in name.parents)
        assert path in used or name.as_posix() in named or mentioned or of_normal & stems, (name, problems)


def outcome(call):
    """What the call returns, or its UserError after checking that it is one line; other errors fail the test."""
    try:
        return call()
    except UserError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return UserError(message)


def examine(data):
    """Everything that ``data check`` finds; None if the root is refused as a whole."""
    found = outcome(lambda: inspect(data, Console(file=io.StringIO())))
    if isinstance(found, UserError):
        return None
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
    return problems


def check_pair(data, sample) -> None:
    """A pair is right when the mask's name says so; reading gives a fitting mask or a UserError."""
    if sample.mask_path is not None:
        stem = unicodedata.normalize("NFC", sample.path.stem).lower()
        mask_stem = unicodedata.normalize("NFC", sample.mask_path.stem).lower()
        assert mask_stem in {f"{stem}{suffix}" for suffix in SUFFIXES} or sample.mask_path.parent.name == stem
    mask, image = outcome(lambda: data.read_mask(sample)), outcome(lambda: data.read_image(sample))
    if not isinstance(mask, UserError) and not isinstance(image, UserError):
        assert mask is None or mask.shape == (image.height, image.width)

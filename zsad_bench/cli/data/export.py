"""``zsad-bench data export``: a dataset in MVTec style, or with the ``meta.json`` of the CLIP repositories, by links.

Images are linked, not copied. A mask is linked where any code would read it as this project does (8-bit or 1-bit grey,
anomalous above 0), else it is written as PNG with 0 and 255: palette and colour masks, polygons, boxes, united masks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from zsad_bench.contract import SPLITS, Dataset, Sample, Split
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic
from zsad_bench.core.names import readable_names
from zsad_bench.data.images import has_image_extension

FORMATS = ("mvtec", "meta_json")


@dataclass
class Exported:
    """What an export made."""

    images: int = 0
    linked: int = 0
    written: int = 0


def export(
    dataset: Dataset, folder: Path, layout: str = "mvtec", advance: Callable[[], None] = lambda: None
) -> Exported:
    """Export the selected categories.

    Args:
        dataset: every image needs a label.
        folder: new, or empty.
        layout: ``mvtec``, or ``meta_json`` for the same tree with a meta.json beside it.
        advance: called after each image.

    Raises:
        UserError: the folder holds something, an image has no label or cannot be read, or links are not possible.
    """
    if layout not in FORMATS:
        raise UserError(f"--format {layout}: choose {' or '.join(FORMATS)}")
    work = [
        (split, sample)
        for category in dataset.categories
        for split in SPLITS
        for sample in (dataset.samples(category, split) if dataset.listed(category, split) or split == "test" else [])
    ]
    if any(sample.label is None for _, sample in work):
        raise UserError(f"{dataset.root}: images without a label cannot be exported; there is no folder for them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"--to {folder}: the folder is not empty; give a new one")
        return _export(dataset, folder, work, layout, advance)
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be written ({error.strerror}); give another folder") from None


def _export(
    dataset: Dataset, folder: Path, work: list[tuple[Split, Sample]], layout: str, advance: Callable[[], None]
) -> Exported:
    done = Exported()
    taken: set[str] = set()
    categories = readable_names(sample.category for _, sample in work)
    kinds = readable_names(sample.defect_type for _, sample in work if sample.label == 1)
    # Nothing anomalous goes into a folder that any disk takes for "good".
    kinds = {kind: "defect" if kind.strip().casefold() in ("", "good") else folder for kind, folder in kinds.items()}
    entries: dict[str, dict[str, list[dict[str, object]]]] = {split: {} for split in SPLITS}
    with_train_masks = {sample.category for split, sample in work if split == "train" and sample.mask_path is not None}
    for split, sample in work:
        stored = dataset.stored_image(sample)
        above = PurePosixPath(
            categories[sample.category], split, "good" if sample.label == 0 else kinds[sample.defect_type]
        )
        place = _place(sample, above, ".png" if stored is None else stored.suffix, taken)
        if stored is None:
            _write(dataset.read_image(sample), folder / place, done)
        else:
            _link(stored, folder / place, done)
        mask = None
        if sample.label == 1 and sample.mask_path is not None:
            # Train and test may number their images alike, so masks of both need folders of their own.
            below = f"{split}/{place.parts[2]}" if sample.category in with_train_masks else place.parts[2]
            mask = PurePosixPath(place.parts[0], "ground_truth", below, f"{place.stem}_mask.png")
            mask = _put_mask(dataset, sample, folder, mask, done)
        entries[split].setdefault(sample.category, []).append(
            {
                "img_path": place.as_posix(),
                "mask_path": "" if mask is None else mask.as_posix(),
                "cls_name": sample.category,
                "specie_name": place.parts[2],
                "anomaly": sample.label,
            }
        )
        done.images += 1
        advance()
    if layout == "meta_json":
        write_atomic(folder / "meta.json", json.dumps(entries, indent=1) + "\n")
    return done


def _place(sample: Sample, folder: PurePosixPath, suffix: str, taken: set[str]) -> PurePosixPath:
    """A file in ``<category>/<split>/<kind>``; names that would meet get the names of their old folders in front."""
    old = PurePosixPath(sample.image_id)
    above = [part for part in old.parts[:-1] if part not in ("..", "/")]
    for depth in range(len(above) + 1):
        stem = "_".join([*above[len(above) - depth :], old.stem])
        place = folder / (stem + suffix)
        key = str(place.with_name(stem)).casefold()  # masks are named after stems, and some disks ignore case
        if key not in taken:
            taken.add(key)
            return place
    raise UserError(f"{sample.image_id}: another image of the same folder and name is exported already; rename one")


def _put_mask(dataset: Dataset, sample: Sample, folder: Path, place: PurePosixPath, done: Exported) -> PurePosixPath:
    """Link or write the mask; returns where it is, with the extension of the linked file."""
    files = dataset.mask_files(sample)
    whole = dataset.mask_threshold == 0 and len(files) == 1 and dataset.stored_image(sample) is not None
    if whole and has_image_extension(files[0]) and _is_grey(files[0]):
        place = place.with_suffix(files[0].suffix)
        _link(files[0], folder / place, done)
        return place
    mask = dataset.read_mask(sample)
    assert mask is not None
    _write(Image.fromarray(mask.astype(np.uint8) * 255), folder / place, done)
    return place


def _write(image: Image.Image, target: Path, done: Exported) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target)
    done.written += 1


def _link(source: Path, target: Path, done: Exported) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
    done.linked += 1


def _is_grey(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in ("1", "L")
    except UnidentifiedImageError:
        return False

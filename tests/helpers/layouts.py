"""Miniature roots of published datasets, written from the description of each layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.miniatures import SIZE, Miniature, random_region, write_image, write_mask, write_mask_class_numbers


def mvtec_ad(root: Path) -> Miniature:
    """MVTec AD: two categories, grey and colour, with the litter that archives bring along."""
    mini = Miniature(root)
    for number in range(3):
        mini.normal(f"metal_nut/train/good/{number:03}.png", "metal_nut", "train")
        mini.normal(f"metal_nut/test/good/{number:03}.png", "metal_nut")
        mini.anomalous(
            f"metal_nut/test/bent/{number:03}.png",
            "metal_nut",
            "bent",
            f"metal_nut/ground_truth/bent/{number:03}_mask.png",
        )
    mini.normal("grid/test/good/000.png", "grid", mode="L", size=(7, 7))
    mini.anomalous("grid/test/glue/000.png", "grid", "glue", "grid/ground_truth/glue/000_mask.png", size=(20, 3))
    for name in ("license.txt", "grid/readme.txt", "grid/test/good/Thumbs.db", "grid/ground_truth/glue/.DS_Store"):
        (root / name).write_bytes(b"litter")
    return mini


def visa(root: Path, anno: bool = True) -> Miniature:
    """VisA with its split file; ``anno``: with the file that names the defects of one category."""
    mini = Miniature(root)
    rows = ["object,split,label,image,mask"]
    for category, digits in (("candle", 4), ("capsules", 3)):
        annotations = ["image,label,mask"]
        for number in range(4):
            name = f"{category}/Data/Images/Normal/{number:0{digits}}.JPG"
            split = "train" if number < 2 else "test"
            mini.normal(name, category, split, size=(15, 10 + number))
            rows.append(f"{category},{split},normal,{name},")
            annotations.append(f"{name},normal,")
        for number in range(3):
            name = f"{category}/Data/Images/Anomaly/{number:03}.JPG"
            mask = f"{category}/Data/Masks/Anomaly/{number:03}.png"
            words = ["bubble", "chunk of wax missing,wax melded out", ""][number]
            known = anno and category == "candle" and words
            mini.anomalous(name, category, words if known else "anomaly", mask, write=write_mask_class_numbers)
            rows.append(f"{category},test,anomaly,{name},{mask}")
            annotations.append(f'{name},"{words}",{mask}')
        if anno and category == "candle":
            (root / category / "image_anno.csv").write_text("\n".join(annotations))
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return mini


def loco(root: Path) -> Miniature:
    """MVTec LOCO AD: a folder of masks for every anomalous image, each mask with a value of its own."""
    mini = Miniature(root)
    mini.normal("pushpins/train/good/000.png", "pushpins", "train")
    mini.normal("pushpins/validation/good/000.png", "pushpins", "train")
    mini.normal("pushpins/test/good/000.png", "pushpins")
    for kind, n_masks in (("logical_anomalies", 3), ("structural_anomalies", 1)):
        name = f"pushpins/test/{kind}/000.png"
        mini.anomalous(name, "pushpins", kind)
        union = np.zeros(SIZE[::-1], bool)
        for number in range(n_masks):
            path = root / f"pushpins/ground_truth/{kind}/000/{number:03}.png"
            region = random_region(SIZE, f"{kind}{number}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((region * (60 + number)).astype(np.uint8)).save(path)  # a value below 127
            union |= region
        mini.images[name].mask = union
    (root / "pushpins/defects_config.json").write_text("[]")
    return mini


def ad2(root: Path) -> Miniature:
    """The public part of MVTec AD 2: one category in three lightings."""
    mini = Miniature(root)
    for split in ("train", "validation"):
        mini.normal(f"can/{split}/good/000_regular.png", "can", "train")
    mini.normal("can/test_public/good/000_regular.png", "can")
    for stem in ("000_regular", "000_overexposed", "000_shift_1"):
        mask = f"can/test_public/ground_truth/bad/{stem}_mask.png"
        mini.anomalous(f"can/test_public/bad/{stem}.png", "can", "bad", mask)
    return mini


def dagm(root: Path, n_train: int = 6, n_test: int = 9) -> dict[str, np.ndarray | None]:
    """Image id -> mask of the defect, None for normal images; the numbers of Train and Test overlap."""
    masks = {}
    for split, count, defects in (("Train", n_train, (1, 4)), ("Test", n_test, (2,))):
        for category in ("Class1", "Class10"):
            for number in range(1, count + 1):
                name = f"{category}/{split}/{number:04}.PNG"
                write_image(root / name, mode="L")
                masks[name] = random_region(SIZE, name) if number in defects else None
                if number in defects:
                    write_mask(root / f"{category}/{split}/Label/{number:04}_label.PNG", masks[name])
            (root / f"{category}/{split}/Label/Labels.txt").write_text("1\t0\n")
    return masks


def ksdd(root: Path, n_items: int = 11) -> dict[str, np.ndarray]:
    """Image -> mask, some all zero. Heights do not divide by three."""
    masks = {}
    for item in range(1, n_items + 1):
        for part in range(2):
            name = f"kos{item:02}/Part{part}.jpg"
            size = (7, 31 + part)
            write_image(root / name, size)
            masks[name] = np.zeros(size[::-1], bool)
            if (item, part) in ((2, 0), (6, 1)):
                masks[name][12:18, 2:5] = True  # in the middle strip, and the last rows of the first
            write_mask(root / f"kos{item:02}/Part{part}_label.bmp", masks[name])
    return masks


def real_iad(root: Path, lists: str = "realiad_jsons/realiad_jsons", size: str = "1024") -> Miniature:
    """Real-IAD: two normal objects and one with a defect on two of its five views, described by a JSON list."""
    mini = Miniature(root)
    entries: dict[str, list] = {"train": [], "test": []}

    def add(name: str, split: str, kind: str, mask: str | None = None) -> None:
        path = f"realiad_{size}/fuse/{name}"
        if kind == "OK":
            mini.normal(path, "fuse", split)
        else:
            mini.anomalous(path, "fuse", kind, f"realiad_{size}/fuse/{mask}" if mask else None, split)
        entries[split].append({"category": "fuse", "anomaly_class": kind, "image_path": name, "mask_path": mask})

    for view in range(1, 6):
        add(f"OK/S0001/fuse_0001_OK_C{view}_2023.jpg", "train", "OK")
        add(f"OK/S0002/fuse_0002_OK_C{view}_2023.jpg", "test", "OK")
        stem = f"NG/QS/S0003/fuse_0003_NG_QS_C{view}_2023"
        add(f"{stem}.jpg", "test", "QS" if view < 3 else "OK", f"{stem}_mask.png" if view < 3 else None)
    (root / lists).mkdir(parents=True, exist_ok=True)
    (root / lists / "fuse.json").write_text(json.dumps({"meta": {"prefix": "fuse/"}, **entries}))
    return mini


def elpv(root: Path, lines: list[str] | None = None) -> None:
    """ELPV: four cells, two of them with a label between normal and defective; ``lines`` replaces the other two."""
    rows = lines or ["images/cell0001.png  1.0  mono", "images/cell0002.png  0.0  poly"]
    rows += ["images/cell0003.png  0.3333333333333333  mono", "images/cell0005.png  0.6666666666666666  poly"]
    (root / "images").mkdir(parents=True)
    for number in (1, 2, 3, 5):
        write_image(root / f"images/cell{number:04}.png", mode="L")
    (root / "labels.csv").write_text("\n".join(rows) + "\n\n")

"""VisA as published: ``<category>/Data/{Images,Masks}`` and the official one-class split ``split_csv/1cls.csv``.

The split file says which images belong to train and test, and which mask belongs to which image. Masks hold class
numbers 1 to 9, not 0 and 255. ``<category>/image_anno.csv``, where present, gives the defect types.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from zsad_bench.contract import Dataset, Index, Problem, Sample, Split
from zsad_bench.core.errors import UserError

from .mvtec import is_category
from .reading.csv_rows import csv_rows
from .reading.layout import list_folder, relative
from .reading.listed_files import ListedFiles

_SPLIT_FILE = PurePosixPath("split_csv/1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")
_LABELS = {"normal": 0, "anomaly": 1}
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}


class VisA(Dataset):
    """The raw VisA release."""

    def recognises(self, root: Path) -> bool:
        """True when the split file, or a folder ``<category>/Data/Images``, is there."""
        raw = any((folder / "Data" / "Images").is_dir() for folder in list_folder(root).folders)
        return raw or (root / _SPLIT_FILE).is_file()

    def _index(self) -> Index:
        split_file = self.root / _SPLIT_FILE
        if not split_file.is_file():
            raise UserError(f"{split_file.absolute()}: {self._missing_split()}")
        index = Index()
        files = ListedFiles()
        defect_types: dict[str, dict[str, str]] = {}
        for line, row in csv_rows(split_file, _COLUMNS):
            category, split, label = row["object"], _SPLITS.get(row["split"]), _LABELS.get(row["label"])
            if not category or split is None or label is None:
                raise UserError(
                    f"{split_file}, line {line}: object '{category}', split '{row['split']}', label '{row['label']}'; "
                    f"expected a category, train or test, normal or anomaly"
                )
            if category not in index.categories:
                index.categories.add(category)
                defect_types[category] = self._defect_types(index, category)
            if not (self.root / category).is_dir():
                continue
            image = self._existing(index, files, category, row["image"], "image")
            if image is None:
                continue
            mask = None
            if label == 1 and row["mask"]:
                mask = self._existing(index, files, category, row["mask"], "mask")
            defect_type = "good" if label == 0 else defect_types[category].get(row["image"], "anomaly")
            image_id = relative(image, self.root)
            index.split(split).append(Sample(image_id, image, category, label, defect_type, mask))
        for category in sorted(index.categories):
            index.problems.extend(self._left_over(index, category))
        return index

    def _existing(self, index: Index, files: ListedFiles, category: str, name: str, kind: str) -> Path | None:
        found = files.find(self.root / name)
        if found is None:
            message = f"{kind} listed in {_SPLIT_FILE} does not exist; unpack the archive again"
            index.problems.append(Problem(name, message, "error", category))
        return found

    def _left_over(self, index: Index, category: str) -> Iterator[Problem]:
        """Files on disk that the split file does not name, and categories of which nothing is there."""
        if not (self.root / category).is_dir():
            message = f"listed in {_SPLIT_FILE} but the folder is missing; unpack it or leave it out"
            yield Problem(category, f"{message} with dataset.categories=[...]", "error", category)
            return
        samples = [s for s in [*index.train, *index.test] if s.category == category]
        listed = {s.path for s in samples} | {s.mask_path for s in samples}
        for below in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
            folder = self.root / category / "Data" / below
            listing = list_folder(folder) if folder.is_dir() else None
            for path in listing.images if listing else ():
                if path not in listed:
                    message = f"not listed in {_SPLIT_FILE}; it is not used"
                    yield Problem(relative(path, self.root), message, "warning", category)
            for path in listing.strays if listing else ():
                yield Problem(relative(path, self.root), "not an image file; it is ignored", "warning", category)

    def _defect_types(self, index: Index, category: str) -> dict[str, str]:
        """Image path -> words such as "chunk of wax missing"; empty where there is no annotation file."""
        path = self.root / category / "image_anno.csv"
        if not path.is_file():
            return {}
        try:
            return {row["image"]: row["label"] for _, row in csv_rows(path, ("image", "label")) if row["label"]}
        except UserError as error:
            message = f"no defect types taken from it ({error})"
            index.problems.append(Problem(relative(path, self.root), message, "warning", category))
            return {}

    def _missing_split(self) -> str:
        folders = list_folder(self.root).folders
        for folder in folders:
            inside = list_folder(folder)
            deeper = [below for below in inside.folders if is_category(list_folder(below))]
            if is_category(inside) or deeper:
                root = self.root if is_category(inside) else folder
                return (
                    f"the split file is missing because this is VisA converted to MVTec style; "
                    f"use dataset=visa_converted dataset.root={root.absolute()}"
                )
            if (folder / _SPLIT_FILE).is_file():
                return f"the dataset lies one folder deeper; set dataset.root={folder.absolute()}"
        raw = any((folder / "Data" / "Images").is_dir() for folder in folders)
        what = "the category folders are there but the split file is missing" if raw else "no VisA data found here"
        return f"{what}; the folder split_csv is in the archive and in the repository of the dataset ({self.page})"

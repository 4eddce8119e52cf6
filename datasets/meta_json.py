"""Any dataset with a ``meta.json`` in its root, the list that CLIP anomaly detection repositories share.

``{"train": {"<category>": [entry, ...]}, "test": {...}}`` with entries ``{"img_path", "mask_path", "cls_name",
"specie_name", "anomaly"}``. Repositories differ, so accepted are: keys in any case, a third key ``validation`` (its
images join train), categories that are missing under one key, names with spaces, an empty or missing mask_path, and
absolute paths of another machine.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

from zsad_bench.contract import Dataset, Index, Problem, Sample, Split
from zsad_bench.core.errors import UserError

from .reading.listed_files import ListedFiles

_KEYS: dict[str, Split] = {
    "train": "train",
    "validation": "train",
    "valid": "train",
    "val": "train",
    "test": "test",
}
_LABELS: dict[object, int] = {0: 0, 1: 1, "0": 0, "1": 1}


class MetaJson(Dataset):
    """A folder that ``meta.json`` describes. The file decides: images that it does not name are not used."""

    def recognises(self, root: Path) -> bool:
        """True when meta.json is there."""
        return (root / "meta.json").is_file()

    def _index(self) -> Index:
        path = self.root / "meta.json"
        index = Index()
        files = ListedFiles()
        for key, value in _object(_load(path), f"{path}").items():
            split = _KEYS.get(key.strip().casefold())
            if split is None:
                message = f"key '{key}' is neither train, validation nor test; it is ignored"
                index.problems.append(Problem(path.name, message, "warning"))
                continue
            for category, entries in _object(value, f"{path}, key '{key}'").items():
                index.categories.add(category)
                if not isinstance(entries, list):
                    raise UserError(f"{path}, key '{key}' / '{category}': expected a list of images")
                for number, entry in enumerate(entries):
                    where = f"{path}, key '{key}' / '{category}', entry {number}"
                    sample = self._sample(index, files, category, _object(entry, where), where)
                    if sample is not None:
                        index.split(split).append(sample)
        if not index.categories:
            raise UserError(f"{path}: names no category under train or test; write one list of images a category")
        return index

    def _sample(
        self, index: Index, files: ListedFiles, category: str, entry: dict[str, object], where: str
    ) -> Sample | None:
        value = entry.get("anomaly")
        label = _LABELS.get(value) if isinstance(value, int | float | str) else None
        if label is None:
            raise UserError(f"{where}: anomaly is {value!r}; expected 0 (normal) or 1 (anomalous)")
        name = _text(entry, "img_path", where)
        if not name:
            raise UserError(f"{where}: img_path is missing or empty; write the path relative to the file's folder")
        image = self._find(files, name)
        if image is None:
            message = (
                "image listed in meta.json does not exist (also not below this root); restore it or drop the entry"
            )
            index.problems.append(Problem(name, message, "error", category))
            return None
        mask = None
        mask_name = _text(entry, "mask_path", where)
        if label == 1 and mask_name:
            mask = self._find(files, mask_name)
            if mask is None:
                message = 'mask listed in meta.json does not exist; restore it or write "mask_path": ""'
                index.problems.append(Problem(mask_name, message, "error", category))
        defect_type = "good" if label == 0 else _text(entry, "specie_name", where) or "anomaly"
        return Sample(self._image_id(image), image, category, label, defect_type, mask)

    def _find(self, files: ListedFiles, name: str) -> Path | None:
        """A listed file: as written, else what follows the root folder's own name, below this root."""
        posix = name if "/" in name else name.replace("\\", "/")
        found = files.find(self.root / posix)
        if found is not None:
            return found
        parts = PurePosixPath(posix).parts
        own = self.root.resolve().name.casefold()
        for position, part in enumerate(parts[:-1]):
            if part.casefold() == own and (found := files.find(self.root.joinpath(*parts[position + 1 :]))) is not None:
                return found
        return None

    def _image_id(self, image: Path) -> str:
        if image.is_relative_to(self.root):
            return image.relative_to(self.root).as_posix()
        return Path(os.path.relpath(image.resolve(), self.root.resolve())).as_posix()


def _load(path: Path) -> object:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return json.load(file)
    except FileNotFoundError as error:
        message = "is missing; dataset=folder and dataset=mvtec need no such file"
        raise UserError(f"{path.absolute()}: {message}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); write it again") from error


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object {{...}}, found {type(value).__name__}")
    return value


def _text(entry: dict[str, object], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {key} is {value!r}; expected text")
    return (value or "").strip()

"""Real-IAD: photos ``realiad_<size>/<category>/...`` and one JSON a category that says which are train and test.

An object is photographed from five sides. A defect need not be visible from each, so an anomalous object has photos
without one. Protocols:

- ``views``: every photo is an image with a label of its own;
- ``samples``: the five photos of an object get one image-level score, the largest, and are anomalous if one is;
- ``single_view``: the publisher's lists with the top view only;
- ``noisy_0.1`` and so on: the publisher's lists for training on images of which that share is anomalous.

JSON files lie in ``realiad_jsons/realiad_jsons/`` (``_sv`` for single views, ``_fuiad_0.1`` for noisy lists), in
``realiad_jsons/``, or in the root.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Unpack

from zsad_bench.contract import SPLITS, DatasetOptions, Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .original_or_copy import Published, folders_of
from .reading.layout import relative
from .reading.listed_files import ListedFiles

_JSON_FOLDERS = ("realiad_jsons{0}", "realiad_jsons/realiad_jsons{0}")
_SUFFIX = {"views": "", "samples": "", "single_view": "_sv"}
_SUFFIX |= {f"noisy_{share}": f"_fuiad_{share}" for share in ("0.0", "0.1", "0.2", "0.4")}
_PHOTOS = "realiad_"
_VIEW = re.compile(r"_C\d_", re.IGNORECASE)


class RealIAD(Published):
    """Real-IAD in its published layout.

    Args beyond those of :class:`~zsad_bench.contract.Dataset`:
        size: which folder of photos: 256, 512, 1024 or raw; None takes the only one that is there. Result rows name it.
    """

    PROTOCOLS = tuple(_SUFFIX)
    EXPECTED = "realiad_jsons/realiad_jsons/<category>.json and realiad_1024/<category>"

    def __init__(self, *, size: str | int | None = None, **options: Unpack[DatasetOptions]) -> None:
        super().__init__(**options)
        self._size = size

    def is_original(self, root: Path) -> bool:
        """True when there is a folder of photos and a list."""
        return bool(_photo_folders(root)) and self._lists(root) is not None

    def _original(self) -> Index:
        lists = self._lists(self.root)
        assert lists is not None
        photos = self._photos()
        index = Index()
        files = ListedFiles()
        for path in sorted(lists.glob("*.json")):
            index.categories.add(path.stem)
            if self._selected is None or path.stem in self._selected:
                self._read(index, files, path, photos / path.stem)
        return index

    def _departures(self) -> list[str]:
        return [*super()._departures(), *([] if self.copy else [self._photos().name])]

    def _lists(self, root: Path) -> Path | None:
        """The folder with the JSON files of the chosen protocol."""
        suffix = _SUFFIX[self.variant]
        candidates = [root / name.format(suffix) for name in _JSON_FOLDERS] + ([] if suffix else [root])
        return next((folder for folder in candidates if any(folder.glob("*.json"))), None)

    def _photos(self) -> Path:
        found = _photo_folders(self.root)
        wanted = list(found) if self._size is None else [str(self._size)]
        if len(wanted) != 1 or wanted[0] not in found:
            raise UserError(f"dataset.size={self._size}: {self.root} has {' and '.join(found)}; choose one of them")
        return found[wanted[0]]

    def _read(self, index: Index, files: ListedFiles, path: Path, photos: Path) -> None:
        category = path.stem
        if not photos.is_dir():
            message = f"listed by {path.name} but the folder is missing; unpack it or leave the category out"
            index.problems.append(Problem(relative(photos, self.root), message, "error", category))
            return
        content = _load(path)
        for split in SPLITS:
            entries = content.get(split, [])
            if not isinstance(entries, list):
                raise UserError(f"{path}, key '{split}': expected a list of images")
            for number, entry in enumerate(entries):
                sample = self._sample(index, files, entry, photos, category, f"{path}, key '{split}', entry {number}")
                if sample is not None:
                    index.split(split).append(sample)

    def _sample(
        self, index: Index, files: ListedFiles, entry: object, photos: Path, category: str, where: str
    ) -> Sample | None:
        if not isinstance(entry, dict):
            raise UserError(f"{where}: expected a JSON object {{...}}, found {type(entry).__name__}")
        name, kind, mask_name = (entry.get(key) for key in ("image_path", "anomaly_class", "mask_path"))
        if not isinstance(name, str) or not isinstance(kind, str) or not isinstance(mask_name, str | None):
            raise UserError(f"{where}: image_path and anomaly_class must be text, mask_path text or null")
        image = self._existing(index, files, photos / name, category)
        if image is None:
            return None
        anomalous = kind.upper() != "OK"
        mask = self._existing(index, files, photos / mask_name, category) if anomalous and mask_name else None
        group = _object(name, category) if self.variant == "samples" else ""
        return Sample(
            relative(image, self.root), image, category, int(anomalous), kind if anomalous else "good", mask, group
        )

    def _existing(self, index: Index, files: ListedFiles, path: Path, category: str) -> Path | None:
        found = files.find(path)
        if found is None:
            message = f"listed in {category}.json but does not exist; unpack the archive of the category again"
            index.problems.append(Problem(relative(path, self.root), message, "error", category))
        return found


def _photo_folders(root: Path) -> dict[str, Path]:
    """Size -> folder of photos."""
    found = folders_of(root)
    return {
        name.removeprefix(_PHOTOS): folder
        for name, folder in found.items()
        if name.startswith(_PHOTOS) and not name.startswith(f"{_PHOTOS}json")
    }


def _object(name: str, category: str) -> str:
    """What the photos of one object share: their folder, and the name without the side."""
    path = PurePosixPath(name)
    return f"{category}/{path.parent}/{_VIEW.split(path.stem)[0]}"


def _load(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); restore it") from error
    if not isinstance(content, dict) or not {"train", "test"} & content.keys():
        raise UserError(f"{path}: has neither train nor test; expected the publisher's list of images")
    return content

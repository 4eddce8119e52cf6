"""ELPV (solar cells): ``images/cellNNNN.png`` and ``labels.csv`` of ``path probability type``; no masks.

``pip install elpv-dataset`` brings the whole dataset, so this is real data without any registration. The labels are
probabilities of a defect, 0, 1/3, 2/3 or 1, and papers make a label of them in different ways. Protocols:

- ``certain``: 0 is normal, 1 is anomalous, the 401 cells between are left out (1508 normal, 715 anomalous);
- ``above_half``: anomalous above 1/2 (1803 normal, 821 anomalous);
- ``any``: anomalous above 0 (1508 normal, 1116 anomalous).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Unpack

from zsad_bench.contract import CommonOptions, Dataset, Index, Problem, Sample
from zsad_bench.core.errors import UserError

from .reading.layout import relative
from .reading.listed_files import ListedFiles

_CATEGORY = "elpv"
_TYPES = ("mono", "poly")
_PACKAGE = "elpv_dataset"
_LOWER = {"certain": 0.0, "above_half": 0.5, "any": 0.0}


class Elpv(Dataset):
    """ELPV from a folder, or from the installed package when ``root`` is None.

    All cells are test images: the release has no split.
    """

    PROTOCOLS = tuple(_LOWER)

    def __init__(self, *, root: str | Path | None = None, **options: Unpack[CommonOptions]) -> None:
        options.setdefault("name", "elpv")
        super().__init__(root=root or _default_root(), **options)

    def recognises(self, root: Path) -> bool:
        """True when labels.csv and the folder of images are there."""
        return (root / "labels.csv").is_file() and (root / "images").is_dir()

    def _index(self) -> Index:
        index = Index(categories={_CATEGORY})
        files = ListedFiles()
        for line, (name, probability, kind) in _rows(self.root / "labels.csv"):
            label = self._label(probability)
            if label is None:
                continue
            image = files.find(self.root / name)
            if image is None:
                message = f"listed in labels.csv, line {line}, but does not exist; restore it or drop the line"
                index.problems.append(Problem(name, message, "error", _CATEGORY))
                continue
            index.test.append(
                Sample(relative(image, self.root), image, _CATEGORY, label, kind if label else "good", None)
            )
        return index

    def _label(self, probability: float) -> int | None:
        if self.variant == "certain" and 0 < probability < 1:
            return None
        return int(probability > _LOWER[self.variant])

    def _require_root(self) -> None:
        if not self.root.is_dir():
            raise UserError(
                f"dataset.root: the folder {self.root.absolute()} does not exist; install the data with "
                f"'pip install zsad-bench[elpv]', or set dataset.root to the folder that holds labels.csv"
            )


def _default_root() -> Path:
    """``$ZSAD_DATA/elpv`` if it is there, else the data of the installed package."""
    own = Path(os.environ.get("ZSAD_DATA", "data")) / "elpv"
    package = importlib.util.find_spec(_PACKAGE)
    if own.is_dir() or package is None or package.origin is None:
        return own
    return Path(package.origin).parent / "data"


def _rows(path: Path) -> list[tuple[int, tuple[str, float, str]]]:
    """(line number, (image, probability, cell type)). UserError naming the line that is something else."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            name, text, kind = line.split()
            probability = float(text)
            if not 0 <= probability <= 1 or kind not in _TYPES:
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}, line {number}: '{line}'; expected an image, a probability from 0 to 1, and mono or poly"
            ) from None
        rows.append((number, (name, probability, kind)))
    return rows

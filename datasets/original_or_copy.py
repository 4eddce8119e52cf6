"""Datasets with a layout of their own, of which converted copies are common too.

Many papers work on copies that a script has brought into MVTec style, or on a ``meta.json``. Such a copy is read as it
is, and result rows say so, because a conversion may have changed the split or the masks.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from zsad_bench.contract import Dataset, Index
from zsad_bench.core.errors import UserError
from zsad_bench.data.folders import innermost

from .meta_json import MetaJson
from .mvtec import MVTec
from .reading.layout import list_folder


class Published(Dataset):
    """A dataset in its published layout, or a converted copy of it."""

    EXPECTED = ""
    """What the published layout looks like, for messages."""

    copy: str | None = None
    """What kind of converted copy was found; None for the published layout."""

    @abstractmethod
    def is_original(self, root: Path) -> bool:
        """True when the published layout begins in this folder, judged by names."""

    @abstractmethod
    def _original(self) -> Index:
        """As ``_index``, for the published layout."""

    def _expected_layout(self) -> str:
        return self.EXPECTED

    def recognises(self, root: Path) -> bool:
        """True for the published layout and for copies of it."""
        return self.is_original(root) or _kind_of_copy(root) is not None

    def _beginning(self) -> Path:
        # The published layout first: a folder that holds it, such as <folder>/train, may look like a copy itself.
        place = innermost(self.root, self.is_original)
        return place if self.is_original(place) else super()._beginning()

    def _index(self) -> Index:
        if self.is_original(self.root):
            return self._original()
        self.copy = _kind_of_copy(self.root)
        if self.copy == "meta.json copy":
            return MetaJson(root=self.root, name=self.name).index
        if self.copy == "MVTec-style copy":
            return MVTec(root=self.root, name=self.name).index
        raise UserError(
            f"{self.root.absolute()}: not the layout of {self.title}; expected {self._expected_layout()}, "
            f"or a copy in MVTec style or with a meta.json"
        )

    def _departures(self) -> list[str]:
        departures = super()._departures()
        return departures if self.copy is None else [self.copy, *departures]

    @property
    def expected(self) -> dict[str, dict[str, int]]:
        """Counts of the published dataset; nothing is expected of a copy."""
        return super().expected if self.copy is None else {}


def _kind_of_copy(root: Path) -> str | None:
    if (root / "meta.json").is_file():
        return "meta.json copy"
    return "MVTec-style copy" if MVTec(root=root, name="").recognises(root) and list_folder(root).folders else None


def folders_of(root: Path) -> dict[str, Path]:
    """The sub-folders of a folder by lower-case name; empty if there is no such folder."""
    return {folder.name.casefold(): folder for folder in list_folder(root).folders} if root.is_dir() else {}

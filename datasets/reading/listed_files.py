"""Files that a list (csv, json) names: do they exist, perhaps in another case?"""

from __future__ import annotations

from pathlib import Path


class ListedFiles:
    """Looks up files by listing each folder once, since asking for 10 000 files one by one is slow on network disks."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[frozenset[str], dict[str, list[str]]]] = {}

    def find(self, path: Path) -> Path | None:
        """The file itself, else the only one whose name differs in case only, else None."""
        names, folded = self._listing(path.parent)
        if path.name in names:
            return path
        similar = folded.get(path.name.casefold(), [])
        return path.with_name(similar[0]) if len(similar) == 1 else None

    def _listing(self, folder: Path) -> tuple[frozenset[str], dict[str, list[str]]]:
        if folder not in self._folders:
            try:
                names = frozenset(entry.name for entry in folder.iterdir())
            except (OSError, ValueError):  # ValueError: a name with a null byte
                names = frozenset()
            folded: dict[str, list[str]] = {}
            for name in names:
                folded.setdefault(name.casefold(), []).append(name)
            self._folders[folder] = names, folded
        return self._folders[folder]

"""Print pip constraints that pin every requirement of ``pyproject.toml`` to its lower bound; for ``make test-lowest``.

``numpy>=2.0,<3`` becomes ``numpy==2.0``. Requirements of the optional extras count as well; one without a lower bound
is left out, so that pip chooses its newest release.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest(requirements: Iterable[str]) -> list[str]:
    """One ``name==version`` for every requirement with a lower bound, each once, in alphabetical order."""
    parsed = [Requirement(text) for text in requirements]
    bounds = [(each.name, part.version) for each in parsed for part in each.specifier if part.operator == ">="]
    return sorted({f"{name}=={version}" for name, version in bounds})


def main() -> None:
    """Print the constraints of this project."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    extras = (text for texts in project["optional-dependencies"].values() for text in texts)
    print("\n".join(lowest([*project["dependencies"], *extras])))


if __name__ == "__main__":
    main()

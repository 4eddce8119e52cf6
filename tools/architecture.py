"""Draw the rooms of ``zsad_bench`` from their imports, and write the table of rooms of ``docs/architecture.md``.

python tools/architecture.py            writes the picture and the page
python tools/architecture.py --check    exit code 1 if one of them is not up to date
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

import grimp
from docs_roles import ROLE
from generated_parts import DOCS, table, with_part, write_or_check
from layered_drawing import HEIGHT, WIDTH, arranged, corner, ends, size_of

ROOT = DOCS.parent
PACKAGE = "zsad_bench"
PAGE, PICTURE = DOCS / "architecture.md", DOCS / "images" / "architecture.svg"
STYLE = (
    "text{font-family:sans-serif;fill:#1b2b34}.n{font-size:15px;font-weight:bold}.s{font-size:11px}"
    ".b{fill:#e3f1ef;stroke:#00796b}.f{fill:#fff;stroke:#78909c;stroke-dasharray:4 3}"
    "line{stroke:#546e7a;stroke-width:1.3}"
)

Imports = Mapping[str, frozenset[str]]


def pages() -> dict[Path, str]:
    """Picture and page as they should be."""
    layers = room_layers()
    imports = room_imports([room for layer in layers for room in layer])
    rows = [(_name(room), *_about(room)) for layer in layers for room in layer]
    rooms = "\n".join([*table(("room", "what lives there", "imports and beginnings"), rows), ""])
    page = with_part(PAGE.read_text("utf-8"), "the docstrings of the rooms", "architecture.py", rooms)
    return {PICTURE: picture(layers, imports), PAGE: page}


def room_layers() -> list[list[str]]:
    """The rooms from the top down, as ``pyproject.toml`` lists them for the linter of imports."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(each["layers"] for each in settings["contracts"] if each["type"] == "layers")
    rooms = [[part.strip().removeprefix(f"{PACKAGE}.") for part in layer.split("|")] for layer in layers]
    return [layer for layer in rooms if layer != ["__main__"]]


def room_imports(rooms: Iterable[str]) -> Imports:
    """Which rooms the modules of each room import, those for type checkers included."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    known = set(rooms)
    imports: dict[str, set[str]] = {room: set() for room in known}
    for module in graph.modules:
        room = _room(module)
        if room in known:
            imports[room] |= {_room(each) for each in graph.find_modules_directly_imported_by(module)} & known - {room}
    return {room: frozenset(found) for room, found in imports.items()}


def _room(module: str) -> str:
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0]


def shortest_arrows(imports: Imports) -> list[tuple[str, str]]:
    """The imports without those that a way over other rooms implies."""

    def reachable(room: str) -> set[str]:
        return imports[room].union(*(reachable(each) for each in imports[room]))

    return sorted(
        (room, other)
        for room, others in imports.items()
        for other in others
        if not any(other in reachable(between) for between in others - {other})
    )


def picture(layers: list[list[str]], imports: Imports) -> str:
    """The picture as SVG: a row per layer, an arrow per import that no other arrows imply."""
    arrows = shortest_arrows(imports)
    places = arranged(layers, arrows)
    width, height = size_of(len(layers))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<title>Rooms of zsad_bench and their imports</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0L8 4L0 8z" fill="#546e7a"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#fbfcfc"/>',
    ]
    for room, other in arrows:
        (x1, y1), (x2, y2) = ends(places[room], places[other])
        lines.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" marker-end="url(#a)"/>')
    for room, place in places.items():
        lines += _box(room, *corner(place))
    return "\n".join([*lines, "</svg>", ""])


def _box(room: str, x: int, y: int) -> Iterator[str]:
    kind, middle = "b" if (ROOT / PACKAGE / room).is_dir() else "f", x + WIDTH // 2
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
    yield f'<text class="n" x="{middle}" y="{y + 20}" text-anchor="middle">{_name(room).strip("`")}</text>'
    subject = re.split("[:.,]", _about(room)[0].replace("`", ""), maxsplit=1)[0]
    for number, line in enumerate(textwrap.wrap(subject, 32)):
        yield f'<text class="s" x="{middle}" y="{y + 35 + 12 * number}" text-anchor="middle">{escape(line)}</text>'


def _name(room: str) -> str:
    return f"`{room}`" if (ROOT / PACKAGE / room).is_dir() else f"`{room}.py`"


def _about(room: str) -> tuple[str, str]:
    """First paragraph of a room's docstring, and the paragraph that says what it imports and where to begin."""
    folder = ROOT / PACKAGE / room
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    paragraphs = (ast.get_docstring(ast.parse(source.read_text("utf-8"))) or "").split("\n\n")
    plain = [ROLE.sub(r"`\g<target>`", " ".join(each.split())).replace("``", "`") for each in paragraphs]
    return plain[0], next((each for each in plain if each.startswith("May import")), "")


if __name__ == "__main__":
    sys.exit(write_or_check(pages, __doc__))

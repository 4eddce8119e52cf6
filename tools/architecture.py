"""Draw the rooms of ``zsad_bench`` from their imports, and write the table of rooms of ``docs/architecture.md``.

python tools/architecture.py            writes the picture and the page
python tools/architecture.py --check    exit code 1 if one of them is not up to date
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import combinations
from pathlib import Path

import grimp
from docs_roles import ROLE
from generated_parts import DOCS, table, with_part, write_or_check

ROOT = DOCS.parent
PACKAGE = "zsad_bench"
PAGE, PICTURE = DOCS / "architecture.md", DOCS / "images" / "architecture.svg"
COLUMNS = 4
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 214, 44, 34, 34, 16
STYLE = (
    "text{font-family:sans-serif;fill:#1b2b34}.n{font-size:15px;font-weight:bold}.s{font-size:11px}"
    ".b{fill:#e3f1ef;stroke:#00796b}.f{fill:#fff;stroke:#78909c;stroke-dasharray:4 3}"
    "line{stroke:#546e7a;stroke-width:1.3}"
)

Imports = Mapping[str, frozenset[str]]
Place = tuple[int, int]


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
    places = _arranged(layers, arrows)
    width = COLUMNS * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = len(layers) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<title>Rooms of zsad_bench and their imports</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#546e7a"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#fbfcfc"/>',
    ]
    for room, other in arrows:
        (x1, y1), (x2, y2) = _ends(places[room], places[other])
        lines.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" marker-end="url(#a)"/>')
    for room, place in places.items():
        lines += _box(room, *_corner(place))
    return "\n".join([*lines, "</svg>", ""])


def _box(room: str, x: int, y: int) -> Iterator[str]:
    kind, middle = "b" if (ROOT / PACKAGE / room).is_dir() else "f", x + WIDTH // 2
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
    yield f'<text class="n" x="{middle}" y="{y + 18}" text-anchor="middle">{_name(room).strip("`")}</text>'
    subject = _about(room)[0].replace("`", "")
    for stop in (":", ".", ","):
        subject = subject.partition(stop)[0]
    yield f'<text class="s" x="{middle}" y="{y + 34}" text-anchor="middle">{escape(subject)}</text>'


def _corner(place: Place) -> tuple[int, int]:
    row, column = place
    return MARGIN + column * (WIDTH + GAP_X) // 2, MARGIN + row * (HEIGHT + GAP_Y)


def _ends(upper: Place, lower: Place) -> tuple[tuple[float, float], tuple[float, float]]:
    """From the lower edge of one box to the upper edge of the other; slanted arrows end beside the middle."""
    (x1, y1), (x2, y2) = _corner(upper), _corner(lower)
    lean = max(-0.3, min(0.3, (x2 - x1) / (4 * WIDTH)))
    return (x1 + WIDTH * (0.5 + lean), y1 + HEIGHT), (x2 + WIDTH * (0.5 - lean), y2)


def _arranged(layers: list[list[str]], arrows: list[tuple[str, str]]) -> dict[str, Place]:
    """A column for every room, in half steps, so that arrows neither run through boxes nor cross more than they must.

    Rooms are moved one by one to where the drawing is best, until no move improves it.
    """
    last = 2 * (COLUMNS - 1)
    places = {
        room: (row, last // 2 + 2 * number - len(layer) + 1)
        for row, layer in enumerate(layers)
        for number, room in enumerate(layer)
    }
    best, better = _faults(places, arrows), True
    while better:
        better = False
        for room, (row, _) in list(places.items()):
            for column in range(last + 1):
                tried = {**places, room: (row, column)}
                if (faults := _faults(tried, arrows)) < best:
                    places, best, better = tried, faults, True
    return places


def _faults(places: Mapping[str, Place], arrows: list[tuple[str, str]]) -> float:
    """How bad a drawing is: boxes on each other, arrows through boxes, crossings, sideways length."""
    corners = {room: _corner(place) for room, place in places.items()}
    near = sum(
        abs(corners[one][0] - corners[two][0]) < WIDTH + GAP_X
        for one, two in combinations(places, 2)
        if places[one][0] == places[two][0]
    )
    ends = {arrow: _ends(places[arrow[0]], places[arrow[1]]) for arrow in arrows}
    through = sum(_passes(*ends[arrow], *corners[room]) for arrow in arrows for room in places if room not in arrow)
    crossings = sum(_cross(*ends[one], *ends[two]) for one, two in combinations(arrows, 2))
    sideways = sum(abs(start[0] - stop[0]) for start, stop in ends.values())
    return 1000 * near + 100 * through + 12 * crossings + sideways / 100


def _passes(start: tuple[float, float], stop: tuple[float, float], x: float, y: float) -> bool:
    """Whether an arrow touches a box, with some room around it."""
    (x1, y1), (x2, y2) = start, stop
    for level in (y, y + HEIGHT / 2, y + HEIGHT):
        share = (level - y1) / (y2 - y1)
        if 0 < share < 1 and x - 8 < x1 + share * (x2 - x1) < x + WIDTH + 8:
            return True
    return False


def _cross(
    start: tuple[float, float], stop: tuple[float, float], start2: tuple[float, float], stop2: tuple[float, float]
) -> bool:
    """Whether two arrows cross; those that begin or end together do not."""

    def side(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    first = side(start, stop, start2) * side(start, stop, stop2)
    return first < 0 and side(start2, stop2, start) * side(start2, stop2, stop) < 0


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

"""Write the part of ``docs/datasets.md`` that comes from the YAML files in ``conf/dataset``.

python tools/dataset_docs.py            writes the page
python tools/dataset_docs.py --check    exit code 1 if the page is not up to date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from generated_parts import DOCS, table, with_part, write_or_check

from zsad_bench.engine.dataset_card import Card, cards
from zsad_bench.leaderboard.paper_figures import published

PAGE = DOCS / "datasets.md"
KINDS = {"industrial": "Industrial", "medical": "Medical"}
COUNTS = {
    "train_normal": "{} normal train images",
    "test_normal": "{} normal test images",
    "test_anomalous": "{} anomalous test images",
    "categories": "{} categories",
}


def pages() -> dict[Path, str]:
    """The page with its part made anew."""
    return {PAGE: with_part(PAGE.read_text("utf-8"), "conf/dataset", "dataset_docs.py", generated())}


def generated() -> str:
    """Tables and a section for each published dataset."""
    lines: list[str] = []
    for kind, heading in KINDS.items():
        found = [card for card in cards().values() if card.about.kind == kind]
        lines += [f"### {heading}", "", *_table(found), ""]
    for card in cards().values():
        if card.about.kind in KINDS:
            lines += [*_section(card), ""]
    return "\n".join(lines)


def _table(found: list[Card]) -> Iterator[str]:
    header = (
        "`dataset=`",
        "name",
        "categories",
        "protocols (first: default)",
        "mask rule",
        "licence",
        "loader tested on",
    )
    return table(header, map(_row, found))


def _row(card: Card) -> tuple[str, ...]:
    protocols = ", ".join(f"`{name}`" for name in card.about.protocols or ()) or "`standard`"
    rule = "no masks" if card.about.masks == "none" else f"> {card.mask_threshold}"
    shown = (protocols, rule, card.licence, card.about.tested)
    return (f"`{card.key}`", card.title, str(len(card.categories)), *shown)


def _section(card: Card) -> Iterator[str]:
    about = card.about
    yield f"#### {card.title}: `dataset={card.key}`"
    yield ""
    yield f"- Layout: `{about.layout}`" if "{" in about.layout or "<" in about.layout else f"- Layout: {about.layout}"
    yield f"- Masks: {about.masks}"
    for name, meaning in (about.protocols or {}).items():
        yield f"- Protocol `{name}`: {meaning}"
    yield from _counts(card)
    yield f"- Categories: {_categories(card)}"
    if about.aliases:
        yield f"- Category names in converted copies: {', '.join(f'`{name}`' for name in about.aliases)}"
    if about.used_by:
        yield f"- Published numbers: {about.used_by}"
    if methods := _published_methods(card.name):
        yield f"- Methods with figures in `results/published.csv`: {', '.join(methods)}"
    yield f"- Get it: {_obtain(card)}"
    yield f"- Licence: {card.licence}" + (f". Cite: {card.citation}" if card.citation else "")


def _counts(card: Card) -> Iterator[str]:
    for key, counts in card.expected.items():
        category, _, protocol = key.partition("@")
        if category == "total":
            text = ", ".join(COUNTS[name].format(number) for name, number in counts.items())
            yield f"- Counts that `data check` compares{f' (`{protocol}`)' if protocol else ''}: {text}"
    if card.about.hints:
        yield f"- From memory, not checked: {card.about.hints}"


def _categories(card: Card) -> str:
    shown = []
    for category in card.categories:
        noun = card.class_names[category]
        shown.append(f"`{category}`" + (f" ({noun})" if noun != category else ""))
    if not card.textures:
        return ", ".join(shown)
    textures = [category for category in card.categories if category in card.textures]
    which = "all textures" if len(textures) == len(shown) else f"textures: {', '.join(textures)}"
    return f"{', '.join(shown)}; {which}"


def _published_methods(name: str) -> list[str]:
    table = published()
    return sorted(table[table["dataset"] == name]["method"].unique())


def _obtain(card: Card) -> str:
    if card.download is not None:
        return f"`zsad-bench data download {card.key}`; page: {card.page}"
    page = card.page or "no page known"
    return f"{page} ({card.about.obtain})" if card.about.obtain else page


if __name__ == "__main__":
    sys.exit(write_or_check(pages, __doc__))

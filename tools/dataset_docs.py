"""Write the part of ``docs/datasets.md`` that comes from the YAML files in ``conf/dataset``.

python tools/dataset_docs.py            writes the page
python tools/dataset_docs.py --check    exit code 1 if the page is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from zsad_bench.engine.dataset_card import Card, cards
from zsad_bench.leaderboard.paper_figures import published

PAGE = Path(__file__).resolve().parents[1] / "docs" / "datasets.md"
BEGIN = "<!-- from conf/dataset by tools/dataset_docs.py: do not edit below -->"
END = "<!-- end of the part from conf/dataset -->"
KINDS = {"industrial": "Industrial", "medical": "Medical"}
COUNTS = {
    "train_normal": "{} normal train images",
    "test_normal": "{} normal test images",
    "test_anomalous": "{} anomalous test images",
    "categories": "{} categories",
}


def main() -> int:
    """Write or check the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = with_generated_part(before)
    if arguments.check:
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8", newline="\n")
    return 0


def with_generated_part(page: str) -> str:
    """The page with everything between the two marks made anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{generated()}\n{END}{tail}"


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
    yield "| `dataset=` | name | categories | protocols (first: default) | mask rule | licence | loader tested on |"
    yield "|---|---|---|---|---|---|---|"
    for card in found:
        protocols = ", ".join(f"`{name}`" for name in card.about.protocols or ()) or "`standard`"
        rule = "no masks" if card.about.masks == "none" else f"> {card.mask_threshold}"
        shown = (protocols, rule, card.licence, card.about.tested)
        cells = (f"`{card.key}`", card.title, str(len(card.categories)), *shown)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
    sys.exit(main())

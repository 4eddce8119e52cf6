"""Write the parts of ``docs/methods.md`` that come from the YAML files in ``conf/method``.

python tools/method_docs.py            writes the page
python tools/method_docs.py --check    exit code 1 if the page is not up to date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from generated_parts import DOCS, table, with_part, write_or_check
from hydra.utils import get_class

from zsad_bench.contract import Method
from zsad_bench.engine.method_card import MethodCard, bundled_presets

PAGE = DOCS / "methods.md"


def pages() -> dict[Path, str]:
    """The page with both its tables made anew."""
    text, tool = PAGE.read_text("utf-8"), "method_docs.py"
    text = with_part(text, "the classes that conf/method names", tool, "\n".join([*_methods(), ""]))
    return {PAGE: with_part(text, "the cards in conf/method", tool, "\n".join([*_configurations(), ""]))}


def _methods() -> Iterator[str]:
    """One row per file in ``methods``: all configurations of what stands there."""
    families: dict[str, dict[str, Mapping[str, object]]] = {}
    for config, values in bundled_presets().items():
        families.setdefault(str(values["_target_"]).rpartition(".")[0], {})[config] = values
    header = ("configurations (`method=`)", "setting", "paper", "page")
    return table(header, (_method_row(configs) for configs in families.values()))


def _method_row(configs: Mapping[str, Mapping[str, object]]) -> tuple[str, ...]:
    names, cards = ", ".join(f"`{config}`" for config in configs), [MethodCard.of(each) for each in configs.values()]
    settings = dict.fromkeys(_setting(values) for values in configs.values())
    return names, "; ".join(settings), cards[0].paper, _page(next(iter(configs)))


def _setting(values: Mapping[str, object]) -> str:
    """What the class of a configuration sees."""
    method = get_class(str(values["_target_"]))
    assert issubclass(method, Method)
    return method.setting.replace("_", "-")


def _page(config: str) -> str:
    """A link to the page whose name the configuration begins with."""
    name = max((path.stem for path in (DOCS / "methods").glob("*.md") if config.startswith(path.stem)), key=len)
    return f"[{name}](methods/{name}.md)"


def _configurations() -> Iterator[str]:
    header = ("`method=`", "`method`, `variant` of its rows", "setting", "compared with", "fidelity", "evidence")
    return table(header, (_configuration_row(config, values) for config, values in bundled_presets().items()))


def _configuration_row(config: str, values: Mapping[str, object]) -> tuple[str, ...]:
    card = MethodCard.of(values)
    evidence = f"`{card.evidence.removeprefix('tests/')}`" if card.evidence else "none"
    row = f"`{values['name']}`, `{values['variant']}`"
    return f"`{config}`", row, _setting(values), card.code, card.level, evidence


if __name__ == "__main__":
    sys.exit(write_or_check(pages, __doc__))

"""The tables of ``ablation.py``: which variants of which method stand in which one. The first row is the baseline."""

from __future__ import annotations

from typing import NamedTuple

from zsad_bench.api import Value

Keys = dict[str, Value]


class Variant(NamedTuple):
    """A row of a table."""

    label: str
    method: str
    keys: Keys


MATCHING: Keys = {"fusion": "match", "class_weight": 0.0}
UNFILTERED: Keys = {**MATCHING, "filter": "none"}
TEXT: Keys = {"fusion": "text"}


def fiseclip(label: str, **keys: Value) -> Variant:
    """A variant of FiSeCLIP."""
    return Variant(label, "fiseclip", keys)


FISECLIP = Variant("**FiSeCLIP**", "fiseclip", {})
COMPONENTS = [
    fiseclip("matching, unfiltered", **UNFILTERED),
    fiseclip("text only", **TEXT),
    fiseclip("text only, attention not restored", **TEXT, attention="plain"),
    fiseclip("matching, text filter without consensus", **MATCHING, consensus=False),
    fiseclip("matching + text filter", **MATCHING),
    fiseclip("matching + text filter, attention not restored", **MATCHING, attention="plain"),
    fiseclip("matching + soft text filter", **MATCHING, filter="soft"),
    fiseclip("FiSeCLIP without class token", class_weight=0.0),
    FISECLIP,
    fiseclip("FiSeCLIP without text filter", filter="none"),
]
CHOICES = [
    FISECLIP,
    *(fiseclip(f"margin {margin}", margin=margin) for margin in (2.0, 4.0, 6.0)),
    *(fiseclip(f"drop {drop:.0%} instead of a margin", drop=drop) for drop in (0.1, 0.3)),
    fiseclip("drop 30% by raw text, no consensus", drop=0.3, consensus=False),
    *(fiseclip(f"share {share:.0%}, filtered", share=share) for share in (0.3, 0.6)),
    fiseclip("share 30%, unfiltered", share=0.3, filter="none"),
    fiseclip("attention qkv_self", attention="qkv_self"),
    *(fiseclip(f"weight {weight}", weight=weight) for weight in (0.0, 0.1, 0.2)),
    fiseclip("fusion sum", fusion="sum"),
    fiseclip("fusion product", fusion="product"),
    *(fiseclip(f"class_weight {weight}", class_weight=weight) for weight in (0.0, 0.1, 0.5, 1.0)),
]
SIZES = [
    fiseclip("matching, unfiltered", **UNFILTERED),
    fiseclip("text only", **TEXT),
    FISECLIP,
    Variant("MuSc", "musc", {}),
    Variant("Dual-Image", "dual_image", {}),
]
SHARES = [
    fiseclip("matching, unfiltered", **UNFILTERED),
    fiseclip("matching + text filter", **MATCHING),
]


def dual(label: str, method: str = "dual_image", **keys: Value) -> Variant:
    """A variant of Dual-Image."""
    return Variant(label, method, keys)


DUAL = [
    dual("text only", **TEXT),
    dual("matching only", fusion="match"),
    dual("**Dual-Image**, 1 reference"),
    *(dual(f"{n} references", n_references=n) for n in (2, 4)),
    *(dual(f"weight {weight}", weight=weight) for weight in (0.5, 0.7, 0.9)),
]
DUAL_TTA = [
    dual("text only", **TEXT),
    dual("text only, adapted", "dual_image_tta", **TEXT),
    dual("Dual-Image"),
    dual("Dual-Image, adapted", "dual_image_tta"),
]
TABLES: dict[str, list[Variant]] = {
    "components": COMPONENTS,
    "choices": CHOICES,
    "sizes": SIZES,
    "shares": SHARES,
    "dual": DUAL,
    "dual_tta": DUAL_TTA,
}

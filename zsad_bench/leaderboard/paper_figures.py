"""Figures printed in papers, beside ours where method, dataset, backbone, image size and protocol are the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from io import StringIO

import pandas as pd

from zsad_bench.metrics.names import METRICS
from zsad_bench.results.rows import MODIFIED, JobInfo

_TRUST = {"paper": 0, "official_readme": 1, "secondary": 2}


@dataclass(frozen=True)
class Printed:
    """Figures that can be compared with a job's means.

    Attributes:
        values: fractions by metric; only metrics that somebody printed.
        source: where they stand, metrics of different sources named.
    """

    values: dict[str, float] = field(default_factory=dict)
    source: str = ""


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """``results/published.csv``: fractions, with the source of every row, the most trustworthy first."""
    text = (resources.files("zsad_bench.reference") / "published.csv").read_text("utf-8")
    table = pd.read_csv(StringIO(text), dtype={"pretrained": str, "encoder": str})
    return table.iloc[table["source_kind"].map(_TRUST).argsort(kind="stable")].reset_index(drop=True)


def comparable(info: JobInfo) -> Printed:
    """Published figures of the same experiment, each metric from the most trustworthy source that has it.

    A figure is comparable if the method has the keys of its YAML, method, dataset, encoder and image size agree, the
    protocol is the standard one at the encoder's input size, and the weights agree where the source names them. Methods
    that see other images are printed with the whole test set as their batch, so they are compared for
    ``batch_size=all`` only. Figures of re-implementations stand for no paper.
    """
    if info.protocol != f"standard, {info.image_size} px" or info.fidelity == MODIFIED:
        return Printed()
    if info.setting in ("batch", "transductive") and info.batch_size != "all":
        return Printed()
    return _best(info.method, info.dataset, info.encoder, info.image_size, info.pretrained)


@lru_cache(maxsize=4096)
def _best(method: str, dataset: str, encoder: str, image_size: int, pretrained: str) -> Printed:
    table = published()
    same = (table["method"] == method) & (table["dataset"] == dataset) & (table["encoder"] == encoder)
    same &= (table["image_size"] == image_size) & (table["pretrained"].isna() | (table["pretrained"] == pretrained))
    same &= ~table["reported_as"].str.contains("re-implementation")
    values: dict[str, float] = {}
    sources: dict[str, list[str]] = {}
    for row in table[same].to_dict("records"):
        for metric in METRICS:
            if metric not in values and not math.isnan(row[metric]):
                values[metric] = float(row[metric])
                sources.setdefault(str(row["source"]), []).append(metric)
    if len(sources) < 2:
        return Printed(values, next(iter(sources), ""))
    return Printed(values, "; ".join(f"{source} ({', '.join(metrics)})" for source, metrics in sources.items()))

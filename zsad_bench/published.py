"""Figures printed in papers, beside ours where method, dataset, backbone and image size are the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from importlib import resources
from io import StringIO

import pandas as pd

SHOWN = ("image_auroc", "pixel_auroc", "pixel_aupro")
_TRUST = {"paper": 0, "official_readme": 1, "secondary": 2}


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """``results/published.csv``: fractions, with the source of every row, the most trustworthy first."""
    text = (resources.files("zsad_bench.reference") / "published.csv").read_text("utf-8")
    table = pd.read_csv(StringIO(text), dtype={"pretrained": str, "encoder": str})
    return table.iloc[table["source_kind"].map(_TRUST).argsort(kind="stable")].reset_index(drop=True)


def add_published(board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard with ``published_<metric>`` and ``published_source``; empty where nothing comparable is known.

    A figure is comparable if method, dataset, encoder and image size agree, the protocol is the standard one, and the
    weights agree where the source names them.
    """
    matches = [_best_match(row) for row in board.to_dict("records")]
    extended = board.copy()
    for metric in SHOWN:
        extended[f"published_{metric}"] = [None if match is None else match[metric] for match in matches]
    extended["published_source"] = ["" if match is None else match["source"] for match in matches]
    return extended


def _best_match(row: Mapping[Hashable, object]) -> pd.Series | None:
    table = published()
    if row["protocol"] != "standard":
        return None
    same = table["image_size"] == row["image_size"]
    for column in ("method", "dataset", "encoder"):
        same &= table[column] == row[column]
    same &= table["pretrained"].isna() | (table["pretrained"] == row["pretrained"])
    found = table[same]
    return None if found.empty else found.iloc[0]

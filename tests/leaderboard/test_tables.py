"""The tables of a results folder: their rows, means, order and bytes, and the published figures beside them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.result_files import category, info, saved
from tests.helpers.tables import unpadded
from zsad_bench.leaderboard.paper_figures import published
from zsad_bench.leaderboard.tables import collect, write_tables


def test_means_need_every_category(tmp_path: Path) -> None:
    saved(tmp_path, info("whole"), category("bottle", 0.5), category("cable", 0.7))
    saved(tmp_path, info("part", digest="b" * 12), category("bottle", 0.9))
    tables = collect(tmp_path)
    rows = tables.metrics.set_index(["method", "category"])
    assert rows.loc[("whole", "mean"), "image_auroc"] == pytest.approx(0.6)
    assert rows.loc[("whole", "mean"), "n_images"] == 4
    assert ("part", "mean") not in rows.index
    board = tables.leaderboard.set_index("method")
    assert board.loc["part", "categories"] == "1/2"
    assert pd.isna(board.loc["part", "image_auroc"])
    assert pd.isna(board.loc["part", "rank"])


def test_undefined_metrics_have_no_mean_and_a_note(tmp_path: Path) -> None:
    saved(tmp_path, info(), category("bottle", 0.5), category("cable", 0.7, math.nan))
    mean = collect(tmp_path).metrics.set_index("category").loc["mean"]
    assert math.isnan(mean["pixel_aupro"])
    assert "pixel_aupro defined in 1/2 categories" in mean["notes"]
    assert mean["image_auroc"] == pytest.approx(0.6)


def test_ranks_stay_within_a_setting(tmp_path: Path) -> None:
    for number, (method, setting, auroc) in enumerate(
        [("a", "single", 0.6), ("b", "single", 0.8), ("c", "batch", 0.7)]
    ):
        results = (category("bottle", auroc), category("cable", auroc))
        saved(tmp_path, info(method, setting=setting, digest=str(number) * 12), *results)
    board = collect(tmp_path).leaderboard
    assert dict(zip(board["method"], board["rank"], strict=True)) == {"a": 2, "b": 1, "c": 1}


def test_rows_are_ordered_by_what_they_are(tmp_path: Path) -> None:
    for number, size in enumerate(["all", 16, 4]):
        saved(tmp_path, info(batch_size=size, digest=str(number) * 12), category("cable", 0.5), category("bottle", 0.5))
    metrics = collect(tmp_path).metrics
    assert metrics["batch_size"].tolist() == [4] * 3 + [16] * 3 + ["all"] * 3
    assert metrics["category"].tolist() == ["bottle", "cable", "mean"] * 3


def test_tables_are_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    saved(tmp_path, info(), category("cable", 1 / 3), category("bottle", 2 / 3))
    write_tables(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    write_tables(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == first
    assert b"0.3333333333333333," in first["metrics.csv"]
    assert "| 1 | winclip |" in unpadded(first["leaderboard.md"].decode())
    assert "50.0" in first["leaderboard.md"].decode()


def test_an_empty_folder_gives_empty_tables(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    assert tables.metrics.empty
    assert (tmp_path / "leaderboard.md").read_text(encoding="utf-8") == "No finished job.\n"


def test_published_figures_stand_beside_comparable_jobs(tmp_path: Path) -> None:
    base = info()
    standard = "standard, 240 px"
    same = replace(base, encoder="ViT-B-16-plus-240", pretrained="laion400m_e32", protocol=standard)
    others = [
        replace(same, encoder="ViT-L-14", config_hash="1" * 12),
        replace(same, protocol="standard, limit 5, 240 px", config_hash="2" * 12),
        replace(same, image_size=336, config_hash="3" * 12),
    ]
    for job in (same, *others):
        saved(tmp_path, job, category("bottle", 0.5), category("cable", 0.7))
    board = collect(tmp_path).leaderboard.set_index("config_hash")
    assert board.loc["a" * 12, "published_image_auroc"] == 0.918
    assert "2303.14814" in board.loc["a" * 12, "published_source"]
    assert board.drop("a" * 12)["published_image_auroc"].isna().all()


def test_published_figures_are_clean() -> None:
    table = published()
    metrics = table.filter(regex="^(image|pixel)_(auroc|ap|f1max|aupro)$")
    assert metrics.stack().dropna().between(0, 1).all()
    assert table["source"].str.len().gt(5).all()
    assert set(table["method"]) == {"winclip", "anoclip", "clip_ad", "musc"}
    assert table["dataset"].str.fullmatch("[a-z0-9_]+").all()

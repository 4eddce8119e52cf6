"""Rows that the batch size does not change, from small hand-made jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.result_files import TIMED, category, info, saved
from tests.helpers.tables import unpadded
from zsad_bench.leaderboard.board import BoardOptions
from zsad_bench.leaderboard.questions import speed
from zsad_bench.leaderboard.series import group_series
from zsad_bench.leaderboard.tables import collect, write_tables
from zsad_bench.results.rows import JobInfo
from zsad_bench.results.runs import read_runs


def job(method: str, size: int | str, setting: str = "single") -> JobInfo:
    digest = f"{method}{size}".ljust(12, "0")
    return replace(info(method, size, setting, digest), categories=("bottle",), stamp=f"stamp of {method} {size}")


def add(folder: Path, which: JobInfo, auroc: float, score: float = 1.0) -> None:
    timing = {**TIMED, "charged_encode": 1.0, "seconds_score": score, "peak_memory_mb": 100 * score}
    saved(folder, which, replace(category("bottle", auroc), timing=timing))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for size, score in ((1, 3.0), (4, 1.0), ("all", 2.0)):
        add(tmp_path, job("winclip", size), 0.80001, score)
        add(tmp_path, job("musc", size, "batch"), 0.7)
    add(tmp_path, job("late", 1), 0.6)
    add(tmp_path, job("late", 4), 0.6014)  # another printed number
    return tmp_path


def rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return sorted(table[["method", "batch_size", "rank"]].astype(str).itertuples(index=False, name=None))


def test_one_row_and_one_rank_for_batch_sizes_that_change_nothing(folder: Path) -> None:
    tables = collect(folder)
    assert rows(tables.shown) == [
        *(("late", "1", "3"), ("late", "4", "2")),
        *(("musc", "1", "1"), ("musc", "4", "1"), ("musc", "all", "1")),
        ("winclip", "1, 4, all", "1"),
    ]
    assert len(tables.leaderboard) == len(tables.speed) == 8
    assert tables.leaderboard.set_index(["method", "batch_size"]).loc["late", "rank"].tolist() == [2, 3]


def test_the_fastest_batch_size_gives_speed_and_memory(folder: Path) -> None:
    row = collect(folder).shown.set_index("method").loc["winclip"]
    assert (row["images_per_second"], row["peak_memory_mb"], row["fastest_batch"]) == (2 / 2, 100, "4")
    write_tables(folder)
    for name, ends in (("leaderboard.md", "| 1, 4, all |"), ("leaderboard.tex", "& 1, 4, all &")):
        lines = unpadded(folder / name).splitlines()
        (line,) = (line for line in lines if "winclip" in line)
        assert ends in line
        assert "1.0 (batch 4)" in line
    assert len(pd.read_csv(folder / "leaderboard.csv")) == 8


def test_filters_and_groups_by_batch_size_keep_them_apart(folder: Path) -> None:
    filtered = collect(folder, BoardOptions(filter={"batch_size": ("1", "4")})).shown
    assert "1, 4" in filtered["batch_size"].tolist()
    ranks = collect(folder, BoardOptions(group=("batch_size",))).leaderboard.set_index(["batch_size", "method"])["rank"]
    assert ranks.loc[1].to_dict() == {"winclip": 1, "musc": 2, "late": 3}


def test_rows_that_differ_in_something_else_stay_apart(tmp_path: Path) -> None:
    add(tmp_path, job("a", 1), 0.8)
    add(tmp_path, replace(job("a", 4), encoder="ViT-L"), 0.8)
    add(tmp_path, job("b", 1), 0.8)
    add(tmp_path, replace(job("b", 1), config_hash="other0000000"), 0.8)
    add(tmp_path, job("b", 4), 0.8)
    add(tmp_path, job("c", 1), 0.8)
    saved(tmp_path, job("c", 4))  # not finished
    assert sorted(map(str, collect(tmp_path).shown["batch_size"])) == ["1", "1", "1", "1", "4", "4", "4"]


def test_the_front_has_no_row_that_could_be_chance_and_one_dot_for_equal_rows(folder: Path) -> None:
    add(folder, job("guess", 1, "batch"), 0.5, score=0.001)
    table = speed(group_series(read_runs([folder]).jobs), "image_auroc").set_index("method")
    assert table.loc["winclip", "batch_sizes"] == "1, 4, all"
    assert not table.loc["guess", ["pareto", "method_pareto"]].any()
    assert not table.loc["guess", "above_chance"]
    assert table.loc["winclip", "pareto"]

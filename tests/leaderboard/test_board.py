"""The leaderboard from small hand-made jobs: what a row says, who is ranked with whom, and how it is printed."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.result_files import TIMED, category, info, saved
from tests.helpers.tables import unpadded
from zsad_bench.core.errors import UserError
from zsad_bench.leaderboard.board import BoardOptions, build_board
from zsad_bench.leaderboard.series import group_series
from zsad_bench.leaderboard.tables import collect, write_tables
from zsad_bench.leaderboard.text import leaderboard_latex, leaderboard_markdown
from zsad_bench.results.rows import JobInfo
from zsad_bench.results.runs import read_runs


def board_of(folder: Path, options: BoardOptions | None = None) -> pd.DataFrame:
    return collect(folder, options).leaderboard


def whole(folder: Path, job: JobInfo, auroc: float, pixel: float = 0.5) -> None:
    saved(folder, job, category("bottle", auroc, pixel), category("cable", auroc, pixel))


def test_settings_are_ranked_apart_and_groups_can_be_chosen(tmp_path: Path) -> None:
    for number, (method, setting, size, auroc) in enumerate(
        [("a", "single", 8, 0.6), ("b", "single", 8, 0.8), ("c", "batch", 8, 0.7), ("c", "batch", 16, 0.9)]
    ):
        whole(tmp_path, info(method, size, setting, str(number) * 12), auroc)
    board = board_of(tmp_path)
    assert board[["setting", "method", "rank"]].to_numpy().tolist() == [
        ["batch", "c", 1],
        ["batch", "c", 2],
        ["single", "b", 1],
        ["single", "a", 2],
    ]
    by_size = board_of(tmp_path, BoardOptions(group=("batch_size",)))
    ranks = by_size.set_index(["method", "batch_size"])["rank"].to_dict()
    assert ranks == {("b", 8): 1, ("c", 8): 2, ("a", 8): 3, ("c", 16): 1}


def test_other_metrics_rank_and_filters_leave_out(tmp_path: Path) -> None:
    whole(tmp_path, info("a"), 0.9, pixel=0.1)
    whole(tmp_path, info("b", digest="b" * 12), 0.5, pixel=0.2)
    whole(tmp_path, info("c", digest="c" * 12), 0.6, pixel=0.3)
    board = board_of(tmp_path, BoardOptions("pixel_aupro", filter={"method": ("a", "b")}))
    assert board["method"].tolist() == ["b", "a"]
    assert board_of(tmp_path, BoardOptions(filter={"batch_size": ("4",)})).empty


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "pixel_aupr"}, "board.metric=pixel_aupr: no such metric; did you mean pixel_aupro"),
        ({"group": ["setings"]}, "board.group: no column setings; did you mean setting"),
        ({"filter": {"metod": "a"}}, "board.filter: no column metod; did you mean method"),
        ({"filter": "a"}, "board.filter: give columns"),
    ],
)
def test_mistakes_are_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BoardOptions.from_config(values)


def test_a_metric_that_no_result_has_is_refused(tmp_path: Path) -> None:
    whole(tmp_path, info(), 0.5)
    with pytest.raises(UserError, match="pixel_aupro_sweep200: not in these results"):
        board_of(tmp_path, BoardOptions("pixel_aupro_sweep200"))


def test_incomplete_rows_are_blank_and_say_how_far_they_are(tmp_path: Path) -> None:
    whole(tmp_path, info("whole"), 0.5)
    saved(tmp_path, info("part", digest="b" * 12), category("bottle", 0.9))
    saved(tmp_path, info("none", digest="c" * 12))
    board = board_of(tmp_path).set_index("method")
    assert board["categories"].to_dict() == {"whole": "2/2", "none": "0/2", "part": "1/2"}
    assert board.loc[["part", "none"], ["rank", "image_auroc", "image_auroc_low"]].isna().all(axis=None)
    lines = unpadded(leaderboard_markdown(board_of(tmp_path), BoardOptions())).splitlines()
    (line,) = (line for line in lines if line.startswith("| - | part"))
    assert "| 1/2 | - | - |" in line


def test_seeds_are_one_row_with_mean_and_spread(tmp_path: Path) -> None:
    for seed, auroc in enumerate((0.6, 0.7, 0.8)):
        job = replace(info("musc", setting="batch", digest=str(seed) * 12), seed=seed, series="s")
        whole(tmp_path, job, auroc)
    saved(tmp_path, replace(info("musc", setting="batch", digest="9" * 12), seed=3, series="s"))
    (row,) = board_of(tmp_path).to_dict("records")
    assert row["image_auroc"] == pytest.approx(0.7)
    assert row["image_auroc_seed_std"] == pytest.approx(0.1)
    assert (row["seed"], row["n_seeds"], row["categories"]) == ("0..2", 3, "2/2")
    assert "3 of 4 seeds finished" in row["notes"]


def test_one_seed_has_no_spread_and_other_batch_sizes_are_other_rows(tmp_path: Path) -> None:
    whole(tmp_path, replace(info(batch_size=1), series="s"), 0.5)
    whole(tmp_path, replace(info(batch_size=4, digest="b" * 12), series="s"), 0.5)
    board = board_of(tmp_path)
    assert len(board) == 2
    assert board["image_auroc_seed_std"].isna().all()


def test_published_figures_and_differences(tmp_path: Path) -> None:
    same = replace(info(), encoder="ViT-B-16-plus-240", pretrained="laion400m_e32", protocol="standard, 240 px")
    whole(tmp_path, same, 0.9, 0.6)
    whole(tmp_path, replace(same, method="musc", setting="batch", config_hash="b" * 12), 0.9)
    whole(tmp_path, replace(same, method="musc", setting="batch", batch_size="all", config_hash="c" * 12), 0.9)
    board = board_of(tmp_path).set_index(["method", "batch_size"])
    row = board.loc[("winclip", 8)]
    assert row["published_image_auroc"] == 0.918
    assert row["difference_image_auroc"] == pytest.approx(0.9 - 0.918)
    assert row["published_pixel_aupro"] == 0.646
    assert "2303.14814" in row["published_source"]
    assert "pixel_aupro" in row["published_source"]
    assert math.isnan(board.loc[("musc", 8), "published_image_auroc"])
    assert board.loc[("musc", "all"), "published_image_auroc"] == pytest.approx(0.9477)


def test_speed_and_memory_have_a_file_of_their_own(tmp_path: Path) -> None:
    timed = replace(
        category("bottle", 0.5),
        timing={**TIMED, "charged_encode": 1.5, "seconds_score": 0.5, "seconds_metrics": 9.0, "peak_memory_mb": 100.0},
    )
    slower = replace(timed, category="cable", timing={**timed.timing, "charged_encode": 5.5, "peak_memory_mb": 300.0})
    saved(tmp_path / "first", info(), timed, slower)
    saved(tmp_path / "second", info(), replace(timed, timing=slower.timing), slower)
    texts = []
    for run in ("first", "second"):
        write_tables(tmp_path / run)
        texts.append([(tmp_path / run / f"leaderboard{kind}.csv").read_bytes() for kind in ("", "_speed")])
    (board, speed), (other_board, other_speed) = texts
    assert board == other_board
    assert speed != other_speed
    (row,) = pd.read_csv(tmp_path / "first" / "leaderboard_speed.csv").to_dict("records")
    assert row["images_per_second"] == pytest.approx(4 / 8)
    assert row["peak_memory_mb"] == 300
    assert "| 0.5 | 4.0 | 300 |" in unpadded(tmp_path / "first" / "leaderboard.md")
    assert " & 0.5 & 4.0 & 300 " in (tmp_path / "first" / "leaderboard.tex").read_text(encoding="utf-8")


def test_a_row_is_charged_its_own_encoding_or_unknown(tmp_path: Path) -> None:
    own = {**TIMED, "charged_text": 1.0, "charged_encode": 2.0, "seconds_encode": 90.0, "seconds_score": 1.0}
    unknown = {key: value for key, value in own.items() if key != "charged_encode"}
    older = {"seconds_encode": 3.0, "seconds_read": 0.1, "seconds_score": 1.0, "peak_memory_mb": 2489.0}
    for letter, timing in (("a", own), ("b", {**own, "encoded_on": "GPU"}), ("c", unknown), ("d", older)):
        whole = replace(category("bottle", 0.5), timing=timing)
        saved(tmp_path, replace(info(letter, digest=letter * 12), categories=("bottle",)), whole)
    speed = write_tables(tmp_path).speed.set_index("method")
    assert speed["images_per_second"].dropna().to_dict() == {"a": 2 / 4, "b": 2 / 4}
    assert speed["method_images_per_second"].to_dict() == dict.fromkeys("abcd", 2.0)
    assert math.isnan(speed.loc["d", "peak_memory_mb"])  # the life-time peak of a process
    assert speed["encoded_on"].to_dict() == {"a": "", "b": "GPU", "c": "", "d": ""}
    lines = unpadded(tmp_path / "leaderboard.md").splitlines()
    of = {line.split(" | ")[1]: line for line in lines if line.startswith("| 1 |")}
    assert "| unknown | 2.0 |" in of["c"]
    assert "| unknown | 2.0 |" in of["d"]
    assert "| GPU |" in of["b"]


def test_best_is_bold_and_second_underlined_within_a_group(tmp_path: Path) -> None:
    for letter, auroc in zip("abc", (0.8004, 0.8, 0.7), strict=True):
        whole(tmp_path, info(letter, digest=letter * 12), auroc)
    whole(tmp_path, info("alone", setting="batch", digest="d" * 12), 0.9)
    board = board_of(tmp_path)
    markdown = leaderboard_markdown(board, BoardOptions())
    assert markdown.count("**80.0**") == 6  # a and b print the same: both best, in three image metrics
    assert markdown.count("<ins>70.0</ins>") == 3
    assert "**90.0**" not in markdown  # nobody to be better than
    latex = leaderboard_latex(board, BoardOptions())
    assert latex.count(r"\textbf{80.0}") == 6
    assert latex.count(r"\underline{70.0}") == 3
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}", r"\end{tabular}"):
        assert latex.count(command) == 2
    widths = {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\")}
    assert len(widths) == 1


def test_names_are_escaped(tmp_path: Path) -> None:
    whole(tmp_path, replace(info("a_b|<i>", digest="a" * 12), variant="50%&#$x"), 0.5)
    board = board_of(tmp_path)
    assert "a\\_b&#124;&#60;i&#62;" in leaderboard_markdown(board, BoardOptions())
    assert r"a\_b|<i>" in leaderboard_latex(board, BoardOptions())
    assert r"50\%\&\#\$x" in leaderboard_latex(board, BoardOptions())


def test_keys_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    whole(tmp_path, info(), 0.5)
    for text in (leaderboard_markdown, leaderboard_latex):
        alone = board_of(tmp_path).assign(**{"method.side": "3"})
        assert " side " in text(alone, BoardOptions())
        both = alone.assign(**{"dataset.side": "5"})
        assert {" method.side ", " dataset.side "} <= set(re.findall(r" \S+\.side ", text(both, BoardOptions())))


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    assert build_board([]).empty
    assert leaderboard_markdown(build_board([]), BoardOptions()) == "No finished job.\n"
    assert leaderboard_latex(build_board([]), BoardOptions()).startswith("% No finished job.")


def test_runs_are_merged_and_problems_are_named(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    saved(first, info(), category("bottle", 0.5))
    saved(second, info(), category("bottle", 0.1), category("cable", 0.7))
    saved(second, info("b", digest="b" * 12), category("bottle", 0.5))
    (second / "jobs" / info("b", digest="b" * 12).folder / "job.json").write_text("{", encoding="utf-8")
    broken = saved(first, info("c", digest="c" * 12), category("bottle", 0.5))
    broken.category_file("bottle").write_text("{", encoding="utf-8")
    (first / "failed").mkdir()
    (first / "failed" / "x.json").write_text('{"overrides": ["method=d"], "error": "why"}', encoding="utf-8")
    runs = read_runs([first, second])
    board = build_board(group_series(runs.jobs)).set_index("method")
    assert board.loc["winclip", "image_auroc"] == pytest.approx(0.6)  # the first folder's bottle, the second's cable
    assert board.loc["c", "categories"] == "0/2"
    assert [failure.error for failure in runs.failures] == ["why"]
    assert len(runs.problems) == 2
    assert all("damaged" in problem for problem in runs.problems)
    with pytest.raises(UserError, match="no such results folder"):
        read_runs([tmp_path / "nowhere"])


def test_files_of_other_versions_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, info(), category("bottle", 0.5), category("cable", 0.5))
    path = folder.path / "job.json"
    text = path.read_text(encoding="utf-8")
    newer = text.replace('"series": "",', '"series": "", "added_later": 1,').replace('"series"', '"_"')
    path.write_text(newer, "utf-8")
    for file in folder.path.glob("categories/*.npz"):
        file.unlink()
    (row,) = board_of(tmp_path).to_dict("records")
    assert row["image_auroc"] == 0.5
    assert math.isnan(row["image_auroc_low"])


def test_series_that_would_be_called_the_same_are_told_apart(tmp_path: Path) -> None:
    whole(tmp_path, info("a"), 0.5)
    whole(tmp_path, info("a", digest="b" * 12), 0.6)
    whole(tmp_path, info("c", digest="c" * 12), 0.6)
    series = group_series(read_runs([tmp_path]).jobs)
    assert sorted(entry.name for entry in series) == ["a (config aaaaaa)", "a (config bbbbbb)", "c"]
    whole(tmp_path, replace(info("c", digest="d" * 12), encoder="ViT-L"), 0.6)
    names = {entry.name for entry in group_series(read_runs([tmp_path]).jobs)}
    assert {"c (ViT tag 240)", "c (ViT-L tag 240)"} < names
    assert len(names) == 4

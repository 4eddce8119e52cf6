"""The report from result files alone: what is on the page, and that data cannot break it."""

from __future__ import annotations

import html.parser
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("plotly")
pytest.importorskip("itables")
pytest.importorskip("scikit_posthocs")

from tests.helpers.result_files import category, info, saved
from zsad_bench.leaderboard.board import BoardOptions
from zsad_bench.report.content import build_content
from zsad_bench.report.write import main, write_report
from zsad_bench.results.runs import read_runs

HOSTILE = "<script>alert('x')</script>&\"{{ 7919 * 7919 }}"


class Page(html.parser.HTMLParser):
    """Texts, addresses and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.texts.append(data)


@pytest.fixture
def report(example_report: Path) -> Path:
    return example_report


def test_one_file_with_everything_inside(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert report.stat().st_size < 15_000_000
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    shown = " ".join(page.texts)
    for words in ("Leaderboard", "Coverage", "musc", "fiseclip (reconstruction)", "which methods can be told apart?"):
        assert words in shown
    assert page.tags.count("figure") == 6  # the worst images of three methods in two categories


def test_every_question_has_a_table_and_most_a_figure(report: Path) -> None:
    tables = {path.stem for path in (report.parent / "tables").glob("*.csv")}
    plots = {path.stem for path in (report.parent / "plots").glob("*.png")}
    assert plots == {path.stem for path in (report.parent / "plots").glob("*.svg")}
    for name in ("batch_size", "share", "speed", "categories", "defect_types", "defect_sizes", "curves", "agreement"):
        assert f"{name}_drawn" in tables
        assert any(plot.startswith(f"{name}_drawn") for plot in plots), name
    assert {"comparisons_drawn", "operating_points_drawn", "worst_drawn"} <= tables
    assert sum(plot.startswith("scores_drawn") for plot in plots) == 3
    board = pd.read_csv(report.parent / "leaderboard.csv")
    assert len(board) == 6
    assert (report.parent / "leaderboard.tex").exists()


def test_no_picture_is_drawn_twice(report: Path) -> None:
    """The interactive chart stands for the batch-size figures, which are files only."""
    addresses = Page(report.read_text(encoding="utf-8")).addresses
    assert "#curves" in addresses
    plots = [path.stem for path in (report.parent / "plots").glob("*.png")]
    curves = [name for name in plots if name.startswith("batch_size_")]
    assert len(curves) == 2
    assert sum(address.startswith("data:image/png") for address in addresses) == len(plots) - len(curves)


def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    run = tmp_path / HOSTILE.replace("/", "")
    for number in range(2):
        job = replace(info(f"{HOSTILE}{number}", digest=str(number) * 12), dataset=HOSTILE, variant=HOSTILE)
        saved(run, job, category("bottle", 0.5), category("cable", 0.6))
        (run / "jobs" / job.folder / "config.yaml").write_text(f"name: {HOSTILE}\n", encoding="utf-8")
    (run / "commands.txt").write_text(f"{HOSTILE}\n", encoding="utf-8")
    text = write_report([run], output=tmp_path / "out").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "62710561" not in "".join(Page(text).texts).replace(HOSTILE, "")


def test_missing_cells_failures_and_damage_are_shown(tmp_path: Path) -> None:
    whole, part = info("whole"), info("part", 16, digest="b" * 12)
    saved(tmp_path, whole, category("bottle", 0.5), category("cable", 0.6))
    folder = saved(tmp_path, part, category("bottle", 0.5))
    folder.category_file("cable").write_text("{", encoding="utf-8")
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "1.json").write_text('{"overrides": ["method=x"], "error": "boom"}', encoding="utf-8")
    shown = " ".join(" ".join(Page(write_report([tmp_path]).read_text(encoding="utf-8")).texts).split())
    assert "Failed: method=x : boom" in shown
    assert "cable.json: damaged" in shown
    assert "1/2" in shown
    assert shown.count("missing") >= 3  # the explanation, and two cells that nobody started
    assert "No answer:" in shown


def test_datasets_with_like_names_have_files_of_their_own(tmp_path: Path) -> None:
    datasets = ("a b", "a-b", "a_b", "Parts", "parts", "фото", "снимки")
    for number, dataset in enumerate(datasets):
        job = replace(info(digest=f"{number:012}"), dataset=dataset)
        saved(tmp_path, job, category("bottle", number / 10), category("cable", number / 10))
    write_report([tmp_path])
    tables = [pd.read_csv(path) for path in (tmp_path / "report" / "tables").glob("categories_*.csv")]
    assert sorted(table["dataset"].iloc[0] for table in tables) == sorted(datasets)
    assert all(len(set(table["dataset"])) == 1 for table in tables)
    names = [path.name.casefold() for path in (tmp_path / "report").rglob("*.*")]
    assert len(set(names)) == len(names)


def test_many_runs_are_merged(example_run: Path, tmp_path: Path) -> None:
    saved(tmp_path, info("winclip"), category("bottle", 0.5), category("cable", 0.6))
    content = build_content(read_runs([example_run, tmp_path]), BoardOptions())
    assert set(content.board["method"]) == {"clip_ad", "musc", "fiseclip", "winclip"}
    assert set(content.board["dataset"]) == {"drawn", "mvtec"}
    cells = content.coverage.set_index("method")
    assert cells.loc["winclip", "mvtec, batch 8"] == "2/2"
    assert cells.loc["winclip", "drawn, batch 1"] == cells.loc["musc", "mvtec, batch 8"] == "missing"


def test_the_command_line(example_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", str(tmp_path), "board.metric=pixel_aupro", "board.filter.method=musc"]
    assert main([str(example_run), *options]) == 0
    first = (tmp_path / "index.html").read_bytes()
    assert main([str(example_run), *options]) == 0
    assert (tmp_path / "index.html").read_bytes() == first
    assert "index.html" in capsys.readouterr().out
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert set(board["method"]) == {"musc"}
    assert board.loc[board["rank"] == 1, "pixel_aupro"].item() == board["pixel_aupro"].max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such results folder"),
        (["."], "holds no job"),
        ([".", "board.metrik=x"], "board.metrik: no such key"),
        ([".", "board.metric=x"], "no such metric"),
        (["board.metric=image_ap"], "at least one results folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error

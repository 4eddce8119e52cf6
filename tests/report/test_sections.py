"""Rows of different protocols: neither ranked, compared, tested nor drawn together, whatever tells them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly")
pytest.importorskip("itables")
pytest.importorskip("scikit_posthocs")

from tests.helpers.result_files import info, saved
from zsad_bench.contract import Sample
from zsad_bench.core.names import safe_name
from zsad_bench.engine.measure import evaluate_images
from zsad_bench.leaderboard import questions
from zsad_bench.leaderboard.board import BoardOptions, build_board
from zsad_bench.leaderboard.comparisons import block_values, compare, not_compared, same_units
from zsad_bench.leaderboard.series import Series, group_series, section_title
from zsad_bench.report.content import build_content
from zsad_bench.report.figures import plots
from zsad_bench.report.sections import coverage, report_sections
from zsad_bench.report.write import write_report
from zsad_bench.results.rows import CategoryResult, ImageResult, JobInfo
from zsad_bench.results.runs import Runs, read_runs
from zsad_bench.statistics.intervals import rank_test

METHODS = ("winclip", "clip_ad", "musc")
PROTOCOLS = ("standard, limit 10", "standard, evaluation_size 64", "standard, resize shortest", "Standard", "views")


def measured(name: str, skill: float) -> CategoryResult:
    """Forty images, the same for all methods; the higher the skill, the better they are ranked."""
    random = np.random.default_rng(len(name))
    labels = np.arange(40) % 2
    scores = (random.normal(size=40) + skill * labels).astype(np.float32)
    images = [
        ImageResult(f"{n:02}", int(label), "dent" if label else "good", float(score), n // 4)
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    paths = [Sample(i.image_id, Path(i.image_id), name, i.label, i.defect_type, None) for i in images]
    metrics, _ = evaluate_images(paths, scores)
    metrics |= dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"), 0.5)
    timing = {"charged_text": 0.1, "charged_encode": 1.0, "encoded_on": "a processor", "seconds_score": 1.0 / skill}
    return CategoryResult(name, 40, 20, 0, metrics, "", "", tuple(images), timing)


def make(folder: Path, rows: list[tuple[str, str]], seeds: tuple[int, ...] = (0,)) -> Runs:
    """A finished job for every (method, protocol) and seed; later rows are better."""
    for number, (method, protocol) in enumerate(rows):
        for seed in seeds:
            base = info(method, setting="batch", digest=f"{number:06}{seed:06}")
            job: JobInfo = replace(base, protocol=protocol, seed=seed, series=f"s{number}")
            saved(folder, job, *(measured(name, 0.2 + 0.3 * number + seed / 9) for name in job.categories))
    return read_runs([folder])


def four(protocol: str) -> list[tuple[str, str]]:
    """Three methods by the standard protocol, and one of them by another, where it would be the best."""
    return [*((method, "standard") for method in METHODS), ("winclip", protocol)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_four_jobs_of_which_one_has_another_protocol(tmp_path: Path, protocol: str) -> None:
    runs = make(tmp_path, four(protocol))
    series = group_series(runs.jobs)
    alone = next(entry for entry in series if entry.info.protocol == protocol)
    assert alone.name == "winclip"  # alone in its section, so nothing has to tell it apart
    board = build_board(series).set_index(["protocol", "method"])["rank"].to_dict()
    assert board == {
        ("standard", "musc"): 1,
        ("standard", "clip_ad"): 2,
        ("standard", "winclip"): 3,
        (protocol, "winclip"): 1,
    }
    assert len(compare(series, "image_auroc")) == 3  # of the three standard ones
    assert not any(same_units(alone, entry) for entry in series if entry is not alone)
    with pytest.raises(ValueError, match="one dataset and protocol at a time"):
        block_values(series, "image_auroc")
    agreement = questions.agreement([alone, *(entry for entry in series if entry is not alone)]).to_numpy()
    assert np.isnan(agreement[0, 1:]).all()
    assert not np.isnan(agreement[1:, 1:]).any()
    speed = questions.speed(series, "image_auroc").set_index(["protocol", "method"])
    assert speed.loc[(protocol, "winclip"), "pareto"]
    assert speed.loc[("standard", "musc"), "pareto"]  # slower and worse than the row of the other protocol
    with pytest.raises(ValueError, match="several datasets or protocols"):
        plots.batch_size_figure(questions.by_batch_size(series), "image_auroc")


@pytest.mark.parametrize("protocol", PROTOCOLS[:2])
def test_the_report_has_a_section_for_each(tmp_path: Path, protocol: str) -> None:
    runs = make(tmp_path, four(protocol), seeds=(0, 1))
    content = build_content(runs, BoardOptions())
    title = f"mvtec [{protocol}]"
    titles = [question.title for question in content.questions]
    assert len(titles) == len(set(titles))
    for question in content.questions:
        if len(question.table) and "protocol" in question.table:
            assert question.table["protocol"].nunique() == 1, question.title
            assert question.title.startswith(title) == (question.table["protocol"].iloc[0] == protocol)
    told = {q.title: q for q in content.questions if "told apart" in q.title}
    standard, other = (told[f"{name}: which methods can be told apart?"] for name in ("mvtec", title))
    assert len(standard.table) == 3
    assert "Over 2 categories the mean ranks" in standard.text
    assert "of 3 pairs" in standard.text
    assert other.table.empty
    assert "one method only" in other.text
    assert len(standard.figures) == 1
    assert not other.figures
    cells = content.coverage.set_index("method")
    assert cells.loc["winclip", ["mvtec, batch 8", f"{title}, batch 8"]].tolist() == ["2/2", "2/2"]
    assert cells.loc["musc", f"{title}, batch 8"] == "missing"


def test_two_protocols_with_three_methods_each_are_two_tests(tmp_path: Path) -> None:
    """The names are the same in both; the order of the methods is reversed, so that together nobody would be better."""
    rows = [(method, "standard") for method in METHODS] + [(method, "standard, limit 10") for method in METHODS[::-1]]
    series = group_series(make(tmp_path, rows).jobs)
    both = report_sections(series)
    assert [section.title for section in both] == ["mvtec", "mvtec [standard, limit 10]"]
    ranks = [rank_test(block_values(section.series, "image_auroc")) for section in both]
    assert [test.n_blocks for test in ranks] == [2, 2]
    order = [sorted(test.ranks, key=lambda label: test.ranks[label]) for test in ranks]
    assert order[0] == order[1][::-1]
    assert len(compare(series, "image_auroc")) == 6
    assert not_compared(both[0].series) == ""


def test_files_of_sections_never_overwrite_each_other(tmp_path: Path) -> None:
    alike = ["standard, limit 10", "standard; limit 10", "Standard, Limit-10"]
    make(tmp_path, [(method, protocol) for protocol in alike for method in METHODS])
    page = write_report([tmp_path])
    tables = {path.stem: pd.read_csv(path) for path in (page.parent / "tables").glob("comparisons_*.csv")}
    assert set(tables) == {f"comparisons_{safe_name(f'mvtec [{protocol}]')}" for protocol in alike}
    assert len(list((page.parent / "plots").glob("ranks_*.png"))) == 3
    text = page.read_text("utf-8")
    for protocol in alike:
        assert f"<h3>mvtec [{protocol}]</h3>" in text  # its charts
    assert 'data-column="protocol"' in text


def test_titles_say_the_protocol_unless_it_is_the_standard_one() -> None:
    assert section_title("visa", "standard") == "visa"
    assert section_title("visa", "standard, limit 10") == "visa [standard, limit 10]"
    table = pd.DataFrame({"dataset": ["visa"], "protocol": ["standard, limit 10"]})
    assert plots.titled(table, "bars") == "visa [standard, limit 10] (bars)"
    assert plots.titled(table.assign(protocol="standard")) == "visa"
    assert plots.titled(table.drop(columns="protocol")) == "visa"
    assert plots.titled(table.iloc[:0]) == ""
    long = table.assign(protocol="standard, categories " + "+".join(f"category{n}" for n in range(15)))
    assert max(map(len, plots.titled(long).splitlines())) <= 80


def test_coverage_of_nothing_is_empty() -> None:
    nothing: list[Series] = []
    assert coverage(nothing).empty
    assert report_sections(nothing) == []

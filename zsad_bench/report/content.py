"""What a report shows: tables, figures and sentences of one or many results folders, before any page is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from zsad_bench.core.names import safe_name
from zsad_bench.leaderboard import defects, questions
from zsad_bench.leaderboard.board import BoardOptions, build_board
from zsad_bench.leaderboard.comparisons import block_values, compare, verdict
from zsad_bench.leaderboard.merged_rows import shown_rows
from zsad_bench.leaderboard.series import Series, group_series, largest_batches, section_title
from zsad_bench.leaderboard.speed import build_speed
from zsad_bench.leaderboard.thresholds import operating_points
from zsad_bench.metrics.names import METRIC_NAMES
from zsad_bench.report.figures import plots
from zsad_bench.report.figures.ranks import critical_difference_figure
from zsad_bench.report.figures.seeds import seeds_figure
from zsad_bench.report.figures.speed import speed_figure
from zsad_bench.report.sections import Section, coverage, report_sections
from zsad_bench.results.runs import Runs
from zsad_bench.statistics.intervals import RankTest, rank_test


@dataclass(frozen=True)
class Question:
    """A question with its answer: sentences, figures and the table behind them.

    Attributes:
        name: of files, ``[a-z0-9_]``.
        figures: file name without ending -> what makes the figure.
        table: what the figures show; empty if there is nothing.
        absent: why there is no answer, else empty.
        chart: id of the page's section whose interactive chart shows the same as the figures, else empty. Figures are
            drawn by matplotlib and always written to ``plots/``; the page shows them only where it has no such chart.
    """

    name: str
    title: str
    text: str
    figures: dict[str, Callable[[], Figure]]
    table: pd.DataFrame
    absent: str = ""
    chart: str = ""


@dataclass(frozen=True)
class Sheet:
    """A picture of a category's worst images; ``section`` is the title of its dataset and protocol."""

    method: str
    section: str
    category: str
    path: Path


@dataclass
class Content:
    """Everything a report shows; ``board`` and ``speed`` have the same rows, ``shown`` those that people read."""

    runs: Runs
    options: BoardOptions
    series: list[Series]
    board: pd.DataFrame
    speed: pd.DataFrame
    shown: pd.DataFrame
    coverage: pd.DataFrame
    questions: list[Question] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)


def build_content(runs: Runs, options: BoardOptions) -> Content:
    """Tables, figures and sentences; plots compare methods at their largest batch size unless batch size is the topic.

    Raises:
        UserError: results without the metric that the options ask for.
    """
    everything = group_series(runs.jobs)
    series = [entry for entry in everything if options.keeps(entry.info)]
    board = build_board(series, options)
    speed, shown = build_speed(series, board), shown_rows(series, board)
    content = Content(runs, options, series, board, speed, shown, coverage(series))
    for section in report_sections(series):
        content.questions += _questions(section, options)
    content.sheets = _sheets(series)
    return content


def _questions(section: Section, options: BoardOptions) -> list[Question]:
    """The questions of one dataset and protocol, in the order of the page."""
    metric, started = options.metric, section.started
    entries = sorted(largest_batches(started), key=lambda entry: entry.label)
    return [
        _batch_sizes(section, started, metric),
        _compositions(section, started, metric),
        _shares(section, started),
        _speed(section, started, metric),
        _comparisons(section, entries, metric),
        _categories(section, entries, metric),
        _defect_types(section, entries),
        _defect_sizes(section, entries),
        _distributions(section, entries),
        _curves(section, entries),
        _agreement(section, entries),
        _thresholds(section, entries),
        _worst(section, entries),
    ]


def _batch_sizes(section: Section, series: list[Series], metric: str) -> Question:
    table = questions.by_batch_size(series)
    known = sorted(set(table.loc[table["value"].notna(), "metric"])) if len(table) else []
    shown = list(dict.fromkeys(name for name in (metric, "image_auroc", "pixel_aupro") if name in known))
    name = f"batch_size_{section.name}"
    return Question(
        name,
        f"{section.title}: how much does batch size matter?",
        "Methods that look at one image do not change with the batch size. Bars are 95 % intervals over "
        f"{section.units}; where several seeds were run, values are means over them and the table has their standard "
        "deviation.",
        {f"{name}_{which}": partial(plots.batch_size_figure, table, which, section.units) for which in shown},
        table,
        "" if shown else "no method has finished every category",
        chart="curves" if shown else "",
    )


def _compositions(section: Section, series: list[Series], metric: str) -> Question:
    table = questions.by_seed(series)
    name = f"seeds_{section.name}"
    shown = [] if table.empty else list(dict.fromkeys([metric, "image_auroc", "pixel_aupro"]))
    known = [which for which in shown if table.loc[table["metric"] == which, "value"].notna().any()]
    return Question(
        name,
        f"{section.title}: does it matter which images come together?",
        "Every seed composes the batches anew, over the same images. This spread comes on top of the intervals over "
        f"{section.units}.",
        {f"{name}_{which}": partial(seeds_figure, table, which) for which in known},
        table,
        "" if known else "one seed only; run several with seeds=0..9",
    )


def _shares(section: Section, series: list[Series]) -> Question:
    table = questions.by_share([entry for entry in series if entry.info.setting in ("batch", "transductive")])
    name = f"share_{section.name}"
    absent = "" if len(table) else "no batch method, or the batches of images were not recorded"
    return Question(
        name,
        f"{section.title}: does it matter how many images of a batch are anomalous?",
        "Every image counts with its placement: the share of images of the other class that are on the right side of "
        f"it. The mean placement is AUROC.{section.of_objects}",
        {} if absent else {name: partial(plots.share_figure, table)},
        table,
        absent,
    )


def _speed(section: Section, series: list[Series], metric: str) -> Question:
    table = questions.speed(series, metric)
    name = f"speed_{section.name}"
    known = len(table) and (table["value"].notna() & table["images_per_second"].notna()).any()
    return Question(
        name,
        f"{section.title}: accuracy against throughput",
        "Nobody is both better and faster than a method on the Pareto front (ringed), which leaves out whatever cannot "
        "be told from chance. Speed is images per second of text, encoder and method as if the method had run alone; "
        "loading, setting up and metrics do not count. Methods that give the same results at several batch sizes are "
        "shown at their fastest. Compare only numbers of one machine.",
        {name: partial(speed_figure, table, metric)} if known else {},
        table,
        "" if known else "no timed and finished method",
    )


def _comparisons(section: Section, series: list[Series], metric: str) -> Question:
    found = compare(series, metric)
    table = pd.DataFrame([vars(pair) | {"distinguishable": pair.distinguishable} for pair in found])
    test = rank_test(block_values(series, metric))
    name = f"ranks_{section.name}"
    figures: dict[str, Callable[[], Figure]] = {}
    if not math.isnan(test.critical_difference):
        figures[name] = partial(critical_difference_figure, test, section.title)
    return Question(
        f"comparisons_{section.name}",
        f"{section.title}: which methods can be told apart?",
        f"{verdict(found, metric, section.units)}{section.mixed_units(series)} {_rank_sentence(test)}",
        figures,
        table,
    )


def _rank_sentence(test: RankTest) -> str:
    if test.reason:
        return f"No rank test over categories: {test.reason}."
    p = f"p = {test.p:.3f}" if test.p >= 0.001 else "p < 0.001"
    difference = "differ" if test.p < 0.05 else "do not differ significantly"
    return (
        f"Over {test.n_blocks} categories the mean ranks {difference} (Friedman, {p}); mean ranks closer than "
        f"{test.critical_difference:.2f} cannot be told apart (Nemenyi)."
    )


def _categories(section: Section, series: list[Series], metric: str) -> Question:
    table = questions.by_category(series)
    name = f"categories_{section.name}"
    shown = list(dict.fromkeys([metric, "image_auroc", "pixel_aupro"]))
    figures: dict[str, Callable[[], Figure]] = {
        f"{name}_{which}": partial(_category_heat, table, which, section.title) for which in shown if len(table)
    }
    text = "Each method at its largest batch size."
    return Question(name, f"{section.title}: which categories are hard?", text, figures, table)


def _category_heat(table: pd.DataFrame, metric: str, title: str) -> Figure:
    part = table[table["metric"] == metric].assign(label=_row_label)
    return plots.heat_figure(
        part.pivot_table(index="label", columns="category", values="value", dropna=False),
        f"{title}: {METRIC_NAMES[metric]}",
    )


def _row_label(rows: pd.DataFrame) -> pd.Series:
    return rows["method"] + ", batch " + rows["batch_size"].astype(str)


def _defect_types(section: Section, series: list[Series]) -> Question:
    table = defects.by_defect_type(series)
    name = f"defect_types_{section.name}"
    text = "Image AUROC of the anomalous images of one defect type against all normal images of the category."
    text += section.of_objects
    figures: dict[str, Callable[[], Figure]] = {name: partial(_defect_heat, table, section.title)} if len(table) else {}
    absent = "" if len(table) else "no labelled images"
    return Question(name, f"{section.title}: which defects are hard?", text, figures, table, absent)


def _defect_heat(table: pd.DataFrame, title: str) -> Figure:
    part = table.assign(label=_row_label(table), kind=table["category"] + ": " + table["defect_type"])
    wide = part.pivot_table(index="kind", columns="label", values="image_auroc", dropna=False)
    return plots.heat_figure(wide, f"{title}: image AUROC by defect type")


def _defect_sizes(section: Section, series: list[Series]) -> Question:
    table = defects.by_defect_size(series)
    name = f"defect_sizes_{section.name}"
    return Question(
        name,
        f"{section.title}: are small defects found?",
        "AUPRO of regions of one size: their overlap, against the false positives of the whole category.",
        {name: partial(plots.size_figure, table)} if len(table) else {},
        table,
        "" if len(table) else "no masks, or the run kept no histograms",
    )


def _distributions(section: Section, series: list[Series]) -> Question:
    figures: dict[str, Callable[[], Figure]] = {}
    for entry in series:
        part = safe_name(entry.label)
        figures[f"scores_{section.name}_{part}"] = partial(_distribution, entry)
    text = "The less the two kinds overlap, the better. Scores of different methods have different units."
    text += section.of_objects
    return Question(f"scores_{section.name}", f"{section.title}: image scores", text, figures, pd.DataFrame())


def _distribution(entry: Series) -> Figure:
    return plots.distribution_figure(questions.score_table(entry), f"{entry.label} on {section_title(*entry.section)}")


def _curves(section: Section, series: list[Series]) -> Question:
    parts = [table for entry in series if len(table := questions.curves(entry))]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    name = f"curves_{section.name}"
    return Question(
        name,
        f"{section.title}: curves",
        f"Means over categories. Pixel curves come from histograms, image curves are exact.{section.of_objects}",
        {name: partial(plots.curves_figure, table)} if parts else {},
        table,
        "" if parts else "no labelled images",
    )


def _agreement(section: Section, series: list[Series]) -> Question:
    table = questions.agreement(series)
    name = f"agreement_{section.name}"
    title = f"{section.title}: rank correlation of image scores"
    figures: dict[str, Callable[[], Figure]] = {name: partial(plots.heat_figure, table, title, "Spearman's rho", 1.0)}
    text = "Methods that agree find the same images suspicious; methods that do not may be worth combining."
    text += section.of_objects
    absent = "" if len(series) > 1 else "one method only"
    table = table.reset_index(names="method")
    return Question(name, f"{section.title}: do methods agree?", text, {} if absent else figures, table, absent)


def _thresholds(section: Section, series: list[Series]) -> Question:
    table = operating_points(series)
    return Question(
        f"operating_points_{section.name}",
        f"{section.title}: what a yes or no would be worth",
        "Thresholds estimated on half of the images of a category and tested on the other half: at the largest F1 "
        "(f1max), and at 1 % and 5 % false positives (fpr01, fpr05). With few normal images a small false positive "
        "rate cannot be estimated: normal_estimate says how many there were. These numbers play no part in ranking."
        f"{section.of_objects}{section.mixed_units(series)}",
        {},
        table,
        "" if len(table) else "a half of the images lacks one of the two classes",
    )


def _worst(section: Section, series: list[Series]) -> Question:
    table = questions.worst_images(series)
    name = f"worst_{section.name}"
    text = "False alarms are normal images with the highest scores, misses anomalous ones with the lowest."
    text += section.of_objects
    absent = "" if len(table) else "no labelled images"
    return Question(name, f"{section.title}: where do methods fail?", text, {}, table, absent)


def _sheets(series: Sequence[Series]) -> list[Sheet]:
    """Pictures of the worst images that the runs kept, each method at its largest batch size."""
    found = []
    for entry in sorted(largest_batches(series), key=lambda entry: entry.label):
        job = (entry.finished or entry.jobs)[0]
        for category, folder in job.sources.items():
            path = folder.worst_picture(category)
            if path.exists():
                found.append(Sheet(entry.label, section_title(*entry.section), category, path))
    return found

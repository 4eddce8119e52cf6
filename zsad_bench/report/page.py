"""The page of a report: content into one HTML file with everything inside, scripts and pictures too."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from zsad_bench.core.version import package_version
from zsad_bench.leaderboard.questions import by_batch_size, by_category
from zsad_bench.leaderboard.series import largest_batches, section_title, sections
from zsad_bench.leaderboard.speed import KEYS, UNKNOWN
from zsad_bench.leaderboard.text import marks
from zsad_bench.metrics.names import METRIC_NAMES, percent, shown_metrics
from zsad_bench.report.charts import batch_size_chart, category_chart
from zsad_bench.report.content import Content
from zsad_bench.results.runs import Job
from zsad_bench.results.varied_keys import key_columns, short_key

ROWS = 300
"""Rows of a table on the page; its CSV file has all."""

_FRACTIONS = (
    "value",
    "low",
    "high",
    "error",
    "seed_std",
    "fpr",
    "recall",
    "precision",
    "f1",
    "difference",
    "image_auroc",
)
_FILTERS = ("dataset", "protocol", "setting", "method", "batch_size")
_SHEET_WIDTH = 900
_BEFORE = ("rank", "method", "batch_size", "setting")
_AFTER = ("fidelity", "dataset", "protocol", "encoder", "precision", "seed", "categories")
"""Columns of the leaderboard before and after the numbers, so that a narrow window shows the first metric."""


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, what it is sorted by, how it stands out, and up to two lines in small letters."""

    text: str
    order: str = ""
    kind: str = ""
    note: str = ""
    more: str = ""


def render(content: Content, pictures: Mapping[str, Path]) -> str:
    """The page as text.

    Args:
        pictures: PNG file by figure name.
    """
    shown = [name for question in content.questions if not question.chart for name in question.figures]
    environment = Environment(
        loader=PackageLoader("zsad_bench.report", "assets"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    heads, rows = _board(content)
    datasets = sorted({entry.info.dataset for entry in content.series})
    return environment.get_template("index.html.j2").render(
        version=package_version(),
        folders=[str(folder) for folder in content.runs.folders],
        problems=content.runs.problems,
        failures=content.runs.failures,
        metric=content.options.metric,
        metric_names=METRIC_NAMES,
        board_heads=heads,
        board_rows=rows,
        constant={} if content.board.empty else _constant(content.board),
        filters={name: choices for name in _FILTERS if len(choices := _choices(content.board, name)) > 1},
        groups=["dataset", "protocol", *content.options.group],
        coverage=_table(content.coverage),
        datasets=datasets,
        charts=_charts(content),
        questions=content.questions,
        tables={question.name: _table(question.table.head(ROWS)) for question in content.questions},
        rows_shown=ROWS,
        pictures={name: _png(pictures[name]) for name in shown},
        sheets=[(sheet, _small(sheet.path)) for sheet in content.sheets],
        jobs=[_provenance(job) for job in content.runs.jobs if content.options.keeps(job.info)],
        commands=_commands(content),
        css=_asset("report.css"),
        js=_asset("report.js"),
        plotly=Markup(get_plotlyjs()),
        tables_js=base64.b64encode(_itables("dt_bundle.js")).decode(),
        tables_css=Markup(_itables("dt_bundle.css").decode()),
    )


def _asset(name: str) -> Markup:
    return Markup((resources.files("zsad_bench.report") / "assets" / name).read_text("utf-8"))


def _itables(name: str) -> bytes:
    """A file of DataTables as the package itables ships it."""
    return (resources.files("itables") / "html" / name).read_bytes()


def _png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _small(path: Path) -> str:
    """A picture as WebP, no wider than the page shows it."""
    with Image.open(path) as picture:
        smaller = picture.convert("RGB")
        smaller.thumbnail((_SHEET_WIDTH, 10 * _SHEET_WIDTH))
        buffer = io.BytesIO()
        smaller.save(buffer, "WEBP", quality=72)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _board(content: Content) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows of the leaderboard, best and second of each group marked."""
    board, metric = content.shown, content.options.metric
    if board.empty:
        return [], []
    keys = list(dict.fromkeys(["dataset", "protocol", *content.options.group]))
    metrics = shown_metrics(board)
    marked: dict[tuple[object, str], str] = {}
    for _, part in board.groupby(keys, sort=False, dropna=False):
        for name in metrics:
            marked |= {(index, name): kind for index, kind in zip(part.index, marks(part, name), strict=True)}
    after = [*key_columns(board), *(name for name in _AFTER if name not in _constant(board))]
    if board.duplicated([name for name in KEYS if name != "config_hash"]).any():
        after.append("config_hash")
    printed = bool(board[f"published_{metric}"].notna().any()) if f"published_{metric}" in board else False
    rows = []
    for index, row in zip(board.index, board.to_dict("records"), strict=True):
        named = {**row, "method": _method(row)}
        cells = [_label(named, name) for name in _BEFORE]
        cells += [_metric(row, name, marked[index, name]) for name in metrics]
        cells += _speeds(row, bool(board["peak_gpu_memory_mb"].notna().any()))
        if printed:
            figure, difference = row[f"published_{metric}"], row[f"difference_{metric}"]
            cells.append(Cell(_percent(figure), _order(figure), note=str(row["published_source"])))
            cells.append(Cell("" if pd.isna(difference) else f"{100 * difference:+.1f}", _order(difference)))
        rows.append([*cells, *(_label(named, name) for name in after)])
    figures = [*(METRIC_NAMES[name] for name in metrics), "images / s", "method alone, images / s", "memory, MiB"]
    figures += ["GPU memory, MiB"] if board["peak_gpu_memory_mb"].notna().any() else []
    figures += ["published", "ours minus published"] if printed else []
    return [*(_head(name) for name in _BEFORE), *figures, *(_head(name) for name in after)], rows


def _head(name: str) -> str:
    return short_key(name).replace("_", " ")


def _constant(board: pd.DataFrame) -> dict[str, str]:
    """Columns that say the same in every row: named once above the table instead."""
    return {name: str(board[name].iloc[0]) for name in _AFTER if board[name].nunique(dropna=False) == 1}


def _percent(value: float) -> str:
    return "" if pd.isna(value) else percent(value)


def _method(row: Mapping[object, object]) -> str:
    plain = row["variant"] in ("paper", "official", "reconstruction")
    return str(row["method"]) if plain else f"{row['method']} ({row['variant']})"


def _label(row: Mapping[object, object], name: str) -> Cell:
    value = row[name]
    if pd.isna(value):  # type: ignore[call-overload]
        return Cell("-", "999999")
    order = "" if name not in ("rank", "batch_size") else "999998" if value == "all" else str(value)
    incomplete = name == "categories" and len(set(str(value).split("/"))) > 1
    return Cell(str(value), order, "incomplete" if incomplete else "")


def _metric(row: Mapping[object, object], name: str, mark: str) -> Cell:
    value, low, high = (row.get(key, math.nan) for key in (name, f"{name}_low", f"{name}_high"))
    assert isinstance(value, float)
    note = "" if pd.isna(low) else f"{percent(low)} to {percent(high)}"  # type: ignore[call-overload, arg-type]
    spread = row.get(f"{name}_seed_std", math.nan)
    assert isinstance(spread, float)
    more = "" if math.isnan(spread) else f"seeds \u00b1 {100 * spread:.1f}"
    return Cell(_percent(value), _order(value), mark, note, more)


def _number(value: float, digits: int) -> Cell:
    return Cell("" if pd.isna(value) else f"{value:.{digits}f}", _order(value))


def _speeds(row: Mapping[object, object], gpu: bool) -> list[Cell]:
    """Both speeds and the memory of a row; which batch size, and where features were encoded, stand below."""
    rates = [_number(float(str(row[name])), 1) for name in ("images_per_second", "method_images_per_second")]
    batch, device = str(row["fastest_batch"]), str(row["encoded_on"])
    known = bool(rates[0].text)
    rates[0] = replace(
        rates[0],
        text=rates[0].text or (UNKNOWN if rates[1].text else ""),
        note=f"batch {batch}" if batch else "",
        more=f"encoder on {device}" if device and known else "",
    )
    names = ("peak_memory_mb", "peak_gpu_memory_mb") if gpu else ("peak_memory_mb",)
    return [*rates, *(_number(float(str(row[name])), 0) for name in names)]


def _order(value: float) -> str:
    return "-1" if pd.isna(value) else f"{value:.6f}"


def _choices(board: pd.DataFrame, name: str) -> list[str]:
    if board.empty:
        return []
    values = board[name].astype(str).unique().tolist()
    return sorted(values, key=lambda text: (0, int(text), "") if text.isdigit() else (1, 0, text))


def _charts(content: Content) -> list[dict[str, object]]:
    """Interactive charts by dataset and protocol: id, title, JSON of the figure, metrics to choose from."""
    charts: list[dict[str, object]] = []
    for number, (key, series) in enumerate(sections(content.series).items()):
        curves, categories = by_batch_size(series), by_category(largest_batches(series))
        for kind, table, make in (
            ("curve", curves, batch_size_chart),
            ("category", categories, category_chart),
        ):
            known = table[table["value"].notna()] if len(table) else table
            if len(known):
                metrics = [name for name in METRIC_NAMES if name in set(known["metric"])]
                figure = Markup(make(table).replace("</", "<\\/"))
                title = section_title(*key)
                charts.append(
                    {"id": f"{kind}{number}", "kind": kind, "section": title, "figure": figure, "metrics": metrics}
                )
    return charts


def _table(table: pd.DataFrame) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows of any table; fractions in percent."""
    rows = [[_cell(str(name), value) for name, value in row.items()] for row in table.to_dict("records")]
    return [str(name).replace("_", " ") for name in table.columns], rows


def _cell(name: str, value: object) -> Cell:
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, float):
        text = "" if math.isnan(value) else f"{100 * value:.1f} %" if name in _FRACTIONS else f"{value:.4g}"
        return Cell(text, _order(value))
    text = str(value)
    return Cell(text, kind="missing" if text == "missing" else "incomplete" if _part(text) else "")


def _part(text: str) -> bool:
    done, slash, total = text.partition("/")
    return bool(slash) and done.isdigit() and total.isdigit() and done != total


def _provenance(job: Job) -> dict[str, object]:
    """Where a job's numbers come from: config, versions, hardware, commit."""
    folders = {str(folder.path) for folder in job.sources.values()}
    facts: dict[str, list[str]] = {}
    for result in job.results.values():
        for key, value in result.timing.items():
            if isinstance(value, str) and value not in facts.setdefault(key, []):
                facts[key].append(value)
    config = next(iter(job.sources.values())).path / "config.yaml" if job.sources else None
    text = config.read_text("utf-8") if config is not None and config.exists() else ""
    return {
        "name": job.info.folder,
        "progress": job.progress,
        "folders": sorted(folders),
        "facts": {key: ", ".join(values) for key, values in sorted(facts.items())},
        "config": text,
        "hash": job.info.config_hash,
        "notes": [f"{category}: {result.notes}" for category, result in job.results.items() if result.notes],
    }


def _commands(content: Content) -> list[str]:
    """Commands that wrote the runs, as they were recorded."""
    lines = []
    for folder in content.runs.folders:
        path = folder / "commands.txt"
        if path.exists():
            lines += path.read_text("utf-8").splitlines()
    return list(dict.fromkeys(lines))

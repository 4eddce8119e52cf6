"""The leaderboard as Markdown and as LaTeX (booktabs): best of each group bold, second underlined."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import pandas as pd

from zsad_bench.leaderboard.board import ALWAYS, BoardOptions
from zsad_bench.leaderboard.speed import SPEED, UNKNOWN
from zsad_bench.metrics.names import percent, shown_metrics
from zsad_bench.results.varied_keys import key_columns, short_key

LABELS = ("rank", "method", "variant", "fidelity", "encoder", "precision", "batch_size", "seed", "categories")
TEXTS = LABELS[1:6]
EMPTY = "No finished job.\n"
# Signs around a value, as text and as one of pandas' LaTeX styles: a command and how it wraps.
_MARKDOWN = {"best": "**{}**", "second": "<ins>{}</ins>", "": "{}"}
_LATEX = {"best": "textbf:--rwrap", "second": "underline:--rwrap", "": ""}


def marks(group: pd.DataFrame, metric: str) -> list[str]:
    """Per row ``best``, ``second`` or nothing, by the printed value: rows that print the same share a mark.

    A group of one row has no mark: there is nothing to be better than.
    """
    printed = group[metric].map(lambda value: None if pd.isna(value) else round(100 * value, 1))
    ladder = sorted({value for value in printed if value is not None and not pd.isna(value)}, reverse=True)
    if printed.notna().sum() < 2:
        return [""] * len(group)
    names = dict(zip(ladder, ("best", "second"), strict=False))
    return ["" if pd.isna(value) else names.get(value, "") for value in printed]


def groups(board: pd.DataFrame, options: BoardOptions) -> list[tuple[str, pd.DataFrame]]:
    """Sub-tables within which rows are ranked, with a title each, in the board's order."""
    keys = list(dict.fromkeys([*ALWAYS, *options.group]))
    return [
        (", ".join(f"{key.replace('_', ' ')} {value}" for key, value in zip(keys, values, strict=True)), part)
        for values, part in board.groupby(keys, sort=False, dropna=False)
    ]


def leaderboard_markdown(board: pd.DataFrame, options: BoardOptions) -> str:
    """Percent with one decimal, the 95 % interval of the ranked metric, speed, memory, and published figures."""
    if board.empty:
        return EMPTY
    parts = []
    for title, part in groups(board, options):
        table, marked = _printed(part, options.metric)
        table = table.map(_markdown_text).rename(columns=_markdown_text)
        for head, kinds in marked.items():
            table[head] = [_MARKDOWN[kind].format(value) for kind, value in zip(kinds, table[head], strict=True)]
        aligned = ["left" if name in TEXTS else "right" for name in table]
        text = table.to_markdown(index=False, disable_numparse=True, colalign=aligned)
        parts.append(f"### {_markdown_text(title)}\n\n{text}")
    return "\n\n".join([*parts, _explanation(options)]) + "\n"


def leaderboard_latex(board: pd.DataFrame, options: BoardOptions) -> str:
    """One ``tabular`` a group, for ``booktabs``; put them into a ``table`` with a caption of your own."""
    if board.empty:
        return f"% {EMPTY}"
    parts = []
    for title, part in groups(board, options):
        table, marked = _printed(part, options.metric)
        styles = pd.DataFrame("", table.index, table.columns)
        for head, kinds in marked.items():
            styles[head] = [_LATEX[kind] for kind in kinds]
        style = table.style.apply(lambda _, styles=styles: styles, axis=None).hide(axis="index")
        style = style.format(escape="latex").format_index(escape="latex", axis="columns")
        aligned = "".join("l" if name in TEXTS else "r" for name in table)
        parts.append(f"% {title}\n{style.to_latex(column_format=aligned, hrules=True)}")
    return "\n".join([r"% \usepackage{booktabs}", *parts, f"% {_explanation(options)}"]) + "\n"


def _columns(part: pd.DataFrame) -> list[str]:
    printed = ["paper", "difference"] if _any_published(part) else []
    spread = ["seed_std"] if part["n_seeds"].gt(1).any() else []
    speed = [name for name in SPEED if name in part and (name != "peak_gpu_memory_mb" or part[name].notna().any())]
    device = ["encoded_on"] if "encoded_on" in part and part["encoded_on"].ne("").any() else []
    return [*LABELS, *key_columns(part), *shown_metrics(part), "interval", *spread, *speed, *device, *printed]


def _any_published(part: pd.DataFrame) -> bool:
    return bool(part.filter(regex="^published_(image|pixel)").notna().any(axis=None))


def _printed(part: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """A group as people read it, not escaped yet, and the marks of its metrics' columns."""
    columns, metrics = _columns(part), shown_metrics(part)
    names = {
        "interval": f"{metric} 95 % interval",
        "seed_std": f"{metric} std over seeds",
        "images_per_second": "images / s",
        "method_images_per_second": "method alone, images / s",
        "peak_memory_mb": "memory, MiB",
        "peak_gpu_memory_mb": "GPU memory, MiB",
        "encoded_on": "encoder on",
        "paper": f"published {metric}",
        "difference": "difference",
    }
    rows = []
    for row in part.to_dict("records"):
        values = {name: percent(row[name]) for name in metrics}
        values |= {name: "-" if pd.isna(row[name]) else str(row[name]) for name in (*LABELS, *key_columns(part))}
        values["interval"] = interval_text(*(row.get(f"{metric}_{end}", float("nan")) for end in ("low", "high")))
        values["seed_std"] = percent(row.get(f"{metric}_seed_std", float("nan")))
        values |= _speeds(row)
        values["encoded_on"] = str(row.get("encoded_on") or "-")
        values["paper"] = percent(row.get(f"published_{metric}", float("nan")))
        values["difference"] = signed_points(row.get(f"difference_{metric}", float("nan")))
        rows.append([values[name] for name in columns])
    shorts = [short_key(name) for name in columns]
    # Two keys may end alike, and columns of a table need names of their own.
    unique = [short if shorts.count(short) == 1 else name for short, name in zip(shorts, columns, strict=True)]
    heads = [names.get(name, own).replace("_", " ") for name, own in zip(columns, unique, strict=True)]
    marked = {heads[columns.index(name)]: marks(part, name) for name in metrics}
    return pd.DataFrame(rows, columns=heads), marked


def _speeds(row: Mapping[Hashable, object]) -> dict[str, str]:
    """Both speeds, the first with the batch size that reached it where a row has several, and the memory."""
    numbers = {name: float(str(row.get(name, "nan"))) for name in SPEED}
    found = {name: _number(value, 1 if "per_second" in name else 0) for name, value in numbers.items()}
    if pd.isna(numbers["images_per_second"]) and not pd.isna(numbers["method_images_per_second"]):
        found["images_per_second"] = UNKNOWN
    elif row.get("fastest_batch") and not pd.isna(numbers["images_per_second"]):
        found["images_per_second"] += f" (batch {row['fastest_batch']})"
    return found


def interval_text(low: float, high: float) -> str:
    """Two ends in percent, or a dash."""
    return "-" if pd.isna(low) or pd.isna(high) else f"{percent(low)} to {percent(high)}"


def signed_points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return "-" if pd.isna(value) else f"{100 * value:+.1f}"


def _number(value: float, digits: int) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def _markdown_text(text: str) -> str:
    for letter in "|<>*`":
        text = text.replace(letter, f"&#{ord(letter)};")
    return text.replace("_", "\\_")


def _explanation(options: BoardOptions) -> str:
    within: Sequence[str] = list(dict.fromkeys([*ALWAYS, *options.group]))
    return (
        f"Percent, mean over categories. Ranked by {options.metric} within {', '.join(within)}. Best of a group bold, "
        "second underlined. Intervals: bootstrap over images, or objects. Batch sizes with the same result share a row "
        "and a rank; speed and memory are those of the fastest of them. Images / s: text, encoder and method, as if "
        "the method had run alone; method alone: on features that are there. Memory: what the method adds to the "
        "process. Difference: ours minus published, in points."
    )

"""The leaderboard as Markdown and as LaTeX (booktabs): best of each group bold, second underlined."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import pandas as pd

from zsad_bench.leaderboard.board import ALWAYS, BoardOptions
from zsad_bench.leaderboard.speed import SPEED, UNKNOWN
from zsad_bench.metrics.names import percent, shown_metrics
from zsad_bench.results.varied_keys import key_columns, short_key

LABELS = ("rank", "method", "variant", "fidelity", "encoder", "precision", "batch_size", "seed", "categories")
EMPTY = "No finished job.\n"
_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


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
        head, rows = _cells(part, options.metric, _markdown_mark, _markdown_text)
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join([f"### {_markdown_text(title)}", "", *lines]))
    return "\n\n".join([*parts, _explanation(options)]) + "\n"


def leaderboard_latex(board: pd.DataFrame, options: BoardOptions) -> str:
    """One ``tabular`` a group, for ``booktabs``; put them into a ``table`` with a caption of your own."""
    if board.empty:
        return f"% {EMPTY}"
    parts = []
    for title, part in groups(board, options):
        head, rows = _cells(part, options.metric, _latex_mark, _latex_text)
        columns = "".join("l" if name in LABELS[1:6] else "r" for name in _columns(part))
        parts.append(
            "\n".join(
                [
                    f"% {title}",
                    f"\\begin{{tabular}}{{{columns}}}",
                    r"\toprule",
                    " & ".join(head) + r" \\",
                    r"\midrule",
                    *(" & ".join(row) + r" \\" for row in rows),
                    r"\bottomrule",
                    r"\end{tabular}",
                ]
            )
        )
    return "\n\n".join([r"% \usepackage{booktabs}", *parts, f"% {_explanation(options)}"]) + "\n"


def _columns(part: pd.DataFrame) -> list[str]:
    printed = ["paper", "difference"] if _any_published(part) else []
    spread = ["seed_std"] if part["n_seeds"].gt(1).any() else []
    speed = [name for name in SPEED if name in part and (name != "peak_gpu_memory_mb" or part[name].notna().any())]
    device = ["encoded_on"] if "encoded_on" in part and part["encoded_on"].ne("").any() else []
    return [*LABELS, *key_columns(part), *shown_metrics(part), "interval", *spread, *speed, *device, *printed]


def _any_published(part: pd.DataFrame) -> bool:
    return bool(part.filter(regex="^published_(image|pixel)").notna().any(axis=None))


def _cells(
    part: pd.DataFrame, metric: str, mark: Callable[[str, str], str], text: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a group, as text of the target format."""
    columns, metrics = _columns(part), shown_metrics(part)
    marked = {name: marks(part, name) for name in metrics}
    heads = {
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
    for position, row in enumerate(part.to_dict("records")):
        values = {name: percent(row[name]) for name in metrics}
        values = {name: mark(value, marked[name][position]) for name, value in values.items()}
        values |= {name: text("-" if pd.isna(row[name]) else str(row[name])) for name in (*LABELS, *key_columns(part))}
        values["interval"] = interval_text(*(row.get(f"{metric}_{end}", float("nan")) for end in ("low", "high")))
        values["seed_std"] = percent(row.get(f"{metric}_seed_std", float("nan")))
        values |= _speeds(row)
        values["encoded_on"] = text(str(row.get("encoded_on") or "-"))
        values["paper"] = percent(row.get(f"published_{metric}", float("nan")))
        values["difference"] = signed_points(row.get(f"difference_{metric}", float("nan")))
        rows.append([values[name] for name in columns])
    return [text(heads.get(name, short_key(name)).replace("_", " ")) for name in columns], rows


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


def _markdown_mark(value: str, kind: str) -> str:
    return {"best": f"**{value}**", "second": f"<ins>{value}</ins>"}.get(kind, value)


def _latex_mark(value: str, kind: str) -> str:
    return {"best": rf"\textbf{{{value}}}", "second": rf"\underline{{{value}}}"}.get(kind, value)


def _markdown_text(text: str) -> str:
    for letter in "|<>*`":
        text = text.replace(letter, f"&#{ord(letter)};")
    return text.replace("_", "\\_")


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _explanation(options: BoardOptions) -> str:
    within: Sequence[str] = list(dict.fromkeys([*ALWAYS, *options.group]))
    return (
        f"Percent, mean over categories. Ranked by {options.metric} within {', '.join(within)}. Best of a group bold, "
        "second underlined. Intervals: bootstrap over images, or objects. Batch sizes with the same result share a row "
        "and a rank; speed and memory are those of the fastest of them. Images / s: text, encoder and method, as if "
        "the method had run alone; method alone: on features that are there. Memory: what the method adds to the "
        "process. Difference: ours minus published, in points."
    )

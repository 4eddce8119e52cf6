"""Make ``tests/golden``, the compact set of recordings, from the full one.

    python tools/compact_golden.py FOLDER

FOLDER holds ``a_clipad_anoclip`` and ``b_winclip_musc_metrics``, written by the reference codes. What is kept of them,
and how exactly, stands in ``tools/golden_arrays.py``. The script also writes the tables of ``tests/golden/README.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
from golden_arrays import SETS, Kept
from safetensors.numpy import load_file

from zsad_bench.text.ensembles import ensemble_names, load_ensemble

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))
from recordings import CLIP_MEAN, CLIP_STD, DRAWN, FULL_SETS, STREAM_LENGTH, Entry, decode, stream  # noqa: E402

TARGET = REPOSITORY / "tests" / "golden"
MARK = "<!-- tables by tools/compact_golden.py -->\n"
CLASS_NAMES = ["bottle", "carpet", "pcb1", "metal nut", "metal_nut"]
# Rounding may cost a test this share of its tolerance.
SHARE = 1 / 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the full set")
    folder = parser.parse_args().folder
    tables = []
    for name, files in SETS.items():
        target = TARGET / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        index = {}
        for file, arrays in files.items():
            source = folder / FULL_SETS[name] / file
            if source.suffix == ".json":
                shutil.copyfile(source, target / file)
                continue
            index[file], stored, left_out = compact(read(source), arrays)
            archive = (target / file).with_suffix(".npz")
            np.savez_compressed(archive, **stored)
            tables.append(table(f"{name}/{archive.name}", index[file], arrays, left_out))
            print(f"{archive.stat().st_size:9,}  {archive.relative_to(TARGET)}")
        (target / "index.json").write_text(write_index(index), "utf-8")
    readme = TARGET / "README.md"
    text = readme.read_text("utf-8").partition(MARK)[0] if readme.exists() else ""
    readme.write_text(text + MARK + "\n".join(tables), "utf-8")
    print(f"{sum(path.stat().st_size for path in TARGET.rglob('*') if path.is_file()):9,}  in all")


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; of a token table only the rows that any test's prompt uses."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    tensors = load_file(path)
    rows = np.array(sorted(used_tokens()), np.int32)
    values = tensors.pop("token_embedding.weight")[rows]
    return {**tensors, "token_embedding.rows": rows, "token_embedding.values": values}


def used_tokens() -> Iterator[int]:
    """Tokens of every prompt that an ensemble writes for the recorded class names."""
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    ensembles = [load_ensemble(name) for name in ensemble_names()]
    prompts = {
        prompt
        for ensemble in ensembles
        for name in CLASS_NAMES
        for texture in (False, True)
        for side in ensemble.write(name, texture)
        for prompt in side
    }
    yield from set(np.unique(tokenize(sorted(prompts)).numpy()).tolist())


def compact(
    full: dict[str, np.ndarray], arrays: dict[str, Kept]
) -> tuple[dict[str, Entry], dict[str, np.ndarray], list[str]]:
    """Index and stored arrays of one file, and the names of the arrays that are left out."""
    entries, stored = {}, {}
    chosen = {key: arrays.get(key, arrays.get("*")) for key in full}
    for key, kept in chosen.items():
        if kept is None:
            continue
        entries[key], coded = encode(full[key], kept)
        if coded is not None:
            stored[key] = coded
        check(full[key], decode(entries[key], coded), kept, key)
    missing = set(arrays) - set(full) - {"*"}
    if missing:
        raise SystemExit(f"the full set lacks {', '.join(sorted(missing))}")
    return entries, stored, [key for key, kept in chosen.items() if kept is None]


def encode(values: np.ndarray, kept: Kept) -> tuple[Entry, np.ndarray | None]:
    """The entry of the index and the stored form of an array, after ``tests/helpers/recordings.py``."""
    entry: Entry = {"coding": "plain", "dtype": str(values.dtype), "shape": list(values.shape)}
    if kept.pixels:
        levels = np.rint((values * CLIP_STD + CLIP_MEAN) * 255).astype(np.uint8)
        for axis in (3, 2, 1):
            levels = np.diff(levels, axis=axis, prepend=np.uint8(0))
        return {**entry, "coding": "pixels"}, levels
    if kept.drawn is not None and (drawn := find_draws(values, kept.drawn)):
        return {**entry, **drawn}, None
    if kept.every:
        every = [list(axis) for axis in kept.every] + [[0, 1]] * (values.ndim - len(kept.every))
        entry["every"] = every
        values = values[tuple(slice(first, None, step) for first, step in every)]
    if values.dtype.kind != "f" or values.size < 32:
        return entry, values
    if not kept.atol:
        coded = np.moveaxis(np.ascontiguousarray(values)[..., None].view(np.uint8), -1, 0)
        return {**entry, "coding": "bytes"}, np.ascontiguousarray(coded)
    step = 2.0 ** math.floor(math.log2(2 * kept.atol * SHARE))
    steps = np.rint(values.astype(np.float64) / step).astype(np.int64)
    low = int(steps.min())
    planes = range(max(1, math.ceil(int(steps.max() - low).bit_length() / 8)))
    coded = np.stack([(steps - low >> 8 * plane & 0xFF).astype(np.uint8) for plane in planes])
    return {**entry, "coding": "grid", "step": step, "low": low}, coded


def check(full: np.ndarray, back: np.ndarray, kept: Kept, key: str) -> None:
    """What was coded comes back: exactly, within the share of the tolerance, or to the last bits of drawn numbers."""
    if full.dtype.kind != "f":
        same = np.array_equal(full, back)
    else:
        # A float32 near the largest value may be rounded once more.
        room = kept.atol * SHARE + (5e-7 if kept.drawn is not None else 1.2e-7 * bool(kept.atol)) * np.abs(full).max()
        same = full.shape == back.shape and np.nanmax(np.abs(full - back)) <= room
    if not same:
        raise SystemExit(f"{key}: does not come back as it was")


def find_draws(values: np.ndarray, seed: int) -> Entry | None:
    """Places and factors if all equal pieces of an array stand in the stream of a seed."""
    for coding in DRAWN:
        for pieces in sorted({1, 3, *np.cumprod(values.shape[:2]).tolist()}):
            size = values.size // pieces
            if size < 32 or size * pieces != values.size or (coding == "normal" and size % 16):
                continue
            found = []
            for part in values.astype(np.float64).reshape(pieces, -1):
                if (place := find_piece(part, coding, seed)) is None:
                    break
                found.append(place)
            else:
                at, factor = zip(*found, strict=True)
                return {"coding": coding, "seed": seed, "at": list(at), "factor": list(factor)}
    return None


def find_piece(part: npt.NDArray[np.float64], coding: str, seed: int) -> tuple[int, float] | None:
    """Place and factor of one piece.

    Its first numbers say where it can stand whatever the factor, which changes neither quotients of uniform numbers nor
    the angle of a pair of normal ones.
    """
    drawn, starts = stream(seed), np.arange(STREAM_LENGTH - part.size)
    for other in range(8):
        if coding == "uniform":
            gap = (2 * drawn[starts + other] - 1) * part[0] - part[other] * (2 * drawn[starts] - 1)
            starts = starts[np.abs(gap) < 1e-5 * np.abs(part[:8]).max()]
        else:
            gap = np.abs(drawn[starts + 8 + other] - np.arctan2(part[8 + other], part[other]) / (2 * np.pi) % 1)
            starts = starts[np.minimum(gap, 1 - gap) < 1e-3]
    for start in starts.tolist():
        numbers = DRAWN[coding](seed, start, part.size)
        factor = float(part @ numbers / (numbers @ numbers))
        if np.abs(part - factor * numbers).max() < 5e-7 * np.abs(part).max():
            return start, factor
    return None


def write_index(index: dict[str, dict[str, Entry]]) -> str:
    """JSON with a line an array."""
    files = []
    for file, entries in index.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
        files.append(f" {json.dumps(file)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(files) + "\n}\n"


def table(title: str, entries: dict[str, Entry], arrays: dict[str, Kept], left_out: Iterable[str]) -> str:
    """A Markdown table of one file; entries of one description share a line."""
    lines = [f"### `{title}`\n", "| array | shape | kept | stored as | what it is |", "|---|---|---|---|---|"]
    shown: dict[str, list[str]] = {}
    for key in entries:
        shown.setdefault(key if key in arrays else "*", []).append(key)
    for name, keys in shown.items():
        entry = entries[keys[0]]
        label, shape = f"`{name}`", " x ".join(map(str, entry["shape"])) or "1"
        if name == "*":
            drawn = [entries[key] for key in keys if "seed" in entries[key]]
            label, shape = f"{len(keys)} tensors", "as in the model"
            lines.append(f"| {label} | {shape} | all | {len(drawn)} as draws, else exact | {arrays[name].meaning} |")
        else:
            lines.append(f"| {label} | {shape} | {kept_text(entry)} | {stored_text(entry)} | {arrays[name].meaning} |")
    left_out = list(left_out)
    if left_out:
        lines.append("\nLeft out: " + ", ".join(f"`{key}`" for key in left_out) + ".")
    return "\n".join(lines) + "\n"


def kept_text(entry: Entry) -> str:
    if "every" not in entry:
        return "all"
    return "`[" + ", ".join(":" if (a, s) == (0, 1) else f"{a or ''}::{s}" for a, s in entry["every"]) + "]`"


def stored_text(entry: Entry) -> str:
    match entry["coding"]:
        case "grid":
            return f"{entry['dtype']}, rounded to 2^{math.log2(entry['step']):.0f}"
        case "pixels":
            return "8-bit pixels"
        case "uniform" | "normal":
            return f"{entry['coding']} draws of seed {entry['seed']}"
        case _:
            return entry["dtype"]


if __name__ == "__main__":
    main()

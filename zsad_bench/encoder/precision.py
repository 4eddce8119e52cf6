"""``encoder.precision=auto``: the number format in which this machine runs the encoder fastest.

The choice needs no model: it times the product that dominates a ViT-B, in float32 and in the 16-bit formats, as the
encoder would run it. It is made once for a device and kept in ``precision.json`` in the cache folder (``$ZSAD_CACHE``,
else ``~/.cache/zsad-bench``), because results are only comparable within one precision: a second run must not decide
otherwise. Results are filed under the precision that was chosen, never under ``auto``.
"""

from __future__ import annotations

import json
import os
import time
from functools import lru_cache
from pathlib import Path

import torch

from zsad_bench.core.devices import synchronize
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic
from zsad_bench.core.machine import facts
from zsad_bench.core.packed import Linear, can_pack

AUTO = "auto"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A 16-bit format costs digits, so it must be clearly faster than what it replaces.
WORTHWHILE = 1.2
ROWS = {"cpu": 1024}
ROWS_ELSEWHERE = 16_384
WIDTH, INNER_WIDTH = 768, 3072
REPEATS = 7


def resolve_precision(precision: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``: the one given, or for ``auto`` the one chosen for the device.

    Raises:
        UserError: no such precision.
    """
    if precision in PRECISIONS:
        return precision
    if precision != AUTO:
        raise UserError(f"encoder.precision={precision}: choose from {', '.join((*PRECISIONS, AUTO))}")
    return _chosen(device)


@lru_cache(maxsize=4)
def _chosen(device: torch.device) -> str:
    from zsad_bench.core import console

    machine = facts(device)["device"]
    key = f"{machine}, torch {torch.__version__}"
    path = Path(os.environ.get("ZSAD_CACHE", "~/.cache/zsad-bench")).expanduser() / "precision.json"
    known = _read(path)
    speeds = known.get(key) or measure_speeds(device)
    chosen = choose(speeds)
    if key not in known:
        try:
            write_atomic(path, json.dumps({**_read(path), key: speeds}, indent=1, sort_keys=True) + "\n")
        except UserError as error:
            console.warn(f"encoder.precision=auto is measured anew in every run: {error}")
    listed = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
    line = f"encoder.precision=auto: {chosen} on {machine} (speed relative to fp32: {listed})"
    console.err.print(line, style="dim", soft_wrap=True)
    return chosen


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Speeds by machine; entries that are not what this module writes are dropped."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {
        key: speeds
        for key, speeds in entries
        if isinstance(speeds, dict) and "fp32" in speeds and set(speeds) <= set(PRECISIONS)
    }


def choose(speeds: dict[str, float]) -> str:
    """The fastest precision, if it is worth it; bfloat16 before float16, whose range a model must be trained for.

    Args:
        speeds: precision -> speed relative to fp32.
    """
    best = "fp32"
    for name in ("bf16", "fp16"):
        if speeds.get(name, 0.0) >= WORTHWHILE * speeds[best]:
            best = name
    return best


def measure_speeds(device: torch.device) -> dict[str, float]:
    """Speed of each precision relative to fp32, from the shortest of several interleaved runs; about a second."""
    linears = {}
    rows = ROWS.get(device.type, ROWS_ELSEWHERE)
    for name, dtype in PRECISIONS.items():
        x = torch.ones(rows, WIDTH, dtype=dtype, device=device)
        weight = torch.ones(INNER_WIDTH, WIDTH, dtype=dtype, device=device)
        linears[name] = (Linear(weight, None, pack=device.type == "cpu" and can_pack(dtype)), x)
    seconds = {name: _seconds(*pair, device) for name, pair in linears.items()}  # warms up as well
    # Formats that the device only imitates are many times slower: not worth more time.
    slow = [name for name in seconds if seconds[name] > 3 * seconds["fp32"]]
    seconds = {name: float("inf") for name in PRECISIONS if name not in slow}
    for _ in range(REPEATS):
        for name in seconds:
            seconds[name] = min(seconds[name], _seconds(*linears[name], device))
    return {name: round(seconds["fp32"] / value, 2) for name, value in seconds.items()}


def _seconds(linear: Linear, x: torch.Tensor, device: torch.device) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        linear(x)
    synchronize(device)
    return time.perf_counter() - start

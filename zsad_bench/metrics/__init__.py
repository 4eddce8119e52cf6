"""Exact metrics of images, pixels and regions, from arrays alone.

May import ``core``. Start with ``exact.py``: :func:`image_metrics` and :func:`pixel_metrics`. ``docs/metrics.md`` has
the formulas. Names are loaded on first use: tables need the names of metrics, not scipy.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zsad_bench.metrics.exact import image_metrics, pixel_metrics, undefined_reasons

__all__ = ["image_metrics", "pixel_metrics", "undefined_reasons"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'zsad_bench.metrics' has no attribute '{name}'")
    from zsad_bench.metrics import exact

    return getattr(exact, name)

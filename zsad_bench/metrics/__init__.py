"""Exact metrics of images, pixels and regions, from arrays alone.

May import ``core``. Start with ``exact.py``: :func:`image_metrics` and :func:`pixel_metrics`. ``docs/metrics.md`` has
the formulas. Names are loaded on first use: tables need the names of metrics, not scipy.
"""

from typing import TYPE_CHECKING

from zsad_bench.core.lazy import on_first_use

if TYPE_CHECKING:
    from zsad_bench.metrics.exact import image_metrics, pixel_metrics, undefined_reasons

__all__ = ["image_metrics", "pixel_metrics", "undefined_reasons"]

__getattr__ = on_first_use(__name__, {"zsad_bench.metrics.exact": __all__})

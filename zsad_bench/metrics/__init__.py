"""Exact metrics of images, pixels and regions, from arrays alone.

May import ``core``. ``exact.py`` is where to start: :func:`image_metrics` and :func:`pixel_metrics`;
``docs/metrics.md`` has the formulas.
"""

from zsad_bench.metrics.exact import image_metrics, pixel_metrics, undefined_reasons

__all__ = ["image_metrics", "pixel_metrics", "undefined_reasons"]

"""Procedural inspection images: deterministic renderings of textures and objects with exact defect masks."""

from .categories import AUXILIARY, CLASS_NAMES, DEFECTS, EVALUATION, EVALUATION_ONLY_DEFECTS, TEXTURES
from .render import VERSION, Rendering, plan, render

__all__ = [
    "AUXILIARY",
    "CLASS_NAMES",
    "DEFECTS",
    "EVALUATION",
    "EVALUATION_ONLY_DEFECTS",
    "TEXTURES",
    "VERSION",
    "Rendering",
    "plan",
    "render",
]

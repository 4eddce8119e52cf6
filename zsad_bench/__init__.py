"""zsad-bench: one protocol, one encoder pass and exact metrics for CLIP-based zero-shot anomaly detection.

Names are loaded on first use, so that ``import zsad_bench`` and ``--help`` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zsad_bench.api import BoundMethod, evaluate, load_dataset, load_method
    from zsad_bench.core.errors import UserError
    from zsad_bench.encoder.clip import ClipEncoder
    from zsad_bench.encoder.loading import load_encoder

    __version__: str

__all__ = ["BoundMethod", "ClipEncoder", "UserError", "evaluate", "load_dataset", "load_encoder", "load_method"]

_HOME = {
    "BoundMethod": "api",
    "ClipEncoder": "encoder.clip",
    "UserError": "core.errors",
    "evaluate": "api",
    "load_dataset": "api",
    "load_encoder": "encoder.loading",
    "load_method": "api",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("zsad_bench.core.version").package_version()
    if name not in _HOME:
        raise AttributeError(f"module 'zsad_bench' has no attribute '{name}'")
    return getattr(import_module(f"zsad_bench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])

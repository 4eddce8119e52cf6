"""zsad-bench: one protocol, one encoder pass and exact metrics for CLIP-based zero-shot anomaly detection.

Names are loaded on first use, so that ``import zsad_bench`` and ``--help`` do not wait for torch.
"""

from typing import TYPE_CHECKING

from zsad_bench.core.lazy import on_first_use

if TYPE_CHECKING:
    from zsad_bench.api import BoundMethod, evaluate, load_dataset, load_method
    from zsad_bench.core.errors import UserError
    from zsad_bench.encoder.clip import ClipEncoder
    from zsad_bench.encoder.loading import load_encoder

    __version__: str

__all__ = ["BoundMethod", "ClipEncoder", "UserError", "evaluate", "load_dataset", "load_encoder", "load_method"]

_get = on_first_use(
    __name__,
    {
        "zsad_bench.api": ("BoundMethod", "evaluate", "load_dataset", "load_method"),
        "zsad_bench.core.errors": ("UserError",),
        "zsad_bench.encoder.clip": ("ClipEncoder",),
        "zsad_bench.encoder.loading": ("load_encoder",),
    },
)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from zsad_bench.core.version import package_version

        return package_version()
    return _get(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])

"""What authors of plugins import: the base classes of methods and datasets, and the values that go in and out of them.

May import ``core`` and ``data``; nothing here knows open_clip, pandas or Hydra. Names are loaded on first use, so that
a dataset does not wait for torch. Start with ``method.py`` and ``dataset.py``; how to add one is in
``docs/extending.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zsad_bench.contract.dataset import CommonOptions, Dataset, DatasetOptions
    from zsad_bench.contract.encoder_spec import EncoderSpec
    from zsad_bench.contract.features import FeatureBatch, FeatureRequest, Stream, Tap
    from zsad_bench.contract.keys import Advice, Rule
    from zsad_bench.contract.method import Method, Prediction, Setting
    from zsad_bench.contract.samples import SPLITS, Index, Problem, Sample, Split
    from zsad_bench.contract.text import TextFeatures
    from zsad_bench.contract.training import Facts, TrainableMethod
    from zsad_bench.core.errors import UserError

__all__ = [
    "SPLITS",
    "Advice",
    "CommonOptions",
    "Dataset",
    "DatasetOptions",
    "EncoderSpec",
    "Facts",
    "FeatureBatch",
    "FeatureRequest",
    "Index",
    "Method",
    "Prediction",
    "Problem",
    "Rule",
    "Sample",
    "Setting",
    "Split",
    "Stream",
    "Tap",
    "TextFeatures",
    "TrainableMethod",
    "UserError",
]

_HOME = {
    "contract.dataset": ("CommonOptions", "Dataset", "DatasetOptions"),
    "contract.encoder_spec": ("EncoderSpec",),
    "contract.features": ("FeatureBatch", "FeatureRequest", "Stream", "Tap"),
    "contract.keys": ("Advice", "Rule"),
    "contract.method": ("Method", "Prediction", "Setting"),
    "contract.samples": ("SPLITS", "Index", "Problem", "Sample", "Split"),
    "contract.text": ("TextFeatures",),
    "contract.training": ("Facts", "TrainableMethod"),
    "core.errors": ("UserError",),
}


def __getattr__(name: str) -> object:
    home = next((module for module, names in _HOME.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'zsad_bench.contract' has no attribute '{name}'")
    return getattr(import_module(f"zsad_bench.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""What authors of plugins import: the base classes of methods and datasets, and the values that go in and out of them.

May import ``core`` and ``data``; nothing here knows open_clip, pandas or Hydra. Names are loaded on first use, so that
a dataset does not wait for torch. Start with ``method.py`` and ``dataset.py``; how to add one is in
``docs/extending.md``.
"""

from typing import TYPE_CHECKING

from zsad_bench.core.lazy import on_first_use

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

__getattr__ = on_first_use(
    __name__,
    {
        "zsad_bench.contract.dataset": ("CommonOptions", "Dataset", "DatasetOptions"),
        "zsad_bench.contract.encoder_spec": ("EncoderSpec",),
        "zsad_bench.contract.features": ("FeatureBatch", "FeatureRequest", "Stream", "Tap"),
        "zsad_bench.contract.keys": ("Advice", "Rule"),
        "zsad_bench.contract.method": ("Method", "Prediction", "Setting"),
        "zsad_bench.contract.samples": ("SPLITS", "Index", "Problem", "Sample", "Split"),
        "zsad_bench.contract.text": ("TextFeatures",),
        "zsad_bench.contract.training": ("Facts", "TrainableMethod"),
        "zsad_bench.core.errors": ("UserError",),
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""The examples in docstrings of the public API give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

EXAMPLES = {
    "zsad_bench.api": {"load_method"},
    "zsad_bench.contract.features": {"FeatureRequest", "Tap"},
    "zsad_bench.encoder.loading": {"load_encoder"},
    "zsad_bench.metrics.exact": {"image_metrics", "pixel_metrics", "undefined_reasons"},
    "zsad_bench.toolkit.maps": {"smooth", "upsample"},
    "zsad_bench.toolkit.matching": {"euclidean", "nearest", "ranks"},
    "zsad_bench.toolkit.taps": {"quarter_depths"},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    module = import_module(name)
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert {test.name.removeprefix(f"{name}.") for test in found} == EXAMPLES[name]
    printed: list[str] = []
    for test in found:
        doctest.DocTestRunner().run(test, out=printed.append)
    assert not printed, "\n".join(printed)

"""Every configuration in ``conf/method`` on photos of the demo, with its encoder: a new method adds no line here.

The random encoder of the other registry tests gives no probability near 0 or 1; this one, which was trained, does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.helpers.registry import NAMES, make
from zsad_bench import load_dataset
from zsad_bench.config.compose import compose_config
from zsad_bench.contract import Dataset
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.engine.evaluator import EvaluationOptions, Evaluator
from zsad_bench.feature_store.source import FeatureSource

CATEGORY = "gear"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = str(tmp_path_factory.mktemp("data") / "demo")
    return load_dataset("demo", root=root, n_normal=2, n_anomalous=3, n_train=4, size=96, categories=[CATEGORY])


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return load_encoder(**OmegaConf.to_container(compose_config(["dataset=demo", "encoder.device=cpu"]).encoder))


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_maps_are_finite_and_differ(name: str, demo: Dataset, encoder: ClipEncoder, tmp_path: Path) -> None:
    method = make(compose_config([f"method={name}", "dataset=demo"]).method, tmp_path, encoder.spec)
    evaluator = Evaluator(FeatureSource(demo, encoder), method, EvaluationOptions(batch_size=5))
    output = evaluator.evaluate(CATEGORY, demo.samples(CATEGORY))
    scores = np.array([image.score for image in output.result.images])
    maps = np.stack([output.maps[index] for index in range(len(scores))])
    assert scores.shape == (5,)
    assert maps.shape == (5, encoder.spec.image_size, encoder.spec.image_size)
    assert np.isfinite(scores).all()
    assert np.isfinite(maps).all()
    assert np.ptp(scores) > 0
    assert np.ptp(maps) > 0
    assert all(np.isfinite(value) for value in output.result.metrics.values())

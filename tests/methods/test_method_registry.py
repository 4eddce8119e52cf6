"""What every method must keep, over the whole registry: a new method adds no line here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import spearmanr

from tests.helpers.registry import N_IMAGES, NAMES, assert_same, config_of, flat, make, names, photos, predict
from zsad_bench.contract import Method, Prediction

# Settings in which an image may be scored with the help of others of the test set.
SEES_OTHERS = ("batch", "transductive")


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return photos(N_IMAGES)


@pytest.fixture
def method(request: pytest.FixtureRequest, tmp_path: Path) -> Method:
    return make(config_of(request.param), tmp_path)


every_method = pytest.mark.parametrize("method", NAMES, indirect=True)


def assert_finite(prediction: Prediction, count: int) -> None:
    assert prediction.scores.shape == (count,)
    assert prediction.maps.shape == (count, 48, 48)
    assert torch.isfinite(prediction.scores).all()
    assert torch.isfinite(prediction.maps).all()


@every_method
def test_batch_sizes(method: Method, pixels: torch.Tensor) -> None:
    """Batches of 8, of 3 with a short last one, and of 1: the same where the others must not matter."""
    whole, by_three, alone = (predict(method, pixels, names(), size) for size in (N_IMAGES, 3, 1))
    for prediction in (whole, by_three, alone):
        assert_finite(prediction, N_IMAGES)
    if method.setting not in SEES_OTHERS:
        assert_same(by_three, whole)
        assert_same(alone, whole)
    elif method.setting == "transductive":
        assert_same(by_three, whole, tolerance=1e-4)  # min-max over the category magnifies rounding
    else:
        assert (by_three.maps - whole.maps).abs().max() > 1e-4, "a method of setting batch uses the batch"


@every_method
def test_order_within_a_batch_does_not_matter(method: Method, pixels: torch.Tensor) -> None:
    order = torch.tensor([4, 0, 7, 5, 2, 6, 1, 3])
    straight = predict(method, pixels, names(), N_IMAGES)
    shuffled = predict(method, pixels[order], [names()[index] for index in order], N_IMAGES)
    assert_same(shuffled, Prediction(straight.scores[order], straight.maps[order]))


@every_method
def test_nothing_is_left_of_what_ran_before(method: Method, pixels: torch.Tensor) -> None:
    first = predict(method, pixels, names(), 5)
    predict(method, pixels.flip(0) * 2, names(), 3, class_name="cup")
    assert_same(predict(method, pixels, names(), 5), first, tolerance=0)


@every_method
def test_black_white_and_constant_images(method: Method) -> None:
    for colours in ((0, 255, 128), (0,), (255, 255, 255, 255)):
        images = flat(*colours)
        assert_finite(predict(method, images, names(len(images)), len(images)), len(images))


@every_method
def test_a_batch_of_anomalous_images_only(method: Method, pixels: torch.Tensor) -> None:
    anomalous = pixels[::2]
    assert_finite(predict(method, anomalous, names(len(anomalous)), len(anomalous)), len(anomalous))


@every_method
def test_equal_images(method: Method, pixels: torch.Tensor) -> None:
    """Every distance between two images is 0."""
    assert_finite(predict(method, pixels[:1].expand(5, -1, -1, -1).clone(), names(5), 5), 5)


@pytest.mark.parametrize("name", [name for name in NAMES if "temperature" in config_of(name)])
@pytest.mark.parametrize("temperature", [1e-4, 1e-3, 1e4])
def test_extreme_temperatures(name: str, temperature: float, pixels: torch.Tensor, tmp_path: Path) -> None:
    """Probabilities that are 0, 1 or one half to the last bit."""
    method = make(OmegaConf.merge(config_of(name), {"temperature": temperature}), tmp_path)
    for images in (pixels[:4], flat(0, 255, 128, 128)):
        assert_finite(predict(method, images, names(4), 4), 4)


@every_method
def test_bf16_ranks_as_fp32(method: Method) -> None:
    """The encoder in bfloat16: image scores and pixels of maps have rank correlations above 0.99."""
    # A method that averages scores over eight or nine images of a batch needs a batch that is clearly larger.
    count = 48 if method.setting in SEES_OTHERS else 24
    pixels = photos(count, seed=6)
    exact, rounded = (predict(method, pixels, names(count), count // 2, precision) for precision in ("fp32", "bf16"))
    assert spearmanr(exact.scores, rounded.scores).statistic > 0.99
    assert spearmanr(exact.maps[:, ::4, ::4].flatten(), rounded.maps[:, ::4, ::4].flatten()).statistic > 0.99

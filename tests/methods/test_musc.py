"""MuSc against the outputs of the official code, and what it does where the code is undefined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers.recorded_clip import recorded_encoder
from tests.helpers.recordings import assert_recorded
from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, Prediction
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.toolkit.matching import aggregate, euclidean, mutual_scores, nearest_mutual, neighbourhood_means

GRID = (15, 15)


@pytest.fixture(scope="module")
def golden(golden_winclip: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden_winclip / "musc.npz"))


@pytest.fixture(scope="module")
def official(golden_winclip: Path) -> BoundMethod:
    encoder = recorded_encoder(golden_winclip)
    return load_method("musc_paper", encoder=encoder)


@pytest.fixture(scope="module")
def images(golden_winclip: Path) -> torch.Tensor:
    inputs = np.load(golden_winclip / "inputs.npz")
    return torch.from_numpy(np.concatenate([inputs["images"], inputs["images_extra"]]))


@pytest.fixture(scope="module")
def batch(official: BoundMethod, images: torch.Tensor) -> FeatureBatch:
    return official.encoder.encode(images, official.method.request())


@pytest.fixture(scope="module")
def prediction(official: BoundMethod, images: torch.Tensor) -> Prediction:
    return official.predict_images(images, "bottle")


def test_tokens(official: BoundMethod, batch: FeatureBatch, golden: dict[str, np.ndarray]) -> None:
    assert [tap.block for tap in official.method.taps] == golden["layers"].tolist()
    for position, tap in enumerate(official.method.taps):
        assert_recorded(batch.tokens[tap], golden["tokens"][position], atol=1e-4)
    unit = F.normalize(batch.class_tokens, dim=-1)
    np.testing.assert_allclose(unit, golden["cls"], atol=1e-5)
    np.testing.assert_allclose(unit @ unit.T, golden["W"], atol=1e-5)


@pytest.mark.parametrize("side", [1, 3, 5])
def test_aggregation_and_mutual_scores(
    official: BoundMethod, batch: FeatureBatch, golden: dict[str, np.ndarray], side: int
) -> None:
    layers = []
    for position, tap in enumerate(official.method.taps):
        means = neighbourhood_means(batch.patches(tap), GRID, side)
        assert_recorded(means[0], golden[f"lnamd_r{side}_prenorm_img0"][:, position], atol=1e-5)
        features = aggregate(batch.patches(tap), GRID, side)
        expected = golden[f"lnamd_r{side}_normed_img01"][:, :, position]
        assert_recorded(features[:2], expected, atol=1e-5)
        scores = mutual_scores(features, (0.0, 0.3), convert=euclidean)
        np.testing.assert_allclose(scores, golden[f"msm_r{side}"][position], atol=1e-5)
        if (side, position) == (3, 1):
            np.testing.assert_allclose(scores, golden["msm_slow_r3_l1"], atol=1e-5)
        layers.append(scores)
    mean = golden["msm_mean_layers"][(1, 3, 5).index(side)]
    np.testing.assert_allclose(torch.stack(layers).mean(dim=0), mean, atol=1e-5)
    one_side = load_method("musc_paper", encoder=official.encoder, sides=[side]).method
    one_side.request()
    np.testing.assert_allclose(one_side.patch_scores(batch).flatten(1), mean, atol=1e-5)


@pytest.mark.parametrize(("name", "interval"), [("0_05", (0, 0.5)), ("01_06", (0.15, 0.6)), ("1_3", (1, 3))])
def test_other_intervals(
    official: BoundMethod, batch: FeatureBatch, golden: dict[str, np.ndarray], name: str, interval: tuple[float, float]
) -> None:
    features = aggregate(batch.patches(official.method.taps[-1]), GRID, 5)
    scores = mutual_scores(features, interval, convert=euclidean)
    np.testing.assert_allclose(scores, golden[f"msm_r5_l3_{name}"], atol=1e-5)


def test_distances_to_every_image(official: BoundMethod, batch: FeatureBatch, golden: dict[str, np.ndarray]) -> None:
    distances = euclidean(nearest_mutual(aggregate(batch.patches(official.method.taps[1]), GRID, 3)))
    others = torch.stack([distances[image][:, torch.arange(8) != image] for image in range(8)])
    np.testing.assert_allclose(others, golden["mindist_r3_l1_f64"], atol=1e-5)


def test_maps_and_scores(
    official: BoundMethod, batch: FeatureBatch, prediction: Prediction, golden: dict[str, np.ndarray]
) -> None:
    np.testing.assert_allclose(official.method.patch_scores(batch), golden["map15"], atol=1e-5)
    assert_recorded(prediction.maps[0], golden["map240_img0"], atol=1e-5)
    np.testing.assert_allclose(prediction.maps.amax(dim=(1, 2)), golden["img_score_raw"], atol=1e-5)
    np.testing.assert_allclose(prediction.scores, golden["rscin_k1_2_3"], atol=1e-5)


@pytest.mark.parametrize("neighbours", [[1, 2, 3], [1, 4, 5], [2]])
def test_rscin(
    official: BoundMethod, batch: FeatureBatch, golden: dict[str, np.ndarray], neighbours: list[int]
) -> None:
    method = load_method("musc_paper", encoder=official.encoder, neighbours=neighbours).method
    raw = torch.from_numpy(golden["img_score_raw"]).float()
    name = "rscin_k" + "_".join(map(str, neighbours))
    np.testing.assert_allclose(method.rescore(raw, batch.class_tokens), golden[name], atol=1e-5)


def test_default_scores_are_the_codes_on_the_scale_of_distances(
    official: BoundMethod, batch: FeatureBatch, golden: dict[str, np.ndarray]
) -> None:
    """RsCIN commutes with min-max normalisation: the default ranks a batch exactly as the official code does."""
    raw = torch.from_numpy(golden["img_score_raw"]).float()
    ours = load_method("musc", encoder=official.encoder).method.rescore(raw, batch.class_tokens)
    scaled = (ours - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose(scaled, golden["rscin_k1_2_3"], atol=1e-5)


@pytest.fixture(scope="module")
def tiny(tiny_encoder: ClipEncoder) -> BoundMethod:
    return load_method("musc", encoder=tiny_encoder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(9, 3, 48, 48, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_images_compare_with_the_nearest_other(tiny: BoundMethod, pixels: torch.Tensor, count: int) -> None:
    """Below eight images the 30 % are one image; below five the official code divides by zero."""
    prediction = tiny.predict_images(pixels[:count], "plate")
    nearest_only = load_method("musc", encoder=tiny.encoder, interval=[0, 1]).predict_images(pixels[:count], "plate")
    assert prediction.scores.min() > 0
    torch.testing.assert_close(prediction.maps, nearest_only.maps)


def test_batch_of_one_is_zero(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    for name in ("musc", "musc_paper"):
        prediction = load_method(name, encoder=tiny.encoder).predict_images(pixels[:1], "plate")
        assert prediction.scores.tolist() == [0]
        assert prediction.maps.abs().max() == 0


@pytest.mark.parametrize("name", ["musc", "musc_paper"])
def test_equal_images(tiny: BoundMethod, name: str) -> None:
    prediction = load_method(name, encoder=tiny.encoder).predict_images(torch.zeros(4, 3, 48, 48), "plate")
    assert prediction.maps.abs().max() == 0
    assert prediction.scores.abs().max() == 0


def test_order_does_not_matter(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    straight, shuffled = (tiny.predict_images(images, "plate") for images in (pixels, pixels[order]))
    torch.testing.assert_close(shuffled.maps, straight.maps[order])
    torch.testing.assert_close(shuffled.scores, straight.scores[order])


def test_scores_of_different_batches_are_comparable(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """The default keeps the unit of distances; min-max per batch would give every batch a score near 1."""
    calm = pixels[:1] + 0.05 * pixels[1:6]
    wild = pixels[:5]
    assert tiny.predict_images(calm, "plate").scores.max() < tiny.predict_images(wild, "plate").scores.min()
    paper = load_method("musc_paper", encoder=tiny.encoder, neighbours=[1])
    assert paper.predict_images(calm, "plate").scores.max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("layers", [2, 3], "maps"),
        ("sides", [1], "maps"),
        ("interval", [0.0, 0.9], "maps"),
        ("interval", [0.3, 0.9], "maps"),
        ("neighbours", [1], "scores"),
        ("neighbours", [50], "scores"),
        ("reference_quirks", True, "scores"),
    ],
)
def test_every_key_changes_the_output(
    tiny: BoundMethod, pixels: torch.Tensor, key: str, value: object, part: str
) -> None:
    changed = load_method("musc", encoder=tiny.encoder, **{key: value}).predict_images(pixels, "plate")
    assert (getattr(changed, part) - getattr(tiny.predict_images(pixels, "plate"), part)).abs().max() > 1e-6


def test_rscin_off_is_the_maximum_of_the_map(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    off = load_method("musc", encoder=tiny.encoder, neighbours=[]).predict_images(pixels, "plate")
    torch.testing.assert_close(off.scores, off.maps.amax(dim=(1, 2)))


@pytest.mark.parametrize(
    ("key", "value"), [("layers", [5]), ("sides", [2]), ("interval", [0.5, 0.2]), ("neighbours", [0])]
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("musc", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)

"""Few-shot WinCLIP against the outputs of the public re-implementations, and its properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.recorded_clip import recorded_encoder, recorded_images
from tests.helpers.recordings import assert_recorded
from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, Method
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.tower import window_indices
from zsad_bench.methods.winclip_fewshot import harmonic_sum
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.toolkit.maps import upsample

CLASSES = ["bottle", "carpet", "pcb1", "metal nut", "metal_nut"]  # the order of the golden arrays


@pytest.fixture(scope="module")
def encoder(golden_winclip: Path) -> ClipEncoder:
    return recorded_encoder(golden_winclip)


@pytest.fixture(scope="module")
def images(golden_winclip: Path) -> torch.Tensor:
    return recorded_images(golden_winclip)


@pytest.fixture(scope="module")
def reference(golden_winclip: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(golden_winclip / "inputs.npz")["images_extra"][:1])


@pytest.fixture(scope="module")
def golden(golden_winclip: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden_winclip / "winclip.npz"))


@pytest.fixture(scope="module")
def encoded(encoder: ClipEncoder, images: torch.Tensor, reference: torch.Tensor) -> tuple[FeatureBatch, FeatureBatch]:
    request = load_method("winclip_fewshot", encoder=encoder).method.request()
    return encoder.encode(images, request), encoder.encode(reference, request)


def started(name: str, class_name: str, encoder: ClipEncoder, reference: FeatureBatch) -> Method:
    method = load_method(name, encoder=encoder).method
    method.prepare(encoder.texts.features(load_ensemble(method.prompts), class_name))
    method.take_references(reference)
    return method


@pytest.mark.parametrize("position", range(5), ids=CLASSES)
def test_zqhang(
    encoder: ClipEncoder,
    encoded: tuple[FeatureBatch, FeatureBatch],
    golden: dict[str, np.ndarray],
    position: int,
) -> None:
    batch, reference = encoded
    method = started("winclip_fewshot_zqhang", CLASSES[position], encoder, reference)
    prediction = method.predict(batch)
    np.testing.assert_allclose(prediction.scores, golden["zq_fs_img_score"][position], atol=1e-5)
    total = torch.from_numpy(golden["zq_fs_total15"][position]).float()
    np.testing.assert_allclose(prediction.maps, upsample(total, (240, 240)), atol=1e-5)


@pytest.mark.parametrize("position", range(4), ids=CLASSES[:4])
def test_mala_image_scores(
    encoder: ClipEncoder,
    encoded: tuple[FeatureBatch, FeatureBatch],
    golden: dict[str, np.ndarray],
    position: int,
) -> None:
    batch, reference = encoded
    method = started("winclip_fewshot_mala", CLASSES[position], encoder, reference)
    np.testing.assert_allclose(method.predict(batch).scores, golden["ma_fs_img_score"][position], atol=1e-5)


def test_reference_association(
    encoder: ClipEncoder, encoded: tuple[FeatureBatch, FeatureBatch], golden: dict[str, np.ndarray]
) -> None:
    batch, reference = encoded
    method = started("winclip_fewshot", "bottle", encoder, reference)
    distances = method.associate(batch)
    for scale, name in ((2, "vis2"), (3, "vis3"), (0, "visP")):
        np.testing.assert_allclose(distances[scale], golden[f"zq_fs_{name}"], atol=1e-5)
    for scale, name in ((2, "vis2"), (3, "vis3")):
        np.testing.assert_allclose(distances[scale], golden[f"an_fs_{name}"], atol=1e-5)
    for code in ("zq", "ma"):
        np.testing.assert_allclose(method.few_shot_map(batch), golden[f"{code}_fs_map15"], atol=1e-5)
    np.testing.assert_allclose(method.few_shot_map(batch).amax(dim=(1, 2)), golden["ma_fs_max"], atol=1e-5)
    assert_recorded(batch.patches(method.tap), golden["zq_patch_tok"], atol=1e-4)


@pytest.mark.parametrize("position", range(5), ids=CLASSES)
def test_anomalib(
    encoder: ClipEncoder, images: torch.Tensor, reference: torch.Tensor, golden: dict[str, np.ndarray], position: int
) -> None:
    """Patch tokens after ``ln_post``, maps averaged; with the wrong tokens the map is off by 7e-3."""
    request = load_method("winclip_fewshot_anomalib", encoder=encoder).method.request()
    batch, gallery = encoder.encode(images, request), encoder.encode(reference, request)
    method = started("winclip_fewshot_anomalib", CLASSES[position], encoder, gallery)
    prediction = method.predict(batch)
    np.testing.assert_allclose(prediction.scores, golden["an_fs_img_score"][position], atol=1e-5)
    total = torch.from_numpy(golden["an_fs_total15"][position])
    np.testing.assert_allclose(prediction.maps, upsample(total, (240, 240)), atol=1e-5)
    if position == 0:
        assert_recorded(prediction.maps[0], golden["an_fs_full_map_bottle"][0], atol=1e-5)
        assert_recorded(batch.patches(method.tap), golden["an_patch_emb"], atol=1e-4)
        np.testing.assert_allclose(method.associate(batch)[0], golden["an_fs_visP"], atol=1e-5)
        np.testing.assert_allclose(method.few_shot_map(batch), golden["an_fs_map15"], atol=1e-5)


@pytest.mark.parametrize("position", range(5), ids=CLASSES)
def test_caoyunkang(
    encoder: ClipEncoder, images: torch.Tensor, reference: torch.Tensor, golden: dict[str, np.ndarray], position: int
) -> None:
    bound = load_method("winclip_fewshot_caoyunkang", encoder=encoder)
    prediction = bound.predict_images(images, CLASSES[position], references=reference)
    np.testing.assert_allclose(prediction.scores, golden["cy_fs_img_score"][position], atol=1e-5)
    batch = encoder.encode(images, bound.method.request())
    np.testing.assert_allclose(bound.method.few_shot_map(batch), golden["cy_fs_map15"], atol=1e-5)
    clean = load_method("winclip_fewshot_caoyunkang", encoder=encoder, reference_quirks=False)
    clean.predict_images(images, CLASSES[position], references=reference)
    difference = np.abs(clean.method.few_shot_map(batch).numpy() - golden["cy_fs_map15"]).max()
    assert difference == pytest.approx(0.018, abs=5e-4), "the size of the mix-up that the recording states"


def test_public_api(
    encoder: ClipEncoder, images: torch.Tensor, reference: torch.Tensor, golden: dict[str, np.ndarray]
) -> None:
    bound = load_method("winclip_fewshot_zqhang", encoder=encoder)
    prediction = bound.predict_images(images[:2], "bottle", references=reference)
    np.testing.assert_allclose(prediction.scores, golden["zq_fs_img_score"][0][:2], atol=1e-5)


@pytest.fixture(scope="module")
def tiny(tiny_encoder: ClipEncoder) -> BoundMethod:
    return load_method("winclip_fewshot", encoder=tiny_encoder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(7, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def test_an_image_equal_to_its_reference_is_normal(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """Distance 0 everywhere: neither infinite nor negative, only the text term is left."""
    tiny.predict_images(pixels[:1], "plate", references=pixels[:1])
    batch = tiny.encoder.encode(pixels[:1], tiny.method.request())
    assert 0 <= tiny.method.few_shot_map(batch).max() < 1e-6


@pytest.mark.parametrize("window_mean", ["harmonic", "arithmetic"])
@pytest.mark.parametrize("fusion", ["mean", "sum", "harmonic"])
@pytest.mark.parametrize("further_scale", ["patch", "patch_normed", "image", "none"])
@pytest.mark.parametrize("temperature", [1e-4, 0.07, 1e4])
def test_identical_images_and_saturated_probabilities_are_finite(
    tiny_encoder: ClipEncoder,
    pixels: torch.Tensor,
    window_mean: str,
    fusion: str,
    further_scale: str,
    temperature: float,
) -> None:
    keys = {"window_mean": window_mean, "fusion": fusion, "further_scale": further_scale, "temperature": temperature}
    for evidence in ("anomaly", "normality"):
        bound = load_method("winclip_fewshot", encoder=tiny_encoder, evidence=evidence, **keys)
        same, other = bound.predict_images(pixels[[0, 3]], "plate", references=pixels[:1]).maps
        assert torch.isfinite(same).all()
        assert torch.isfinite(other).all()
        if fusion == "harmonic":
            assert same.abs().max() < 1e-6, "a harmonic mean with a distance of 0 in it is 0"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.5), (0.2, 0.6, 0.15), (1e-30, 1e-30, 5e-31), (1e-30, 1.0, 1e-30)],
)
def test_harmonic_sums(first: float, second: float, expected: float) -> None:
    for pair in ((first, second), (second, first)):
        found = harmonic_sum(*(torch.tensor([value]) for value in pair))
        torch.testing.assert_close(found, torch.tensor([expected]), atol=0, rtol=1e-6)


@pytest.mark.parametrize("window_mean", ["harmonic", "arithmetic"])
def test_means_over_windows_by_definition(tiny_encoder: ClipEncoder, pixels: torch.Tensor, window_mean: str) -> None:
    """Distances of 0 among others: a harmonic mean becomes 0 there, an arithmetic one does not."""
    keys = {"windows": [2], "further_scale": "none", "window_mean": window_mean}
    bound = load_method("winclip_fewshot", encoder=tiny_encoder, **keys)
    bound.predict_images(pixels[:1], "plate", references=pixels[3:4])
    batch = tiny_encoder.encode(pixels[:1], bound.method.request())
    reference = tiny_encoder.encode(pixels[3:4], bound.method.request())
    mixed = torch.cat([reference.windows[2][:, :5], batch.windows[2][:, 5:]], dim=1)
    batch = replace(batch, windows={2: mixed})
    distances = bound.method.associate(batch)[2][0].double()
    assert (distances[:5] == 0).all()
    assert (distances[5:] > 0).all()
    found = bound.method.few_shot_map(batch)[0].flatten()
    indices = window_indices(batch.grid, 2)
    for patch in range(36):
        covering = distances[(indices == patch).any(dim=1)]
        expected = covering.mean() if window_mean == "arithmetic" else len(covering) / (1 / covering).sum()
        assert found[patch].item() == pytest.approx(float(expected), rel=1e-5)


def test_more_references_never_raise_the_distance(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    batch = tiny.encoder.encode(pixels[:3], tiny.method.request())
    maps = []
    for count in (1, 2, 4):
        method = load_method("winclip_fewshot", encoder=tiny.encoder, k_shot=count)
        method.predict_images(pixels[:1], "plate", references=pixels[3 : 3 + count])
        maps.append(method.method.few_shot_map(batch))
    assert (maps[1] <= maps[0] + 1e-6).all()
    assert (maps[2] <= maps[1] + 1e-6).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0.01),
        ("windows", [3]),
        ("image_term", False),
        ("further_scale", "none"),
        ("further_scale", "patch_normed"),
        ("further_scale", "image"),
        ("window_mean", "arithmetic"),
        ("fusion", "sum"),
        ("fusion", "harmonic"),
        ("evidence", "normality"),
        ("prompts", "winclip_zqhang"),
        ("prompt_average", "raw"),
    ],
)
def test_every_key_changes_the_map(tiny: BoundMethod, pixels: torch.Tensor, key: str, value: object) -> None:
    changed = load_method("winclip_fewshot", encoder=tiny.encoder, **{key: value})
    maps = [method.predict_images(pixels[:3], "plate", references=pixels[5:6]).maps for method in (tiny, changed)]
    assert (maps[0] - maps[1]).abs().max() > 1e-7


def test_references_are_required(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    with pytest.raises(UserError, match="k_shot=1"):
        tiny.predict_images(pixels, "plate")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("k_shot", 0),
        ("fusion", "max"),
        ("further_scale", "all"),
        ("window_mean", "geometric"),
        ("temperature", 0.0),
        ("windows", [9]),
    ],
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("winclip_fewshot", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)

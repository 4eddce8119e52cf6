"""WinCLIP against the outputs of the public re-implementations, and its properties."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.recorded_clip import recorded_encoder, recorded_images
from tests.helpers.recordings import assert_recorded
from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, FeatureRequest
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.tower import window_indices
from zsad_bench.methods.winclip import log_mean_over_windows
from zsad_bench.text.ensembles import load_ensemble

CLASSES = ["bottle", "carpet", "pcb1", "metal nut", "metal_nut"]  # the order of the golden arrays


@pytest.fixture(scope="module")
def encoder(golden_winclip: Path) -> ClipEncoder:
    return recorded_encoder(golden_winclip)


@pytest.fixture(scope="module")
def images(golden_winclip: Path) -> torch.Tensor:
    return recorded_images(golden_winclip)


@pytest.fixture(scope="module")
def golden(golden_winclip: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden_winclip / "winclip.npz"))


@pytest.fixture(scope="module")
def features(encoder: ClipEncoder, images: torch.Tensor) -> FeatureBatch:
    return encoder.encode(images, FeatureRequest(windows=(2, 3)))


def test_window_embeddings(features: FeatureBatch, golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(features.class_tokens, golden["zq_img_emb"], atol=1e-4)
    for side in (2, 3):
        assert_recorded(features.windows[side], golden[f"zq_win{side}_emb"], atol=1e-4)


def test_windows_are_not_anomalibs_collapsed_ones(features: FeatureBatch, golden: dict[str, np.ndarray]) -> None:
    """With open_clip >= 2.26.1 anomalib's windows of one image are all equal; the golden holds such wrong values."""
    wrong = golden["an_openclip3_bug_win2_emb_img0"]
    ours = features.windows[2][0].numpy()
    assert wrong.std(axis=0).max() < 1e-4
    assert ours.std(axis=0).min() > 1e-2
    assert np.abs(ours - wrong).max() > 0.1


@pytest.mark.parametrize("code", ["zq", "an"])
@pytest.mark.parametrize("position", range(5), ids=CLASSES)
def test_zqhang_and_anomalib_to_the_digit(
    encoder: ClipEncoder, features: FeatureBatch, golden: dict[str, np.ndarray], code: str, position: int
) -> None:
    method = load_method("winclip_zqhang", encoder=encoder).method
    method.prepare(encoder.texts.features(load_ensemble(method.prompts), CLASSES[position]))
    prediction = method.predict(features)
    np.testing.assert_allclose(prediction.scores, golden[f"{code}_img_score"][position], atol=1e-5)
    if position < 4:
        assert_recorded(prediction.maps[position], golden["zq_map240_diag"][position], atol=1e-5)
    for side in (2, 3):
        scores = method.score(features.windows[side])
        np.testing.assert_allclose(scores, golden[f"{code}_win{side}_score"][position], atol=1e-5)
        harmonic = method.aggregate(scores, side).unflatten(1, (15, 15))
        np.testing.assert_allclose(harmonic, golden[f"{code}_harm{side}"][position], atol=1e-5)
    np.testing.assert_allclose(method.patch_scores(features), golden[f"{code}_map15"][position], atol=1e-5)


def test_public_api_gives_the_same(encoder: ClipEncoder, images: torch.Tensor, golden: dict[str, np.ndarray]) -> None:
    prediction = load_method("winclip_zqhang", encoder=encoder).predict_images(images[:1], class_name="bottle")
    np.testing.assert_allclose(prediction.scores, golden["zq_img_score"][0][:1], atol=1e-5)
    assert_recorded(prediction.maps[0], golden["zq_map240_diag"][0], atol=1e-5)


@pytest.mark.parametrize("position", range(4), ids=CLASSES[:4])
def test_mala_image_scores(
    encoder: ClipEncoder, features: FeatureBatch, golden: dict[str, np.ndarray], position: int
) -> None:
    method = load_method("winclip_mala", encoder=encoder).method
    method.prepare(encoder.texts.features(load_ensemble(method.prompts), CLASSES[position]))
    np.testing.assert_allclose(method.predict(features).scores, golden["ma_img_score"][position], atol=1e-5)


@pytest.mark.parametrize("position", range(5), ids=CLASSES)
def test_caoyunkang_to_the_digit(
    encoder: ClipEncoder, features: FeatureBatch, golden: dict[str, np.ndarray], position: int
) -> None:
    method = load_method("winclip_caoyunkang", encoder=encoder).method
    text = encoder.texts.features(load_ensemble(method.prompts), CLASSES[position])
    np.testing.assert_allclose(text.vectors(), golden["cy_text_normed"][position], atol=1e-5)
    assert (len(text.normal), len(text.abnormal)) == tuple(golden["cy_n_prompts"])
    method.prepare(text)
    np.testing.assert_allclose(method.patch_scores(features), golden["cy_map15"][position], atol=1e-5)
    prediction = method.predict(features)
    np.testing.assert_allclose(prediction.scores, golden["cy_img_score"][position], atol=1e-5)
    if position == 0:
        assert_recorded(prediction.maps[0], golden["cy_map240_img0"], atol=1e-5)


def test_windows_of_the_golden_run(encoder: ClipEncoder, golden: dict[str, np.ndarray]) -> None:
    for side in (2, 3):
        windows = window_indices((15, 15), side).T
        for name, first in ((f"an_mask{side}", 0), (f"zq_mask{side}_1based", 1), (f"ma_mask{side}_1based", 1)):
            np.testing.assert_array_equal(windows + first, golden[name])


def test_text_vectors(encoder: ClipEncoder, golden: dict[str, np.ndarray]) -> None:
    for position, name in enumerate(CLASSES):
        raw = encoder.texts.features(load_ensemble("winclip_zqhang"), name)
        means = torch.stack([raw.normal.mean(dim=0), raw.abnormal.mean(dim=0)])
        for code in ("zq", "an"):
            np.testing.assert_allclose(means, golden[f"{code}_text_raw_mean"][position], atol=1e-5)
        unit = encoder.texts.features(load_ensemble("winclip"), name.replace("_", " "))
        np.testing.assert_allclose(unit.vectors(), golden["ma_text_normed"][position], atol=1e-5)
    bottle = encoder.texts.features(load_ensemble("winclip_zqhang"), "bottle")
    assert (len(bottle.normal), len(bottle.abnormal)) == tuple(golden["zq_n_prompts"]) == tuple(golden["an_n_prompts"])
    full = encoder.texts.features(load_ensemble("winclip"), "bottle")
    assert (len(full.normal), len(full.abnormal)) == tuple(golden["ma_n_prompts"])


def test_prompts_are_those_of_the_golden_run(encoder: ClipEncoder, golden: dict[str, np.ndarray]) -> None:
    """Same prompts; anomalib lists the templates in an order of its own, and averages do not depend on it."""
    normal, _ = load_ensemble("winclip_zqhang").write("bottle")
    ours = encoder.tokenizer(normal).numpy()
    expected = golden["an_tokens_bottle_normal"]
    embeddings = encoder.encode_text(normal)
    own, theirs = (sorted(range(len(rows)), key=lambda row: tuple(rows[row])) for rows in (ours, expected))
    np.testing.assert_array_equal(ours[own], expected[theirs])
    np.testing.assert_allclose(embeddings[own], golden["an_prompt_feats_bottle_normal"][theirs], atol=1e-4)


@pytest.fixture(scope="module")
def tiny(tiny_encoder: ClipEncoder) -> BoundMethod:
    return load_method("winclip", encoder=tiny_encoder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def test_map_lies_between_its_terms(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """A harmonic mean lies between the smallest and the largest of what it averages."""
    prediction = tiny.predict_images(pixels, "plate")
    assert prediction.maps.shape == (5, 48, 48)
    batch = tiny.encoder.encode(pixels, tiny.method.request())
    terms = torch.cat([tiny.method.score(batch.windows[side]) for side in (2, 3)] + [prediction.scores[:, None]], dim=1)
    assert (prediction.maps.amax(dim=(1, 2)) <= terms.amax(dim=1) + 1e-6).all()
    assert (prediction.maps.amin(dim=(1, 2)) >= terms.amin(dim=1) - 1e-6).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0.01),
        ("windows", [3]),
        ("image_term", False),
        ("prompts", "winclip_zqhang"),
        ("prompt_average", "raw"),
        ("evidence", "normality"),
    ],
)
def test_every_key_changes_the_map(tiny: BoundMethod, pixels: torch.Tensor, key: str, value: object) -> None:
    changed = load_method("winclip", encoder=tiny.encoder, **{key: value})
    difference = changed.predict_images(pixels, "plate").maps - tiny.predict_images(pixels, "plate").maps
    assert difference.abs().max() > 1e-7


def test_score_of_the_map_and_halving(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    by_text, by_map, halved = (
        load_method("winclip", encoder=tiny.encoder, evidence="normality", **keys).predict_images(pixels, "plate")
        for keys in ({}, {"image_score": "map"}, {"image_score": "map", "reference_quirks": True})
    )
    torch.testing.assert_close(by_map.maps, by_text.maps)
    assert (by_map.scores - by_text.scores).abs().max() > 1e-6
    torch.testing.assert_close(by_map.scores, by_map.maps.amax(dim=(1, 2)))
    torch.testing.assert_close(halved.maps, by_map.maps / 2)


def windows_of(patch: int, grid: tuple[int, int], side: int) -> torch.Tensor:
    """Numbers of the windows that cover a patch."""
    return (window_indices(grid, side) == patch).any(dim=1).nonzero()[:, 0]


def harmonic(terms: torch.Tensor) -> float:
    """Harmonic mean of float64 numbers by its definition; 1 / 0 is infinite and 1 / infinity is 0."""
    return float(len(terms) / (1 / terms).sum())


@pytest.mark.parametrize(("grid", "side"), [((3, 5), 1), ((3, 5), 2), ((3, 5), 3), ((4, 4), 4), ((7, 7), 6)])
def test_log_means_over_windows(grid: tuple[int, int], side: int) -> None:
    """Patch by patch from the definition; infinite values and values far beyond the range of exp are no exception."""
    n_windows = len(window_indices(grid, side))
    values = 300 * torch.randn(4, n_windows, generator=torch.Generator().manual_seed(0))
    values[1, 0], values[2], values[3, -1] = math.inf, -math.inf, -math.inf
    found = log_mean_over_windows(values, grid, side)
    for patch in range(grid[0] * grid[1]):
        covering = values[:, windows_of(patch, grid, side)].double()
        expected = covering.logsumexp(dim=1) - math.log(covering.shape[1])
        torch.testing.assert_close(found[:, patch].double(), expected, atol=1e-4, rtol=1e-6)


def test_a_harmonic_mean_with_a_zero_in_it_is_zero(tiny: BoundMethod) -> None:
    grid = tiny.encoder.spec.grid
    scores = torch.rand(1, 25, generator=torch.Generator().manual_seed(0))
    scores[0, 7] = 0
    means = tiny.method.aggregate(scores, 2)[0]
    for patch in range(len(means)):
        covering = windows_of(patch, grid, 2)
        assert means[patch] == (0 if 7 in covering else pytest.approx(harmonic(scores[0, covering].double()), rel=1e-5))
    assert (tiny.method.aggregate(torch.zeros(2, 25), 2) == 0).all()


@pytest.mark.parametrize("evidence", ["anomaly", "normality"])
@pytest.mark.parametrize("image_term", [True, False])
@pytest.mark.parametrize("temperature", [1e-30, 1e-4, 1e-3, 1e-2, 0.07, 1.0, 1e4, 1e30])
def test_every_temperature_gives_the_limit(
    tiny: BoundMethod, pixels: torch.Tensor, evidence: str, image_term: bool, temperature: float
) -> None:
    """Maps by their definition, in float64 with 1 - s from the log odds, also where s is 0 or 1 to the last bit."""
    keys = {"evidence": evidence, "image_term": image_term, "temperature": temperature}
    method = load_method("winclip", encoder=tiny.encoder, **keys).method
    text = tiny.encoder.texts.features(load_ensemble("winclip"), "plate")
    method.prepare(text)
    batch = tiny.encoder.encode(pixels[:2], method.request())
    maps, sign = method.patch_scores(batch), 1 if evidence == "anomaly" else -1

    def probabilities(embeddings: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + (-sign * method.log_odds(embeddings).double()).exp())

    for image, patch in ((0, 0), (0, 14), (1, 35)):
        scales = [
            harmonic(probabilities(batch.windows[side][image])[windows_of(patch, batch.grid, side)]) for side in (2, 3)
        ]
        if image_term:
            scales.append(float(probabilities(batch.class_tokens[image])))
        mean = harmonic(torch.tensor(scales, dtype=torch.float64))
        expected = mean if evidence == "anomaly" else 1 - mean
        assert maps[image].flatten()[patch].item() == pytest.approx(expected, abs=1e-6)
    prediction = method.predict(batch)
    assert torch.isfinite(prediction.maps).all()
    assert torch.isfinite(prediction.scores).all()


def test_small_anomaly_probabilities_keep_their_order(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """One minus the mean normality, where the normality of every window is 1 to the last bit of float32."""
    method = load_method("winclip", encoder=tiny.encoder, evidence="normality", image_term=False).method
    method.prepare(tiny.encoder.texts.features(load_ensemble("winclip"), "plate"))
    batch = tiny.encoder.encode(pixels, method.request())
    normal, abnormal = method.text
    distance = (normal - abnormal).norm()
    shift = 3 * (normal - abnormal) / distance
    windows = {side: torch.nn.functional.normalize(found, dim=-1) + shift for side, found in batch.windows.items()}
    method.temperature = float(distance) / 30
    maps = method.patch_scores(FeatureBatch(batch.image_ids, batch.class_tokens, {}, batch.grid, (48, 48), windows))
    assert 0 < maps.max() < 1e-8
    assert len(maps.unique()) == maps.numel()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0.0),
        ("temperature", 1e-45),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("windows", []),
        ("windows", [9]),
        ("prompts", "nothing"),
        ("evidence", "both"),
        ("image_score", "mean"),
    ],
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("winclip", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)

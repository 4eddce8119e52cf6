"""The FiSeCLIP reconstruction: what its filter, its matching and its definitions for odd batches do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, Method, Prediction
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.text.ensembles import load_ensemble

N_PATCHES = 36


@pytest.fixture(scope="module")
def tiny(tiny_encoder: ClipEncoder) -> BoundMethod:
    return load_method("fiseclip", encoder=tiny_encoder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def start(bound: BoundMethod) -> Method:
    bound.method.prepare(bound.encoder.texts.features(load_ensemble(bound.method.prompts), "plate"))
    return bound.method


def encode(bound: BoundMethod, pixels: torch.Tensor, first: int = 0) -> FeatureBatch:
    names = [f"plate/{first + index}.png" for index in range(len(pixels))]
    return bound.encoder.encode(pixels, bound.method.request(), names)


def variant(bound: BoundMethod, **keys: object) -> BoundMethod:
    return load_method("fiseclip", encoder=bound.encoder, **keys)


def assert_same(actual: Prediction, expected: Prediction) -> None:
    torch.testing.assert_close(actual.maps, expected.maps)
    torch.testing.assert_close(actual.scores, expected.scores)


def test_batch_of_one_is_text_alone(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    text = variant(tiny, fusion="text").predict_images(pixels[:1], "plate")
    for fusion in ("mutual", "sum", "product", "match"):
        assert_same(variant(tiny, fusion=fusion).predict_images(pixels[:1], "plate"), text)


@pytest.mark.parametrize("fusion", ["mutual", "match"])
def test_equal_images_have_nothing_to_find(tiny: BoundMethod, fusion: str) -> None:
    """A batch of one defect only, many times: what all images share counts as normal for matching."""
    bound = variant(tiny, fusion=fusion, filter="none")
    prediction = bound.predict_images(torch.ones(4, 3, 48, 48), "plate")
    assert torch.isfinite(prediction.maps).all()
    torch.testing.assert_close(prediction.maps, prediction.maps[:1].expand(4, -1, -1))
    if fusion == "match":
        assert prediction.maps.abs().max() == 0


def test_order_within_the_batch_does_not_matter(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    names = [f"{index}.png" for index in range(8)]
    straight = tiny.predict_images(pixels, "plate", image_ids=names)
    shuffled = tiny.predict_images(pixels[order], "plate", image_ids=[names[index] for index in order])
    assert_same(shuffled, Prediction(straight.scores[order], straight.maps[order]))


def test_preparing_forgets_the_category_before(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    method = start(tiny)
    fresh = method.predict(encode(tiny, pixels[:3]))
    start(tiny).predict(encode(tiny, pixels))
    assert_same(start(tiny).predict(encode(tiny, pixels[:3])), fresh)


def odds_of(batch: int, seed: int = 4) -> torch.Tensor:
    return torch.randn(batch, N_PATCHES, generator=torch.Generator().manual_seed(seed))


def test_a_fixed_share_leaves_out_the_most_suspicious_patches(tiny: BoundMethod) -> None:
    residual = odds_of(5)
    penalty = variant(tiny, drop=0.3, keep_min=1).method.penalty(residual, residual)
    out = torch.isinf(penalty)
    assert out.float().mean() == pytest.approx(0.3, abs=0.02)
    assert residual[out].min() > residual[~out].max()


def test_margin_finds_outliers_only(tiny: BoundMethod) -> None:
    calm = 0.1 * odds_of(5).clamp(-2, 2)
    marked = calm.clone()
    marked[0, :4] = 2.0
    method = variant(tiny, margin=3.0).method
    assert torch.isfinite(method.penalty(calm, calm)).all()
    assert torch.isinf(method.penalty(marked, marked)).nonzero().tolist() == [[0, patch] for patch in range(4)]


def test_every_reference_image_keeps_patches(tiny: BoundMethod) -> None:
    residual = torch.full((5, N_PATCHES), -2.0)
    residual[0] = torch.linspace(1.0, 2.0, N_PATCHES)
    penalty = variant(tiny, drop=0.9, keep_min=8).method.penalty(residual, residual)
    kept = torch.isfinite(penalty).sum(dim=1)
    assert kept[0] == 8
    assert (kept[1:] == N_PATCHES).all()


def test_filter_only_adds_distance(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """Leaving references out can only make the nearest one farther."""
    tiny.method.request()
    batch = encode(tiny, pixels)
    without = tiny.method.matching(batch, None)
    for keys in ({"drop": 0.3}, {"filter": "soft"}):
        penalty = variant(tiny, **keys).method.penalty(odds_of(8), odds_of(8))
        filtered = tiny.method.matching(batch, penalty)
        assert (filtered >= without - 1e-6).all()
        assert (filtered - without).max() > 1e-4


def test_consensus_forgives_what_every_image_has(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """Eight copies of an image with a structure that text dislikes: no residual; in one image alone it stays."""
    batch = encode(tiny, pixels[:1].expand(8, -1, -1, -1))
    everywhere = torch.zeros(8, N_PATCHES)
    everywhere[:, 5] = 3.0
    assert tiny.method.residual(everywhere, batch).abs().max() == 0
    once = torch.zeros(8, N_PATCHES)
    once[2, 5] = 3.0
    residual = tiny.method.residual(once, batch)
    assert residual[2, 5] == 3.0
    assert residual.abs().sum() == 3.0
    raw = variant(tiny, consensus=False).method.residual(everywhere, batch)
    assert raw[0, 5] == 3.0


def test_a_defect_that_vouches_for_itself_is_filtered(tiny: BoundMethod) -> None:
    """Two of eight images share a defect: only without it as a reference does matching find it."""
    bound = variant(tiny, sides=(1,))
    method = bound.method
    method.request()
    size = bound.encoder.spec.width
    tokens = torch.eye(N_PATCHES, size).expand(8, -1, -1) + 0.01 * torch.randn(8, N_PATCHES, size)
    tokens[0, 3] = tokens[1, 20] = torch.linspace(-1, 1, size)
    with_class = torch.cat([torch.zeros(8, 1, size), tokens], dim=1)
    batch = replace(encode(bound, torch.zeros(8, 3, 48, 48)), tokens=dict.fromkeys(method.taps, with_class))
    odds = 0.1 * odds_of(8)
    odds[0, 3] = odds[1, 20] = 4.0
    filtered = method.matching(batch, method.penalty(odds, method.residual(odds, batch)))
    unfiltered = method.matching(batch, None)
    assert unfiltered[0, 3] < 1e-3
    assert filtered[0, 3] > 0.1
    assert filtered[1, 20] > 0.1


def test_one_nearest_image_or_a_share_of_them(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    one, third = (variant(tiny, fusion="match", filter="none", share=share) for share in (0.0, 0.5))
    maps = [bound.predict_images(pixels, "plate").maps for bound in (one, third)]
    assert (maps[1] >= maps[0] - 1e-6).all()
    assert (maps[1] - maps[0]).max() > 1e-4


def test_all_anomalous_batch_is_defined(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """Every image has a defect of its own: each is still compared with the others' normal patches."""
    marked = torch.zeros(4, 3, 48, 48)
    for image in range(4):
        marked[image, :, 8 * image + 8 : 8 * image + 16, 16:24] = pixels[image, :, :8, :8] * 3
    prediction = variant(tiny, fusion="match", filter="none", sigma=0.0).predict_images(marked, "plate")
    for image in range(4):
        inside = prediction.maps[image, 8 * image + 8 : 8 * image + 16, 16:24].mean()
        assert inside > prediction.maps[image, :, 40:].mean()


def test_class_weight_changes_scores_only(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    with_class, without = (variant(tiny, class_weight=weight).predict_images(pixels, "plate") for weight in (0.25, 0.0))
    torch.testing.assert_close(with_class.maps, without.maps)
    assert ((with_class.scores - without.scores) > 0).all()
    torch.testing.assert_close(without.scores, without.maps.amax(dim=(1, 2)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0.0),
        ("attention", "qk"),
        ("layers", [9]),
        ("sides", [2]),
        ("share", 1.0),
        ("filter", "yes"),
        ("drop", 1.0),
        ("margin", 0.0),
        ("keep_min", 0),
        ("softness", -0.1),
        ("fusion", "max"),
        ("weight", -1.0),
        ("class_weight", -1.0),
        ("scale", 0.0),
        ("sigma", -1.0),
    ],
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("fiseclip", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)

"""The FiSeCLIP reconstruction: what its filter, its matching and its definitions for odd batches do."""

from __future__ import annotations

import pytest
import torch

from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.encoder import ClipEncoder
from zsad_bench.errors import UserError
from zsad_bench.features import FeatureBatch
from zsad_bench.method import Method, Prediction
from zsad_bench.prompts import load_ensemble

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


def test_short_batch_borrows_references_only(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    borrowing, as_is = tiny, variant(tiny, short_batch="as_is")
    predictions = []
    for bound in (borrowing, as_is):
        method = start(bound)
        method.predict(encode(bound, pixels[:6]))
        predictions.append(method.predict(encode(bound, pixels[6:], first=6)))
    assert len(predictions[0].scores) == 2
    assert (predictions[0].maps - predictions[1].maps).abs().max() > 1e-6
    method = start(borrowing)
    alone = method.predict(encode(borrowing, pixels[6:], first=6))
    assert_same(alone, predictions[1])  # nothing to borrow from


def test_borrowed_images_are_those_of_a_full_batch(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """6 images, then 2 that borrow 4 of them: as the 2 in a batch with those 4, in whatever order the 6 came."""
    results = []
    for order in (torch.arange(6), torch.tensor([3, 1, 5, 0, 4, 2])):
        method = start(tiny)
        first = encode(tiny, pixels[:6])
        names = [first.image_ids[index] for index in order]
        method.predict(tiny.encoder.encode(pixels[:6][order], method.request(), names))
        second = encode(tiny, pixels[6:], first=6)
        joined = method.with_references(second)
        assert len(joined) == 6
        assert set(joined.image_ids[2:]) <= set(first.image_ids)
        results.append(method.predict(second))
    assert_same(results[1], results[0])


def test_preparing_forgets_the_category_before(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    method = start(tiny)
    fresh = method.predict(encode(tiny, pixels[:3]))
    start(tiny).predict(encode(tiny, pixels))
    assert_same(start(tiny).predict(encode(tiny, pixels[:3])), fresh)


def test_hard_filter_leaves_out_the_most_abnormal_patches(tiny: BoundMethod) -> None:
    language = torch.rand(5, N_PATCHES, generator=torch.Generator().manual_seed(4))
    penalty = variant(tiny, filter="hard", drop=0.3, margin=0.0, keep_min=1).method.penalty(language)
    out = torch.isinf(penalty)
    assert out.float().mean() == pytest.approx(0.3, abs=0.02)
    assert language[out].min() > language[~out].max()


def test_margin_spares_batches_without_suspicious_patches(tiny: BoundMethod) -> None:
    calm = torch.full((5, N_PATCHES), 0.4) + 0.02 * torch.rand(5, N_PATCHES, generator=torch.Generator().manual_seed(4))
    marked = calm.clone()
    marked[0, :4] = 0.9
    method = variant(tiny, filter="hard", drop=0.3, margin=4.0).method
    assert torch.isfinite(method.penalty(calm)).all()
    assert torch.isinf(method.penalty(marked)).nonzero().tolist() == [[0, patch] for patch in range(4)]


def test_every_reference_image_keeps_patches(tiny: BoundMethod) -> None:
    language = torch.full((5, N_PATCHES), 0.1)
    language[0] = torch.linspace(0.8, 0.9, N_PATCHES)
    penalty = variant(tiny, filter="hard", drop=0.9, margin=0.0, keep_min=8).method.penalty(language)
    kept = torch.isfinite(penalty).sum(dim=1)
    assert kept[0] == 8
    assert (kept[1:] == N_PATCHES).all()


def test_filter_only_adds_distance(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    """Leaving references out can only make the nearest one farther."""
    batch = encode(tiny, pixels)
    language = torch.rand(8, N_PATCHES, generator=torch.Generator().manual_seed(4))
    without = variant(tiny, filter="none").method
    without.request()
    for rule in ("hard", "soft"):
        method = variant(tiny, filter=rule, margin=0.0).method
        assert (method.matching(batch, language) >= without.matching(batch, language) - 1e-6).all()


KEYS = [
    ("temperature", 0.02),
    ("attention", "qkv_self"),
    ("attention", "plain"),
    ("layers", [2, 3]),
    ("sides", [5]),
    ("share", 0.9),
    ("filter", "none"),
    ("filter", "soft"),
    ("drop", 0.6),
    ("fusion", "sum"),
    ("fusion", "product"),
    ("fusion", "match"),
    ("fusion", "text"),
    ("weight", 0.1),
    ("scale", 0.1),
    ("sigma", 0.0),
    ("prompts", "winclip"),
    ("margin", 2.0),
    ("keep_min", 30),
]
# A hard filter that bites and a fusion that uses everything, so that every key has something to change.
ACTIVE: dict[str, object] = {"drop": 0.3, "margin": 0.0, "keep_min": 2, "fusion": "mutual", "weight": 0.5}


@pytest.mark.parametrize(
    ("key", "value"),
    KEYS,
)
def test_every_key_changes_the_map(tiny: BoundMethod, pixels: torch.Tensor, key: str, value: object) -> None:
    base = variant(tiny, **ACTIVE).predict_images(pixels, "plate")
    changed = variant(tiny, **{**ACTIVE, key: value}).predict_images(pixels, "plate")
    assert (changed.maps - base.maps).abs().max() > 1e-6


def test_class_weight_changes_scores_only(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    with_class, without = (variant(tiny, class_weight=weight).predict_images(pixels, "plate") for weight in (0.25, 0.0))
    torch.testing.assert_close(with_class.maps, without.maps)
    assert ((with_class.scores - without.scores) > 0).all()
    torch.testing.assert_close(without.scores, without.maps.amax(dim=(1, 2)))


def test_mutual_preset(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    preset = load_method("fiseclip_mutual", encoder=tiny.encoder).predict_images(pixels, "plate")
    assert_same(preset, variant(tiny, fusion="mutual", class_weight=0.25).predict_images(pixels, "plate"))


def test_softness_changes_the_map(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    maps = [
        variant(tiny, filter="soft", softness=value, fusion="match").predict_images(pixels, "plate").maps
        for value in (0.0, 0.2)
    ]
    assert (maps[0] - maps[1]).abs().max() > 1e-6


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
        ("margin", -1.0),
        ("keep_min", 0),
        ("softness", -0.1),
        ("fusion", "max"),
        ("weight", -1.0),
        ("class_weight", -1.0),
        ("scale", 0.0),
        ("sigma", -1.0),
        ("short_batch", "drop"),
    ],
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("fiseclip", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)

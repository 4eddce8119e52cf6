"""The Dual-Image reconstruction: pairs, joint scores, pseudo anomalies and the adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, Prediction
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.methods.dual_image import tournament
from zsad_bench.methods.dual_image_anomalies import COVERAGE, paste, perlin
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.toolkit.taps import VALUE_VALUE

NAMES = [f"plate/{index}.png" for index in range(7)]


@pytest.fixture(scope="module")
def tiny(tiny_encoder: ClipEncoder) -> BoundMethod:
    return load_method("dual_image", encoder=tiny_encoder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(7, 3, 48, 48, generator=torch.Generator().manual_seed(2))


def variant(bound: BoundMethod, name: str = "dual_image", **keys: object) -> BoundMethod:
    return load_method(name, encoder=bound.encoder, **keys)


def predict(bound: BoundMethod, pixels: torch.Tensor, names: list[str] | None = None) -> Prediction:
    return bound.predict_images(pixels, "plate", image_ids=names or NAMES[: len(pixels)])


def assert_same(actual: Prediction, expected: Prediction) -> None:
    torch.testing.assert_close(actual.maps, expected.maps)
    torch.testing.assert_close(actual.scores, expected.scores)


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("rounds", [1, 2, 3, 20])
def test_tournament(count: int, rounds: int) -> None:
    partners = tournament(count, rounds, list(range(count)))
    expected = min(rounds, count - 1)
    for image, others in enumerate(partners):
        assert len(others) == len(set(others)) == expected
        assert image not in others
        if count % 2 == 0:
            assert all(image in partners[other] for other in others)


def test_a_batch_of_two_is_one_pair(tiny: BoundMethod) -> None:
    assert tiny.method.pairs(NAMES[:2]) == [[1], [0]]


def test_pairs_follow_the_names(tiny: BoundMethod) -> None:
    order = [4, 0, 6, 2, 1, 5, 3]
    straight = tiny.method.pairs(NAMES)
    shuffled = tiny.method.pairs([NAMES[index] for index in order])
    for place, index in enumerate(order):
        assert [order[other] for other in shuffled[place]] == straight[index]
    others = tiny.method.pairs([f"other/{index}.png" for index in range(7)])
    assert others != straight


@pytest.mark.parametrize("name", ["dual_image", "dual_image_tta"])
def test_order_within_the_batch_does_not_matter(tiny: BoundMethod, pixels: torch.Tensor, name: str) -> None:
    bound = variant(tiny, name)
    order = [2, 0, 3, 1]
    straight = predict(bound, pixels[:4])
    shuffled = predict(bound, pixels[:4][order], [NAMES[index] for index in order])
    assert_same(shuffled, Prediction(straight.scores[order], straight.maps[order]))


@pytest.mark.parametrize("name", ["dual_image", "dual_image_tta"])
def test_batch_of_one_is_text_alone(tiny: BoundMethod, pixels: torch.Tensor, name: str) -> None:
    alone = predict(variant(tiny, name), pixels[:1])
    assert_same(alone, predict(variant(tiny, name, fusion="text"), pixels[:1]))


def test_the_joint_is_the_weighted_mean_of_its_parts(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    text, match, joint = (
        predict(variant(tiny, fusion=fusion, weight=0.3), pixels) for fusion in ("text", "match", "joint")
    )
    torch.testing.assert_close(joint.maps, 0.7 * text.maps + 0.3 * match.maps)
    torch.testing.assert_close(joint.scores, 0.7 * text.scores + 0.3 * match.scores)
    torch.testing.assert_close(match.scores, match.maps.amax(dim=(1, 2)))


def test_an_image_and_its_copy_match(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    prediction = predict(variant(tiny, fusion="match"), pixels[:1].expand(2, -1, -1, -1))
    assert prediction.maps.abs().max() == 0


def test_more_references_never_raise_the_distance(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    one, all_others = (predict(variant(tiny, fusion="match", n_references=n), pixels).maps for n in (1, 6))
    assert (all_others <= one + 1e-6).all()
    assert (all_others - one).abs().max() > 1e-6


def test_perlin_noise_is_smooth_and_zero_at_the_grid() -> None:
    noise = perlin((64, 64), 4, np.random.default_rng(0), torch.device("cpu"))
    assert noise[::16, ::16].abs().max() < 1e-6
    assert 0.3 < noise.abs().max() < 1.5
    assert noise.diff(dim=0).abs().max() < 0.3


def test_pseudo_anomalies_change_their_mask_only(pixels: torch.Tensor) -> None:
    for seed in range(20):
        changed, mask = paste(pixels[0], np.random.default_rng(seed))
        assert torch.equal(changed[:, mask == 0], pixels[0][:, mask == 0])
        assert (changed - pixels[0])[:, mask > 0].abs().mean() > 0.05
        assert COVERAGE[0] / 2 < mask.mean() < COVERAGE[1] + 0.05
    again, same = (paste(pixels[0], np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(again[0], same[0])


@pytest.fixture(scope="module")
def adapting(tiny: BoundMethod, pixels: torch.Tensor) -> tuple[BoundMethod, FeatureBatch]:
    bound = variant(tiny, "dual_image_tta")
    method = bound.method
    method.prepare(bound.encoder.texts.features(load_ensemble(method.prompts), "plate"))
    return bound, bound.encoder.encode(pixels[:4], method.request(), NAMES[:4])


def test_the_adapter_starts_as_the_identity(adapting: tuple[BoundMethod, FeatureBatch]) -> None:
    bound, batch = adapting
    tokens = batch.patches(VALUE_VALUE)
    width = tokens.shape[-1]
    torch.testing.assert_close(bound.method.adapted(tokens, torch.eye(width), torch.zeros(width)), tokens)


def test_the_adapter_learns_and_is_fitted_anew(adapting: tuple[BoundMethod, FeatureBatch]) -> None:
    bound, batch = adapting
    first, bias = bound.method.fit(batch, (0, 1))
    assert (first - torch.eye(len(first))).abs().max() > 1e-3
    assert not first.requires_grad
    bound.method.fit(batch, (2, 3))
    again, _ = bound.method.fit(batch, (0, 1))
    assert torch.equal(first, again)
    assert bias.shape == (len(first),)


def test_results_do_not_depend_on_what_ran_before(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    bound = variant(tiny, "dual_image_tta")
    first = predict(bound, pixels[:4])
    predict(bound, pixels[4:], ["a", "b", "c"])
    again = predict(bound, pixels[:4])
    assert torch.equal(first.maps, again.maps)


def test_adaptation_leaves_image_scores_of_text_alone(tiny: BoundMethod, pixels: torch.Tensor) -> None:
    plain, adapted = (predict(variant(tiny, name), pixels[:4]) for name in ("dual_image", "dual_image_tta"))
    torch.testing.assert_close(plain.scores, adapted.scores)
    assert (plain.maps - adapted.maps).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("dual_image", "n_references", 2),
        ("dual_image", "temperature", 0.02),
        ("dual_image", "layers", [2, 3]),
        ("dual_image", "sides", [5]),
        ("dual_image", "fusion", "text"),
        ("dual_image", "fusion", "match"),
        ("dual_image", "weight", 0.2),
        ("dual_image", "scale", 0.1),
        ("dual_image", "sigma", 0.0),
        ("dual_image", "prompts", "winclip"),
        ("dual_image", "adapt", True),
        ("dual_image_tta", "copies", 1),
        ("dual_image_tta", "steps", 1),
        ("dual_image_tta", "lr", 0.02),
        ("dual_image_tta", "blend", 1.0),
    ],
)
def test_every_key_changes_the_map(tiny: BoundMethod, pixels: torch.Tensor, name: str, key: str, value: object) -> None:
    base, changed = (predict(variant(tiny, name, **keys), pixels[:5]) for keys in ({}, {key: value}))
    assert (changed.maps - base.maps).abs().max() > 1e-7


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_references", 0),
        ("temperature", 0.0),
        ("layers", [9]),
        ("sides", [2]),
        ("fusion", "sum"),
        ("weight", 1.5),
        ("scale", 0.0),
        ("sigma", -1.0),
        ("copies", 0),
        ("steps", 0),
        ("lr", 0.0),
        ("blend", 2.0),
    ],
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("dual_image", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)

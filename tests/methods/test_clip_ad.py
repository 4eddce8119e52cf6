"""SDP against the outputs of the official CLIP-AD code, and its properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from tests.helpers.recorded_clip import recorded_encoder, recorded_images
from tests.helpers.recordings import assert_recorded
from zsad_bench import load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, FeatureRequest, Prediction, TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.methods.clip_ad_text import TextVector, dbscan_labels, representative
from zsad_bench.metrics import image_metrics, pixel_metrics
from zsad_bench.text.ensembles import load_ensemble

CLASSES = ["bottle", "carpet", "pcb1", "metal nut"]  # image i of the golden run belongs to class i
STAGE_ENDS = (3, 6, 9, 12)
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def encoder(golden_clipad: Path) -> ClipEncoder:
    return recorded_encoder(golden_clipad)


@pytest.fixture(scope="module")
def images(golden_clipad: Path) -> torch.Tensor:
    return recorded_images(golden_clipad)


@pytest.fixture(scope="module")
def text(golden_clipad: Path) -> Arrays:
    return dict(np.load(golden_clipad / "clipad_text.npz"))


@pytest.fixture(scope="module")
def features(golden_clipad: Path) -> Arrays:
    return dict(np.load(golden_clipad / "clipad_features.npz"))


@pytest.fixture(scope="module")
def sdp(golden_clipad: Path) -> Arrays:
    return dict(np.load(golden_clipad / "clipad_sdp.npz"))


@pytest.fixture(scope="module")
def batch(encoder: ClipEncoder, images: torch.Tensor) -> FeatureBatch:
    """The golden images with the taps of the official and of the clean variant."""
    requests = [load_method(name, encoder=encoder).method.request() for name in ("clip_ad", "clip_ad_paper")]
    return encoder.encode(images, FeatureRequest(taps=tuple(tap for request in requests for tap in request.taps)))


def one(batch: FeatureBatch, index: int) -> FeatureBatch:
    """A batch of a single image."""
    part = slice(index, index + 1)
    tokens = {tap: values[part] for tap, values in batch.tokens.items()}
    return replace(batch, image_ids=batch.image_ids[part], class_tokens=batch.class_tokens[part], tokens=tokens)


def prompts_of(encoder: ClipEncoder, name: str) -> TextFeatures:
    return encoder.texts.features(load_ensemble("clip_ad"), name)


@pytest.mark.parametrize("position", range(4), ids=CLASSES)
def test_prompts_and_their_embeddings(encoder: ClipEncoder, text: Arrays, position: int) -> None:
    written = load_ensemble("clip_ad").write(CLASSES[position])
    embeddings = prompts_of(encoder, CLASSES[position])
    for state, prompts in zip(("normal", "abnormal"), written, strict=True):
        expected = text[f"tokens_{state}"][position]
        tokens = encoder.tokenizer(prompts).numpy()
        np.testing.assert_array_equal(tokens[:, : expected.shape[1]], expected)
        assert not tokens[:, expected.shape[1] :].any()
        np.testing.assert_allclose(getattr(embeddings, state), text[f"emb_raw_{state}"][position], atol=1e-4)


def test_folder_names_are_the_only_difference_of_the_official_prompts() -> None:
    readable, folder = load_ensemble("clip_ad"), load_ensemble("clip_ad_folder")
    assert replace(folder, name="clip_ad", class_names="readable") == readable


@pytest.mark.parametrize(
    ("golden", "choice", "eps", "min_samples"),
    [
        ("mean", "mean", 0.5, 15),
        ("pca", "pca", 0.5, 15),
        ("kde", "kde", 0.5, 15),
        ("mean_shift", "mean_shift", 0.5, 15),
        ("dbscan_mvtec", "dbscan", 0.5, 15),
        ("dbscan_visa", "dbscan", 1.5, 25),
    ],
)
def test_text_vectors(text: Arrays, golden: str, choice: str, eps: float, min_samples: int) -> None:
    for position in range(1 if choice == "mean_shift" else 4):  # mean shift is slow
        for column, state in enumerate(("normal", "abnormal")):
            embeddings = torch.from_numpy(text[f"emb_raw_{state}"][position])
            vector = representative(embeddings, choice, eps, min_samples)
            np.testing.assert_allclose(vector, text[f"feat_{golden}"][position][:, column], atol=5e-6)
            if choice == "mean_shift":
                assert not text[f"labels_{golden}_{state}"].any(), "one cluster, so the mean"
            if choice == "dbscan":
                labels = dbscan_labels(embeddings, eps, min_samples)
                np.testing.assert_array_equal(labels, text[f"labels_{golden}_{state}"][position])


def test_stage_features(encoder: ClipEncoder, batch: FeatureBatch, features: Arrays) -> None:
    """Projected tokens of the staged stream; class rows with the official code's in-place side effect, and without."""
    official = load_method("clip_ad_paper", encoder=encoder).method
    clean = load_method("clip_ad", encoder=encoder).method
    for stage, block in enumerate(STAGE_ENDS):
        expected = features["surgery_raw"][stage]
        assert_recorded(batch.patches(official.dual_tap(block)), expected[:, 1:], atol=5e-4)
        row = batch.class_token(official.ordinary_tap(block, projected=True))
        np.testing.assert_allclose(row, expected[:, 0], atol=5e-4)
        difference = (batch.class_token(clean.ordinary_tap(block, projected=True)) - row).abs().max()
        assert (difference < 1e-5) if block == 12 else (difference > 0.1)


def test_raw_tokens(encoder: ClipEncoder, images: torch.Tensor, features: Arrays) -> None:
    """Ordinary tokens in the tower's width, as SDP+ and the class rows take them: o_l and the unaliased h_l."""
    official = load_method("clip_ad_paper", encoder=encoder).method
    clean = load_method("clip_ad", encoder=encoder).method
    aliased_taps = [official.ordinary_tap(block, projected=False) for block in STAGE_ENDS]
    clean_taps = [clean.ordinary_tap(block, projected=False) for block in STAGE_ENDS]
    streams = [replace(clean.dual_tap(block), projected=False) for block in STAGE_ENDS]
    raw = encoder.encode(images, FeatureRequest(taps=(*aliased_taps, *clean_taps, *streams)))
    for stage in range(4):
        aliased = raw.tokens[aliased_taps[stage]]
        assert_recorded(aliased[:2], features["ori_raw_img01"][stage], atol=1e-3)
        np.testing.assert_allclose(aliased[:, 0], features["ori_raw_cls"][stage], atol=1e-3)
        np.testing.assert_allclose(aliased[:, 1:].mean(dim=1), features["ori_raw_patchmean"][stage], atol=1e-3)
        np.testing.assert_allclose(
            raw.tokens[clean_taps[stage]][:, :9], features["ori_unaliased_first9"][stage], atol=1e-3
        )
        np.testing.assert_allclose(
            raw.tokens[streams[stage]][:, :9], features["vv_path_width_first9"][stage], atol=1e-3
        )


@pytest.mark.parametrize("text_vector", ["mean", "dbscan"])
def test_maps_and_both_terms(encoder: ClipEncoder, batch: FeatureBatch, sdp: Arrays, text_vector: str) -> None:
    method = load_method("clip_ad_paper", encoder=encoder, text_vector=text_vector).method
    for image, name in enumerate(CLASSES):
        method.prepare(prompts_of(encoder, name))
        single = one(batch, image)
        similarity = torch.zeros(226)
        for block in STAGE_ENDS:
            row = single.class_token(method.ordinary_tap(block, projected=True))
            tokens = torch.cat([row[:, None], single.patches(method.dual_tap(block))], dim=1)
            similarity += method.surgery(tokens, row)[0]
        expected = sdp[f"sdp_{text_vector}_similarity"][image]
        np.testing.assert_allclose(similarity, expected[:, 1], atol=5e-6)
        np.testing.assert_allclose(-similarity, expected[:, 0], atol=5e-6)
        raw = method.raw_maps(single)[0]
        if text_vector == "mean" and image < 2:
            assert_recorded(raw, sdp["sdp_mean_map_raw_img01"][image], atol=5e-6)
        limits = sdp[f"sdp_{text_vector}_map_raw_minmax"][image]
        np.testing.assert_allclose([raw.min(), raw.max()], limits, atol=5e-6)
        prediction = method.predict(single)
        assert_recorded(prediction.maps[0], sdp[f"sdp_{text_vector}_map_smooth"][image], atol=5e-6)
        np.testing.assert_allclose(float(prediction.scores), sdp[f"sdp_{text_vector}_score_text"][image], atol=2e-5)
        np.testing.assert_allclose(prediction.maps.max(), sdp[f"sdp_{text_vector}_score_mapmax"][image], atol=5e-6)


def test_scores_of_a_category(encoder: ClipEncoder, images: torch.Tensor, sdp: Arrays) -> None:
    """Four images as one category, through the public API only."""
    expected = {"sum": "final", "text": "text", "map": "mapmax"}
    for fusion, golden in expected.items():
        bound = load_method("clip_ad_paper", encoder=encoder, text_vector="mean", fusion=fusion)
        scores = bound.predict_images(images, "bottle").scores.numpy()
        terms = sdp[f"sameclass_score_{golden}"]
        if fusion != "sum":
            terms = (terms - terms.min()) / (terms.max() - terms.min())
        np.testing.assert_allclose(scores, terms, atol=5e-5)


def test_metrics_of_a_category(encoder: ClipEncoder, images: torch.Tensor, sdp: Arrays, golden_clipad: Path) -> None:
    """The official metrics of that category: pixel AUROC, F1-max, AP, image AUROC, F1-max, AP, in percent."""
    prediction = load_method("clip_ad_paper", encoder=encoder, text_vector="mean").predict_images(images, "bottle")
    masks = np.load(golden_clipad / "inputs.npz")["masks"][:, 0] > 0
    # Their images 0 and 2 are normal, and their masks are counted all the same.
    found = {
        **pixel_metrics(masks, prediction.maps.numpy()),
        **image_metrics(np.array([0, 1, 0, 1]), prediction.scores.numpy()),
    }
    names = ("pixel_auroc", "pixel_f1max", "pixel_ap", None, "image_auroc", "image_f1max", "image_ap")
    for name, expected in zip(names, sdp["sameclass_metrics"], strict=True):
        if name:
            assert 100 * found[name] == pytest.approx(expected, abs=0.051), name


def test_single_score_is_the_sum_of_log_odds(encoder: ClipEncoder, batch: FeatureBatch, sdp: Arrays) -> None:
    """The single-image score from the recorded terms of the official run."""
    method = load_method("clip_ad", encoder=encoder, reference_quirks=True).method
    for image, name in enumerate(CLASSES):
        method.prepare(prompts_of(encoder, name))
        a, b = (float(sdp[f"sdp_mean_score_{term}"][image]) for term in ("text", "mapmax"))
        score = float(method.predict(one(batch, image)).scores)
        assert score == pytest.approx(np.log(a / (1 - a)) + 2 * b / 4 / 0.01, abs=2e-2)


@pytest.fixture(scope="module")
def tiny(tiny_encoder: ClipEncoder) -> BoundMethod:
    return load_method("clip_ad", encoder=tiny_encoder)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_vector", "pca"),
        ("text_vector", "kde"),
        ("stages", 2),
        ("layers", [2, 4]),
        ("class_weights", False),
        ("sigma", 2.0),
        ("prompts", "winclip"),
        ("reference_quirks", True),
    ],
)
def test_every_key_changes_the_map(tiny: BoundMethod, pixels: torch.Tensor, key: str, value: object) -> None:
    changed = load_method("clip_ad", encoder=tiny.encoder, **{key: value}).predict_images(pixels, "plate")
    assert (changed.maps - tiny.predict_images(pixels, "plate").maps).abs().max() > 1e-6
    assert changed.maps.isfinite().all()


@pytest.mark.parametrize(("key", "value"), [("temperature", 0.1), ("fusion", "text"), ("fusion", "map")])
@pytest.mark.parametrize("name", ["clip_ad", "clip_ad_transductive"])
def test_every_key_changes_the_score(
    tiny_encoder: ClipEncoder, pixels: torch.Tensor, name: str, key: str, value: object
) -> None:
    plain = load_method(name, encoder=tiny_encoder).predict_images(pixels, "plate")
    changed = load_method(name, encoder=tiny_encoder, **{key: value}).predict_images(pixels, "plate")
    assert (changed.scores - plain.scores).abs().max() > 1e-5
    assert torch.equal(changed.maps, plain.maps)


def test_dbscan_settings_change_the_vector() -> None:
    random = torch.Generator().manual_seed(3)
    near = torch.randn(40, 16, generator=random) * 0.1 + torch.eye(16)[0]
    far = torch.randn(25, 16, generator=random) * 0.1 + torch.eye(16)[1]
    embeddings = torch.cat([near, far])
    loose, tight = representative(embeddings, "dbscan", 1.5, 15), representative(embeddings, "dbscan", 0.6, 15)
    assert tight[0] > 0.9 > loose[0]
    assert torch.equal(loose, representative(embeddings, "dbscan", 1.5, 25))
    crowd = dbscan_labels(embeddings, 0.6, 30)
    assert (crowd[40:] == -1).all()
    assert (crowd[:40] >= 0).any()


def test_text_vectors_are_unit_and_agree_on_equal_prompts() -> None:
    same = torch.eye(8)[:1].repeat(30, 1) * 3
    for choice in get_args(TextVector):
        if choice != "pca":  # equal prompts have equal means, so their one component is the centred vector
            torch.testing.assert_close(representative(same, choice), torch.eye(8)[0])
        assert float(representative(same, choice).norm()) == pytest.approx(1)


def test_all_noise_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"method\.text_vector=dbscan: all 10 prompts"):
        representative(torch.eye(10), "dbscan", 0.5, 15)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_vector", "median"),
        ("fusion", "max"),
        ("dbscan_eps", 0.0),
        ("dbscan_min_samples", 0),
        ("temperature", -1.0),
        ("stages", 0),
        ("stages", 3),
        ("layers", []),
        ("layers", [5]),
        ("layers", [4, 4]),
        ("sigma", -1.0),
        ("prompts", "nothing"),
    ],
)
def test_bad_settings_are_one_line(tiny_encoder: ClipEncoder, key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"method.{key}") as caught:
        load_method("clip_ad", encoder=tiny_encoder, **{key: value})
    assert "\n" not in str(caught.value)


def test_constant_terms_count_as_zero(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    bound = load_method("clip_ad_transductive", encoder=tiny_encoder)
    assert bound.predict_images(pixels[:1], "plate").scores.tolist() == [0.0]
    twice = bound.predict_images(pixels[:1].repeat(2, 1, 1, 1), "plate").scores
    assert twice.isfinite().all()


def test_finalize_does_not_depend_on_batches(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    bound = load_method("clip_ad_transductive", encoder=tiny_encoder)
    whole = bound.predict_images(pixels, "plate")
    assert whole.scores.min() >= 0
    assert whole.scores.max() <= 2
    method, request = bound.method, bound.method.request()
    parts = [method.predict(tiny_encoder.encode(part, request)) for part in pixels.split(2)]
    final = list(method.finalize(parts))
    torch.testing.assert_close(torch.cat([part.scores for part in final]), whole.scores, atol=1e-5, rtol=0)


def test_finalize_is_the_published_formula(tiny: BoundMethod) -> None:
    method = load_method("clip_ad_transductive", encoder=tiny.encoder).method
    maps = torch.tensor([0.0, 3.0, 1.0]).view(3, 1, 1)
    (final,) = method.finalize([Prediction(torch.tensor([0.2, 0.6, 1.0]), maps)])
    torch.testing.assert_close(final.scores, torch.tensor([0.0, 0.5 + 1.0, 1.0 + 1 / 3]))


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_constant_images_give_finite_results(tiny: BoundMethod, value: float) -> None:
    prediction = tiny.predict_images(torch.full((2, 3, 48, 48), value), "plate")
    assert prediction.maps.isfinite().all()
    assert prediction.scores.isfinite().all()

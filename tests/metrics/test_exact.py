"""Exact metrics against golden values, scikit-learn, a brute force and sums done by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsad_bench.metrics import image_metrics, pixel_metrics, undefined_reasons
from zsad_bench.metrics import ranked as metrics_module

EXACT = 1e-9
PIXEL_KEYS = ["pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"]


# --- golden values ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(golden_winclip):
    return np.load(golden_winclip / "metrics.npz"), json.loads((golden_winclip / "metrics.json").read_text())


@pytest.mark.parametrize("case", ["plain", "ties", "whole", "skew"])
def test_golden_case_matches(golden, case):
    arrays, expected = golden
    pixel = pixel_metrics(arrays[f"{case}_masks"], arrays[f"{case}_maps"], sweep200=True)
    image = image_metrics(arrays[f"{case}_img_labels"], arrays[f"{case}_img_scores"])
    for name in ("auroc", "ap", "f1max"):
        assert pixel[f"pixel_{name}"] == pytest.approx(expected[case]["pixel"]["sklearn"][name], abs=EXACT)
        assert image[f"image_{name}"] == pytest.approx(expected[case]["image"]["sklearn"][name], abs=EXACT)
    aupro = expected[case]["aupro"]
    assert pixel["pixel_aupro"] == pytest.approx(aupro["exact_conn8_limit0.3"], abs=EXACT)
    assert pixel["pixel_aupro_sweep200"] == pytest.approx(aupro["legacy200"], abs=1e-12)
    assert undefined_reasons(pixel | image, arrays[f"{case}_masks"]) == {}


def test_golden_case_without_anomaly_is_nan_with_reason(golden):
    arrays, expected = golden
    pixel = pixel_metrics(arrays["noanom_masks"], arrays["noanom_maps"], sweep200=True)
    image = image_metrics(arrays["noanom_img_labels"], arrays["noanom_img_scores"])
    assert np.isnan(expected["noanom"]["aupro"]["legacy200"])
    assert np.isnan([*pixel.values(), *image.values()]).all()
    assert set(undefined_reasons(pixel, arrays["noanom_masks"])) == set(pixel)
    assert set(undefined_reasons(image, arrays["noanom_img_labels"])) == set(image)


def test_golden_constant_map_has_exact_values_but_no_sweep(golden):
    arrays, expected = golden
    masks = arrays["plain_masks"]
    for level in (0.0, 0.25, -3.0):
        got = pixel_metrics(masks, np.full(masks.shape, level, np.float32), sweep200=True)
        for name in ("auroc", "ap", "f1max"):
            assert got[f"pixel_{name}"] == pytest.approx(expected["constant_map"]["sklearn_px"][name], abs=EXACT)
        assert got["pixel_aupro"] == pytest.approx(expected["constant_map"]["exact"], abs=EXACT)
        assert list(undefined_reasons(got, masks)) == ["pixel_aupro_sweep200"]


# --- independent computations -----------------------------------------------------------------------------------------


def sklearn_values(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nanmax(2 * precision * recall / (precision + recall))
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), f1


def regions_of(masks):
    """Boolean masks of all 8-connected regions, each with its image's index."""
    found = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        found += [(index, labels == number) for number in range(1, count + 1)]
    return found


def brute_aupro(masks, maps, limit=0.3):
    """Every distinct threshold x every region, as the definition reads."""
    normal = sum(int((~mask).sum()) for mask in masks)
    regions = regions_of(masks)
    fpr, overlap = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1]:
        fpr.append(
            sum(int((scores >= threshold)[~mask].sum()) for mask, scores in zip(masks, maps, strict=True)) / normal
        )
        overlap.append(np.mean([(maps[index][region] >= threshold).mean() for index, region in regions]))
    fpr, overlap = np.array(fpr), np.array(overlap)
    inside = fpr < limit
    # Of the points at exactly the limit the lowest counts, which is the one right behind those inside.
    first = np.argmin(inside)
    at_limit = overlap[first - 1] + (overlap[first] - overlap[first - 1]) * (limit - fpr[first - 1]) / (
        fpr[first] - fpr[first - 1]
    )
    return np.trapezoid(np.append(overlap[inside], at_limit), np.append(fpr[inside], limit)) / limit


def loop_sweep200(masks, maps):
    low, high = maps.min(), maps.max()
    regions = regions_of(masks)
    points = []
    for threshold in np.arange(low, high, (high - low) / 200):
        marked = maps > threshold
        points.append((marked[~masks].mean(), np.mean([marked[index][region].mean() for index, region in regions])))
    fpr, overlap = np.array([point for point in points if point[0] < 0.3]).T
    fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    return np.trapezoid(overlap[::-1], fpr[::-1])


def random_category(seed, levels=None, share=0.1, shape=(5, 17, 13), dtype=np.float32):
    rng = np.random.default_rng(seed)
    masks = ndimage.uniform_filter(rng.random(shape), (0, 3, 3))
    masks = masks > np.quantile(masks, 1 - share)
    masks[0] = False
    maps = rng.normal(size=shape) + masks
    if levels:
        maps = np.round(maps * levels) / levels
    return masks, maps.astype(dtype)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_equal_scikit_learn_brute_force_and_loops(share, levels, dtype):
    for seed in range(2):
        masks, maps = random_category(seed, levels, share, dtype=dtype)
        got = pixel_metrics(masks, maps, sweep200=True)
        expected = [*sklearn_values(masks.ravel(), maps.ravel()), brute_aupro(masks, maps)]
        assert [got[name] for name in PIXEL_KEYS] == pytest.approx(expected, abs=1e-12)
        assert got["pixel_aupro_sweep200"] == pytest.approx(loop_sweep200(masks, maps), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3])
def test_image_values_equal_scikit_learn(levels):
    rng = np.random.default_rng(1)
    for n in (2, 3, 10, 200):
        labels = np.arange(n) % 2
        scores = rng.normal(size=n)
        scores = np.round(scores * levels) / levels if levels else scores
        got = image_metrics(labels, scores)
        assert list(got) == ["image_auroc", "image_ap", "image_f1max"]
        assert list(got.values()) == pytest.approx(sklearn_values(labels, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_blocks_do_not_change_values(monkeypatch, levels):
    masks, maps = random_category(3, levels, share=0.4)
    whole = pixel_metrics(masks, maps, sweep200=True)
    for block in (1, 7, 100):
        monkeypatch.setattr(metrics_module, "_BLOCK", block)
        assert pixel_metrics(masks, maps, sweep200=True) == pytest.approx(whole, abs=1e-13)


def test_sweep_depends_on_calibration_and_exact_values_do_not():
    masks, maps = random_category(5, share=0.1)
    maps = 1 / (1 + np.exp(-3 * maps.astype(np.float64)))
    plain, sharp = pixel_metrics(masks, maps, sweep200=True), pixel_metrics(masks, maps**8, sweep200=True)
    assert [plain[name] for name in PIXEL_KEYS] == pytest.approx([sharp[name] for name in PIXEL_KEYS], abs=1e-12)
    assert abs(plain["pixel_aupro_sweep200"] - sharp["pixel_aupro_sweep200"]) > 0.01


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_image_metrics_by_hand():
    # Falling scores: 1 0 1 0. Pairs in order: 2 + 1 of 4. AP = (1/1 + 2/3) / 2. F1 at the third = 2 x 2 / (3 + 2).
    got = image_metrics([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
    assert got == pytest.approx({"image_auroc": 3 / 4, "image_ap": 5 / 6, "image_f1max": 4 / 5})
    # One tie between a positive and a negative counts half; AP takes both at one threshold.
    assert image_metrics([1, 0], [0.5, 0.5]) == pytest.approx(
        {"image_auroc": 0.5, "image_ap": 0.5, "image_f1max": 2 / 3}
    )


def test_aupro_by_hand():
    # Ten normal pixels; two regions, of 2 pixels (big) and of 1 (small). Falling scores: big 10, normal 9, small 8,
    # normal 7, at 6 the other half of big ties with two normal pixels, the rest is below. The limit is 3 of 10 normal.
    mask = np.zeros((1, 13), np.uint8)
    mask[0, [0, 1]], mask[0, 3] = 255, 1
    scores = np.array([[10, 6, 9, 8, 7, 6, 6, 5, 4, 3, 2, 1, 0]], np.float32)
    # Overlap 1/4 from 0 to 1, 3/4 from 1 to 2, then a line from (2, 3/4) to (4, 1): 7/8 at 3.
    area = 1 / 4 + 3 / 4 + (3 / 4 + 7 / 8) / 2
    assert pixel_metrics([mask], [scores])["pixel_aupro"] == pytest.approx(area / 3, abs=1e-15)


def test_regions_are_eight_connected_and_weigh_the_same():
    mask = np.eye(6, dtype=bool)  # one diagonal chain: 4-connectivity would see six regions
    mask[0, 4:] = True  # a second region
    scores = np.zeros((6, 6))
    scores[0, 4:] = 1.0  # the second region found before any false positive, the first together with all normal pixels
    expected = 1 / 2 + 1 / 2 * 0.3 / 2
    assert pixel_metrics(mask[None], scores[None])["pixel_aupro"] == pytest.approx(expected, abs=1e-15)


def test_regions_do_not_join_across_images():
    masks = np.zeros((2, 2, 2), bool)
    masks[:, 0, 0] = True
    masks[1, 1] = True  # areas 1 and 3
    maps = np.zeros((2, 2, 2))
    maps[0, 0, 0] = 1
    assert pixel_metrics(masks, maps)["pixel_aupro"] == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-15)


def test_mask_that_is_anomalous_everywhere_is_one_region():
    masks, maps = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), np.float32)
    masks[1], maps[1] = True, 1.0
    assert pixel_metrics(masks, maps) == dict.fromkeys(PIXEL_KEYS, 1.0)


def test_normal_images_count_as_false_positives():
    masks, maps = random_category(0)
    louder = maps.copy()
    louder[0] = 100.0  # the normal image
    assert pixel_metrics(masks, louder)["pixel_aupro"] < pixel_metrics(masks, maps)["pixel_aupro"]


# --- undefined --------------------------------------------------------------------------------------------------------


def test_category_without_normal_images_or_pixels():
    image = image_metrics([1, 1, 1], [0.1, 0.5, 0.5])
    assert np.isnan(image["image_auroc"])
    assert (image["image_ap"], image["image_f1max"]) == (1.0, 1.0)
    assert undefined_reasons(image, [1, 1, 1]) == {"image_auroc": "no normal image in the category"}
    masks = [np.ones((2, 3), np.uint8), np.ones((4, 4), np.uint8)]
    pixel = pixel_metrics(masks, [np.random.default_rng(0).random(mask.shape) for mask in masks], sweep200=True)
    assert (pixel["pixel_ap"], pixel["pixel_f1max"]) == (1.0, 1.0)
    no_normal = "no normal pixel in the category"
    assert undefined_reasons(pixel, masks) == dict.fromkeys(
        ["pixel_auroc", "pixel_aupro", "pixel_aupro_sweep200"], no_normal
    )


@pytest.mark.parametrize("truth", [[0, 0], np.zeros(2, bool)])
def test_category_without_anomalous_images(truth):
    got = image_metrics(truth, [0.1, 0.2])
    assert np.isnan(list(got.values())).all()
    assert undefined_reasons(got, truth) == dict.fromkeys(got, "no anomalous image in the category")


@pytest.mark.parametrize(
    "scores",
    [
        np.array([[0, 0, 0, 0, 0, 1e9]], np.float32),  # every threshold marks the one outlier only
        np.array([[0, 1e-45, 0, 0, 0, 0]], np.float32),  # the step underflows to 0
        np.array([[-3e38, 3e38, 0, 0, 0, 0]], np.float32),  # the range overflows float32
    ],
)
def test_sweep_without_two_false_positive_rates_is_nan(scores):
    mask = np.array([[1, 1, 0, 0, 0, 0]])
    got = pixel_metrics(mask[None], scores[None], sweep200=True)
    assert np.isfinite([got[name] for name in PIXEL_KEYS]).all()
    assert list(undefined_reasons(got, mask[None])) == ["pixel_aupro_sweep200"]


# --- kinds of input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_of_any_float_type(dtype):
    torch = pytest.importorskip("torch")
    masks, maps = random_category(2)
    tensor = torch.from_numpy(maps).to(getattr(torch, dtype)).requires_grad_()
    expected = pixel_metrics(masks, tensor.detach().double().numpy(), sweep200=False)
    assert pixel_metrics(torch.from_numpy(masks), tensor) == expected
    assert pixel_metrics(list(torch.from_numpy(masks.astype(np.uint8))), list(tensor)) == expected
    labels, scores = masks.any(axis=(1, 2)), tensor.amax(dim=(1, 2))
    expected = image_metrics(labels, scores.detach().double().numpy())
    assert image_metrics(torch.from_numpy(labels), scores) == expected
    assert image_metrics(torch.from_numpy(labels).float(), scores) == expected


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.float16, np.int16, np.int64, np.uint8])
def test_numpy_types(dtype):
    masks, maps = random_category(2)
    maps = (10 * (maps + 5)).astype(dtype)
    assert pixel_metrics(masks, maps) == pixel_metrics(masks.astype(np.int32) * 7, maps.astype(np.float64))


def test_float64_values_are_not_merged():
    scores = 1.0 + np.array([3, 2, 1, 0]) * 1e-12  # one value in float32
    assert image_metrics([1, 1, 0, 0], scores)["image_auroc"] == 1.0
    masks = np.array([[[1, 1], [0, 0]]])
    assert pixel_metrics(masks, scores.reshape(1, 2, 2))["pixel_aupro"] == 1.0
    mixed = [scores.reshape(2, 2), np.zeros((2, 2), np.float32)]
    assert pixel_metrics([masks[0], np.zeros((2, 2))], mixed)["pixel_auroc"] == 1.0


def test_images_of_different_sizes_are_pooled():
    masks, maps = random_category(4, share=0.3)
    expected = pixel_metrics(masks, maps, sweep200=True)
    assert pixel_metrics(list(masks), tuple(maps), sweep200=True) == expected
    # The normal image cut in two has the same pixels, in other shapes.
    split_masks = [masks[0][:5], masks[0][5:], *masks[1:]]
    split_maps = [maps[0][:5], maps[0][5:], *maps[1:]]
    assert pixel_metrics(split_masks, split_maps, sweep200=True) == expected


def test_inputs_stay_untouched_and_views_work():
    masks, maps = random_category(6)
    wide_masks, wide_maps = np.repeat(masks, 2, axis=2), np.repeat(maps, 2, axis=2)
    wide_maps.flags.writeable = wide_masks.flags.writeable = False
    before = wide_maps.copy()
    assert pixel_metrics(wide_masks[:, :, ::2], wide_maps[:, :, ::2]) == pixel_metrics(masks, maps)
    assert np.array_equal(before, wide_maps)


@pytest.mark.parametrize("share", [0.03, 0.3])
def test_peak_memory_is_below_three_times_the_maps(share):
    masks, maps = random_category(0, share=share, shape=(20, 128, 128))
    tracemalloc.start()
    pixel_metrics(masks, maps, sweep200=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * maps.nbytes


def test_import_does_not_load_torch():
    code = "import sys, zsad_bench.metrics.exact; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "no image"),
        ([0, 1], [0.5], "2 labels but 1 scores"),
        ([[0, 1]], [[0.1, 0.2]], "one dimension"),
        ([0, 2], [0.1, 0.2], "labels must hold only 0"),
        ([0, 255], [0.1, 0.2], "labels must hold only 0"),
        ([0.0, np.nan], [0.1, 0.2], "labels must hold only 0"),
        ([0, 1, 1], [np.nan, 0.2, np.inf], "2 of 3 scores are not finite"),
        ([0, 1, 0], [0.1, 0.2, -np.inf], "1 of 3 scores are not finite"),
        ([0, 0], [0.1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1], ["a", "b"], "real numbers"),
        ([0, 1], [1j, 2j], "real numbers"),
    ],
)
def test_image_metrics_refuses(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        image_metrics(labels, scores)


@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), "no image"),
        ([], [], "no image"),
        (np.zeros((2, 0, 4)), np.zeros((2, 0, 4)), "at least one pixel"),
        (np.zeros((4, 4)), np.zeros((4, 4)), "masks must have three dimensions"),
        (np.zeros((2, 4, 4)), np.zeros((2, 1, 4, 4)), "maps must have three dimensions"),
        ([np.zeros((1, 4, 4))], [np.zeros((1, 4, 4))], "image 0: .* two dimensions"),
        (np.zeros((2, 4, 4)), np.zeros((3, 4, 4)), "2 masks but 3 maps"),
        (
            [np.zeros((4, 4)), np.zeros((4, 4))],
            [np.zeros((4, 4)), np.zeros((4, 5))],
            r"image 1: .*\(4, 4\) and \(4, 5",
        ),
        (np.full((1, 2, 2), 0.5), np.zeros((1, 2, 2)), "float masks must hold only 0"),
        (np.eye(2)[None], np.full((1, 2, 2), np.nan), "4 of 4 scores are not finite"),
        (np.eye(2)[None], np.array([[[0, np.inf], [1, -np.inf]]]), "2 of 4 scores are not finite"),
        (np.eye(2)[None], np.array([[[np.nan, 0], [1, 2]]], np.float32), "1 of 4 scores are not finite"),
        (np.eye(2)[None], np.zeros((1, 2, 2), complex), "real numbers"),
    ],
)
def test_pixel_metrics_refuses(masks, maps, message):
    with pytest.raises(ValueError, match=message):
        pixel_metrics(masks, maps)

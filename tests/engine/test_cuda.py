"""What only a GPU can show: ``make test-cuda``, or ``pytest -m cuda``.

These tests have never run on a GPU: none was at hand when they were written. Their bodies have run on a CPU, with
``ZSAD_TEST_DEVICE=cpu``; ``ZSAD_TEST_DEVICE=cuda:1`` chooses a card. Without either they are skipped.

Tolerances, all for float32 (TF32 is not used): ``GOLDEN`` for the outputs of official codes, which ran on a CPU, and
for every method of the registry on both devices; ``DEMO_SCORE`` and ``DEMO_METRIC`` for the demo, whose features are
rounded to float16 before they are used, so that a last bit more or less becomes one of 11.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from tests.helpers.recorded_clip import recorded_encoder, recorded_images
from tests.helpers.recordings import assert_recorded
from tests.helpers.registry import NAMES, assert_same, config_of, make, names, photos
from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench import load_encoder, load_method
from zsad_bench.contract import FeatureRequest, Prediction, Tap
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.methods.clip_ad_plus import ClipADPlus
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.toolkit.taps import VALUE_VALUE
from zsad_bench.training.checkpoint import Checkpoint, encoder_facts

DEVICE = os.environ.get("ZSAD_TEST_DEVICE", "cuda")
ON_GPU = DEVICE.startswith("cuda")
GOLDEN = 1e-4
DEMO_SCORE = 0.02  # of the range of a row's scores
DEMO_METRIC = 3.0  # points; among 12 images one pair that changes places is worth 3

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]

Arrays = dict[str, np.ndarray]
WINCLIP_CLASSES = ["bottle", "carpet", "pcb1", "metal nut", "metal_nut"]
CLIP_AD_CLASSES = ["bottle", "carpet", "pcb1", "metal nut"]


@pytest.fixture(scope="module")
def winclip_encoder(golden_winclip: Path) -> ClipEncoder:
    return recorded_encoder(golden_winclip, DEVICE)


@pytest.fixture(scope="module")
def clipad_encoder(golden_clipad: Path) -> ClipEncoder:
    return recorded_encoder(golden_clipad, DEVICE)


@pytest.fixture(scope="module")
def clipad_images(golden_clipad: Path) -> torch.Tensor:
    return recorded_images(golden_clipad)


def recorded(folder: Path, name: str) -> Arrays:
    return dict(np.load(folder / f"{name}.npz"))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("winclip_zqhang", "zq_img_score"),
        ("winclip_mala", "ma_img_score"),
        ("winclip_caoyunkang", "cy_img_score"),
        ("winclip_fewshot_zqhang", "zq_fs_img_score"),
        ("winclip_fewshot_mala", "ma_fs_img_score"),
        ("winclip_fewshot_anomalib", "an_fs_img_score"),
        ("winclip_fewshot_caoyunkang", "cy_fs_img_score"),
    ],
)
def test_winclip_is_the_four_codes(golden_winclip: Path, winclip_encoder: ClipEncoder, name: str, key: str) -> None:
    golden, inputs = recorded(golden_winclip, "winclip"), recorded(golden_winclip, "inputs")
    images, reference = torch.from_numpy(inputs["images"]), torch.from_numpy(inputs["images_extra"][:1])
    bound = load_method(name, winclip_encoder)
    # One of the codes writes underscores as spaces, so that its last two classes are one.
    count = 4 if "mala" in name else len(WINCLIP_CLASSES)
    for class_name, expected in zip(WINCLIP_CLASSES[:count], golden[key][:count], strict=True):
        references = reference if bound.method.k_shot else None
        found = bound.predict_images(images, class_name, references=references)
        np.testing.assert_allclose(found.scores, expected, atol=GOLDEN)


def test_musc_is_the_official_code(golden_winclip: Path, winclip_encoder: ClipEncoder) -> None:
    golden, inputs = recorded(golden_winclip, "musc"), recorded(golden_winclip, "inputs")
    images = torch.from_numpy(np.concatenate([inputs["images"], inputs["images_extra"]]))
    found = load_method("musc_paper", winclip_encoder).predict_images(images, "bottle")
    assert_recorded(found.maps[0], golden["map240_img0"], GOLDEN)
    np.testing.assert_allclose(found.scores, golden["rscin_k1_2_3"], atol=GOLDEN)


@pytest.mark.parametrize("text_vector", ["mean", "dbscan"])
def test_clip_ad_is_the_official_code(
    golden_clipad: Path, clipad_encoder: ClipEncoder, clipad_images: torch.Tensor, text_vector: str
) -> None:
    golden = recorded(golden_clipad, "clipad_sdp")
    bound = load_method("clip_ad_paper", clipad_encoder, text_vector=text_vector)
    for image, class_name in enumerate(CLIP_AD_CLASSES):
        found = bound.predict_images(clipad_images[image : image + 1], class_name)
        assert_recorded(found.maps[0], golden[f"sdp_{text_vector}_map_smooth"][image], GOLDEN)


def test_clip_ad_plus_is_the_official_code(
    golden_clipad: Path, clipad_encoder: ClipEncoder, clipad_images: torch.Tensor, tmp_path: Path
) -> None:
    golden = recorded(golden_clipad, "clipad_sdpplus")
    learner = ClipADPlus(reference_quirks=True)
    layers = [name for name, _ in learner.begin_training(clipad_encoder.spec, seed=0).named_parameters()]
    tensors = {name: torch.from_numpy(golden[f"linear_fc.{name}"]) for name in layers}
    path = tmp_path / "layers.safetensors"
    Checkpoint(tensors, {**learner.must_match(), **encoder_facts(clipad_encoder.spec)}).save(path)
    bound = load_method("clip_ad_plus_paper", clipad_encoder, checkpoint=str(path), text_vector="mean", sigma=8.0)
    for image, class_name in enumerate(CLIP_AD_CLASSES):
        found = bound.predict_images(clipad_images[image : image + 1], class_name)
        np.testing.assert_allclose(found.maps.max(), golden["score_mapmax_smooth8"][image], atol=2 * GOLDEN)


def test_anoclip_is_the_official_code(
    golden_clipad: Path, clipad_encoder: ClipEncoder, clipad_images: torch.Tensor
) -> None:
    maps, views = recorded(golden_clipad, "anovl_maps"), recorded(golden_clipad, "anovl_aug")
    bound = load_method("anoclip", clipad_encoder)
    for image, class_name in enumerate(CLIP_AD_CLASSES):
        one = clipad_images[image : image + 1]
        found = bound.predict_images(one, class_name, is_texture=class_name == "carpet")
        np.testing.assert_allclose(found.scores, views["image_score"][image : image + 1], atol=GOLDEN)
        assert_recorded(found.maps[0], maps["map_noadapter"][image], GOLDEN)


def test_anoclip_adapts_as_the_official_code(
    golden_clipad: Path, clipad_encoder: ClipEncoder, clipad_images: torch.Tensor
) -> None:
    golden = recorded(golden_clipad, "anovl_adapter")
    method = load_method("anoclip_tta", clipad_encoder).method
    batch = clipad_encoder.encode(clipad_images[:1], FeatureRequest(taps=(VALUE_VALUE,)))
    method.prepare(clipad_encoder.texts.features(load_ensemble("anoclip"), "bottle"))
    start = tuple(torch.from_numpy(golden[f"init_{part}_0"]).to(batch.device) for part in ("weight", "bias"))
    noise = torch.from_numpy(golden["noise"][0]).flatten(1, 2).to(batch.device)
    result = method.adapt_tokens(batch.patches(VALUE_VALUE)[0], torch.Generator(), initial=start, noise=noise)
    np.testing.assert_allclose(result.losses.cpu(), golden["loss"][0], atol=GOLDEN)
    grid = method.patch_scores(result.tokens[None], batch.grid)
    np.testing.assert_allclose(grid[0].cpu(), golden["grid_pooled"][0], atol=GOLDEN)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_gives_the_results_of_the_cpu(name: str, tmp_path: Path) -> None:
    found = []
    for device in ("cpu", DEVICE):
        used = load_encoder(str(TINY_MODEL), None, device=device)
        method = make(config_of(name), tmp_path)
        method.prepare(used.texts.features(load_ensemble(method.prompts), "plate") if method.prompts else None)
        if method.k_shot:
            method.take_references(used.encode(photos(method.k_shot, seed=9), method.request()))
        parts = [method.predict(used.encode(photos(8), method.request(), names())) for _ in range(2)]
        last = list(method.finalize(parts))[-1]
        assert last.scores.device.type == last.maps.device.type == used.device.type
        found.append(Prediction(last.scores.cpu(), last.maps.cpu()))
    assert_same(found[1], found[0], GOLDEN)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["winclip", "clip_ad", "musc", "anoclip", "fiseclip"])
def test_sixteen_bits_rank_as_float32(name: str, precision: str) -> None:
    scores = []
    for kind in ("fp32", precision):
        used = load_encoder(str(TINY_MODEL), None, device=DEVICE, precision=kind)
        found = load_method(name, used).predict_images(photos(24, seed=6), "plate")
        assert torch.isfinite(found.maps).all()
        scores.append(found.scores)
    assert spearmanr(*scores).statistic > 0.98


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """This process may allocate so much more on the GPU, and no more: as on a card that others have nearly filled."""
    if not ON_GPU:
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    allowed = torch.cuda.memory_reserved(DEVICE) + (megabytes << 20)
    torch.cuda.set_per_process_memory_fraction(allowed / total, DEVICE)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


def test_a_chunk_that_does_not_fit_is_halved() -> None:
    """A tower that needs about 12 MiB an image, 256 images at once, and 512 MiB."""
    count, request = 256 if ON_GPU else 8, FeatureRequest(taps=(Tap(6),))
    pixels = torch.randn(count, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    calm = load_encoder("ViT-S-16", None, image_size=256, device=DEVICE, chunk_size=4).encode(pixels, request)
    expected = calm.to(torch.device("cpu"))
    del calm
    crowded = load_encoder("ViT-S-16", None, image_size=256, device=DEVICE, chunk_size=count)
    with little_memory(512):
        found = crowded.encode(pixels, request)
    assert not ON_GPU or crowded.chunks.size < count
    torch.testing.assert_close(found.class_tokens.cpu(), expected.class_tokens, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.tokens[Tap(6)].cpu(), expected.tokens[Tap(6)], atol=1e-3, rtol=1e-3)


SWEEP = [
    *("-m", "zsad_bench", "-m", "method=winclip,anoclip,clip_ad,musc,fiseclip,dual_image", "batch_size=1,4"),
    *("dataset=demo", "dataset.categories=[tile]", "limit=12", "maps=none", "encoder.precision=fp32"),
]
ROW = ["method", "batch_size", "category"]
SCORE = [*ROW, "image_id"]


def sweep(folder: Path, name: str, device: str, *keys: str) -> subprocess.Popen[bytes]:
    """A sweep of the demo in a process of its own."""
    environment = {**os.environ, "ZSAD_CACHE": str(folder / "cache" / device), "ZSAD_DATA": str(folder / "data")}
    arguments = [*SWEEP, f"name={name}", f"encoder.device={device}", *keys]
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def finish(*processes: subprocess.Popen[bytes]) -> None:
    assert [process.wait() for process in processes] == [0] * len(processes)


def table(folder: Path, name: str, file: str, index: Sequence[str]) -> pd.DataFrame:
    return pd.read_csv(folder / "results" / name / file).set_index(list(index)).sort_index()


def assert_same_sweep(folder: Path, one: str, other: str) -> None:
    """Scores within a share of the range of their row, metrics (in percent) within a few points."""
    first, second = (table(folder, name, "images.csv", SCORE)["score"] for name in (one, other))
    assert list(first.index) == list(second.index)
    ranges = first.groupby(level=ROW).transform(np.ptp)
    assert ((second - first).abs() <= DEMO_SCORE * ranges).all()
    before, after = (table(folder, name, "metrics.csv", ROW) for name in (one, other))
    for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
        assert (after[metric] - before[metric]).abs().max() <= DEMO_METRIC


def test_the_demo_on_the_gpu_is_the_demo_on_the_cpu(tmp_path: Path) -> None:
    finish(sweep(tmp_path, "here", "cpu"))
    finish(sweep(tmp_path, "there", DEVICE))
    assert_same_sweep(tmp_path, "here", "there")


def test_two_processes_share_a_gpu(tmp_path: Path) -> None:
    """Two sweeps at once, which share the stored features as well, give what one alone gives."""
    finish(sweep(tmp_path, "alone", DEVICE, "features=off"))
    finish(*(sweep(tmp_path, name, DEVICE) for name in ("first", "second")))
    assert_same_sweep(tmp_path, "alone", "first")
    assert_same_sweep(tmp_path, "alone", "second")

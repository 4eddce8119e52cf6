"""Everything of a method lies on the encoder's device, over the whole registry; no GPU is needed.

Every configuration of ``conf/method`` runs twice. Fake tensors on ``cuda`` are torch's own check. They have no values,
so two things are replaced: text vectors that scikit-learn chooses in ``prepare``, and the gradients of an adaptation,
for which torch asks the driver of a GPU. Pretended tensors (``devices.py``) have values: nothing is replaced there, and
the results must be those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.devices import (
    PRETENDED,
    Guard,
    Pretended,
    RuleBroken,
    empty_batch,
    empty_text,
    fake_device,
    pretended_device,
)
from tests.helpers.registry import NAMES, assert_same, config_of, encoder, make, names, photos, start
from zsad_bench import load_dataset, load_method
from zsad_bench.api import BoundMethod
from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Tap, TextFeatures
from zsad_bench.core.devices import CPU_BLOCKS, blocks_for, synchronize
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import LazyEncoder, build_encoder
from zsad_bench.encoder.tower import patch_products
from zsad_bench.engine.evaluator import EvaluationOptions, Evaluator
from zsad_bench.feature_store.disk_store import DiskStore
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.feature_store.store import FeatureStore, MemoryStore
from zsad_bench.methods.clip_ad_plus import ClipADPlus
from zsad_bench.methods.clip_ad_text import representative
from zsad_bench.methods.dual_image import DualImage
from zsad_bench.metrics import image_metrics, pixel_metrics
from zsad_bench.results.rows import ImageResult
from zsad_bench.text.cache import TextCache
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.toolkit.draws import normal, uniform
from zsad_bench.training.loop import TrainingOptions, make_optimizer, train, train_step

CPU = torch.device("cpu")
# The pretended device takes the paths of other devices, without packed matrices: last bits differ.
TOLERANCE = 1e-4


@pytest.fixture
def method(request: pytest.FixtureRequest, tmp_path: Path) -> Method:
    return make(config_of(request.param), tmp_path)


every_method = pytest.mark.parametrize("method", NAMES, indirect=True)


@pytest.fixture
def device() -> Iterator[Guard]:
    with pretended_device() as guard:
        yield guard


@pytest.fixture
def encoder_there(device: Guard) -> ClipEncoder:
    return build_encoder(replace(encoder().plan, device=PRETENDED))


@pytest.fixture
def shapes_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """``backward`` that gives every parameter a gradient of its shape, on its device."""

    def backward(loss: Tensor) -> None:
        todo, seen = [loss.grad_fn], set()
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                node.variable.grad = torch.empty_like(node.variable)
            todo += [following for following, _ in node.next_functions]

    monkeypatch.setattr(Tensor, "backward", backward)


def text_of(method: Method, used: ClipEncoder) -> TextFeatures | None:
    return used.texts.features(load_ensemble(method.prompts), "plate") if method.prompts else None


def on_cuda(batch: FeatureBatch) -> FeatureBatch:
    """A batch without values on ``cuda``, with an ``encode`` that gives features there."""

    def encode(pixels: Tensor, request: FeatureRequest) -> FeatureBatch:
        assert pixels.device.type == "cuda"
        spec = encoder().spec
        rows = {
            tap: torch.empty(
                len(pixels),
                1 + spec.grid[0] * spec.grid[1],
                spec.embed_dim if tap.projected else spec.width,
                device="cuda",
            )
            for tap in request.taps
        }
        class_tokens = torch.empty(len(pixels), spec.embed_dim, device="cuda")
        return FeatureBatch(names(len(pixels)), class_tokens, rows, spec.grid, batch.image_size)

    return replace(empty_batch(batch, "cuda"), encode=encode if batch.pixels is not None else None)


def prepare_without_values(method: Method, text: TextFeatures | None) -> None:
    if getattr(method, "text_vector", "mean") == "mean":
        method.prepare(text and empty_text(text, "cuda"))
        return
    # scikit-learn needs values: a vector of the same kind stands in for its choice.
    chosen, method.text_vector = method.text_vector, "mean"
    method.prepare(text and empty_text(text, "cuda"))
    method.text_vector = chosen


def assert_lies_there(prediction: Prediction, kind: str, count: int) -> None:
    for values in (prediction.scores, prediction.maps):
        assert values.device.type == kind
        assert values.dtype == torch.float32
        assert len(values) == count


@every_method
@pytest.mark.parametrize("count", [8, 1])
def test_without_values_on_cuda(method: Method, count: int, shapes_of_gradients: None) -> None:
    request, ids = method.request(), tuple(names(count))
    real = encoder().encode(photos(count), request, ids)
    references = encoder().encode(photos(max(1, method.k_shot), seed=9), request)
    text = text_of(method, encoder())
    with fake_device("cuda") as guard:
        prepare_without_values(method, text)
        if method.k_shot:
            method.take_references(empty_batch(references, "cuda"))
        with guard.closed():
            predictions = [method.predict(on_cuda(real)) for _ in range(2)]
        for prediction in (*predictions, *method.finalize(predictions)):
            assert_lies_there(prediction, "cuda", count)


@pytest.mark.parametrize("name", [name for name in NAMES if "plus" in name])
def test_a_training_step_without_values_on_cuda(name: str, shapes_of_gradients: None) -> None:
    config = config_of(name)
    learner = ClipADPlus(reference_quirks=config.reference_quirks, temperature=config.temperature)
    layers = learner.begin_training(encoder().spec, seed=0)
    real = encoder().encode(photos(3), learner.training_request(), names(3))
    with fake_device("cuda"):
        optimizer = make_optimizer(layers.to("cuda"), 1e-4)
        text = torch.empty(3, 2, encoder().spec.embed_dim, device="cuda")
        masks = torch.empty(3, 48, 48, device="cuda")
        for _ in range(2):
            loss = train_step(learner, optimizer, empty_batch(real, "cuda"), text, masks)
        assert loss.device.type == "cuda"
        assert all(parameter.grad.device.type == "cuda" for parameter in layers.parameters())


@every_method
def test_values_on_another_device_are_those_of_the_cpu(
    method: Method, encoder_there: ClipEncoder, device: Guard
) -> None:
    request, pixels, ids = method.request(), photos(5), names(5)
    start(method)
    here = [method.predict(encoder().encode(pixels, request, ids)) for _ in range(2)]
    expected = list(method.finalize(here))

    method.prepare(text_of(method, encoder_there))
    if method.k_shot:
        drawn = torch.rand(method.k_shot, 3, 48, 48, generator=torch.Generator().manual_seed(9))
        method.take_references(encoder_there.encode(drawn, request))
    batch = encoder_there.encode(pixels, request, ids)
    assert batch.device == PRETENDED
    with device.closed():
        there = [method.predict(batch) for _ in range(2)]
    for prediction, right in zip(method.finalize(there), expected, strict=True):
        assert_lies_there(prediction, "meta", 5)
        assert_same(Prediction(prediction.scores.cpu(), prediction.maps.cpu()), right, TOLERANCE)


class Wrong(Method):
    """A method with one mistake."""

    setting = "single"

    def __init__(self, mistake: Callable[[Tensor], Tensor]) -> None:
        super().__init__(name="wrong", prompts="winclip")
        self.mistake = mistake

    def request(self) -> FeatureRequest:
        return FeatureRequest()

    def prepare(self, text: TextFeatures | None) -> None:
        self.text = text.vectors()

    def predict(self, batch: FeatureBatch) -> Prediction:
        scores = self.mistake(batch.class_tokens) @ self.text[1]
        return Prediction(scores, scores[:, None, None].expand(-1, *batch.image_size))


MISTAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "constant of the CPU": lambda x: x * torch.ones(len(x), 1),
    "result on the CPU": lambda x: x.cpu().to(x),
    "item": lambda x: x / x.max().item(),
    "float": lambda x: x * float(x.std()),
    "tolist": lambda x: x * x[0].tolist()[0],
    "numpy": lambda x: x + torch.from_numpy(x.numpy()).to(x),
    "branch": lambda x: x if x.mean() > 0 else -x,
    "values that decide a shape": lambda x: x * x[x > 0].mean(),
    "places of values": lambda x: x * len((x > 0).nonzero()),
    "equal": lambda x: x * torch.equal(x, x),
    "float64": lambda x: x.double().float(),
    "float64 of a literal": lambda x: (x * torch.ones((), dtype=torch.float64, device=x.device)).float(),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught_on_cuda(mistake: str) -> None:
    """And the same method without one passes."""
    real = encoder().encode(photos(3), FeatureRequest())
    right, wrong = Wrong(lambda tokens: tokens), Wrong(MISTAKES[mistake])
    text = text_of(right, encoder())
    with fake_device("cuda") as guard:
        for method in (right, wrong):
            method.prepare(empty_text(text, "cuda"))
        with guard.closed():
            assert_lies_there(right.predict(empty_batch(real, "cuda")), "cuda", 3)
            with pytest.raises((RuleBroken, RuntimeError)):
                wrong.predict(empty_batch(real, "cuda"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught_on_the_pretended_device(mistake: str, encoder_there: ClipEncoder, device: Guard) -> None:
    batch = encoder_there.encode(photos(3), FeatureRequest())
    right, wrong = Wrong(lambda tokens: tokens), Wrong(MISTAKES[mistake])
    for method in (right, wrong):
        method.prepare(text_of(method, encoder_there))
    with device.closed():
        assert_lies_there(right.predict(batch), "meta", 3)
        with pytest.raises((RuleBroken, RuntimeError)):
            wrong.predict(batch)


@pytest.mark.parametrize("choice", ["mean", "pca", "kde", "dbscan", "mean_shift"])
def test_text_vectors_return_to_the_device(choice: str, device: Guard) -> None:
    embeddings = encoder().encode_text([f"a photo of a {word} plate" for word in ("good", "clean", "new", "old")])
    there = embeddings.to(PRETENDED)
    device.read_back.clear()
    vector = representative(there, choice, dbscan_eps=1.5, dbscan_min_samples=2)
    assert (vector.device, vector.dtype) == (PRETENDED, torch.float32)
    assert sum(device.read_back.values()) == (0 if choice == "mean" else 1)
    right = representative(embeddings, choice, dbscan_eps=1.5, dbscan_min_samples=2)
    torch.testing.assert_close(vector.cpu(), right)


@pytest.fixture(params=["off", "memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore | None:
    return {"off": None, "memory": MemoryStore(1.0), "disk": DiskStore(tmp_path / "store", 1.0)}[request.param]


@pytest.mark.parametrize("name", ["clip_ad_transductive", "dual_image_tta"])
def test_a_category_leaves_the_device_once_a_batch(
    name: str, store: FeatureStore | None, photo_folder: Path, encoder_there: ClipEncoder, device: Guard
) -> None:
    """Encoded, out of memory or out of files: the CPU's scores, and nothing but scores and maps is read back."""
    dataset = load_dataset("mvtec", root=str(photo_folder), categories=["plate"])
    samples = dataset.samples("plate")
    options = EvaluationOptions(batch_size=4)

    def evaluated(used: ClipEncoder, kept: FeatureStore | None) -> Sequence[ImageResult]:
        evaluator = Evaluator(FeatureSource(dataset, used, kept), load_method(name, used).method, options)
        for _ in range(2):  # the second time out of the store
            device.read_back.clear()
            found = evaluator.evaluate("plate", samples)
        return found.result.images

    right = evaluated(encoder(), None)
    ours = evaluated(encoder_there, store)
    assert [image.image_id for image in ours] == [image.image_id for image in right]
    np.testing.assert_allclose([image.score for image in ours], [image.score for image in right], atol=TOLERANCE)
    # To name what a method derived takes a copy for each of the 6 pairs.
    batches, derived = 3, 6 if name == "dual_image_tta" and store is not None else 0
    assert device.read_back == {"_to_copy": 2 * batches + derived}


def test_features_lie_on_the_device_wherever_they_come_from(
    store: FeatureStore | None, photo_folder: Path, encoder_there: ClipEncoder, device: Guard
) -> None:
    dataset = load_dataset("mvtec", root=str(photo_folder), categories=["plate"])
    source = FeatureSource(dataset, encoder_there, store)
    samples = dataset.samples("plate")[:3]
    request = FeatureRequest(taps=(Tap(2), Tap(-1, projected=True)), windows=(2,), views=(0, 3, 17), pixels=True)
    for _ in range(2):
        (found,) = source.category("plate", samples, request).batches([samples])
        assert_features_lie_there(found)
        assert found.encode is not None
        for _ in range(2):
            derived = found.encode(found.pixels * 0.5, FeatureRequest(taps=(Tap(2),)))
            assert_features_lie_there(derived)
        assert_features_lie_there(source.references("plate", samples, FeatureRequest(taps=(Tap(2),))))


def assert_features_lie_there(batch: FeatureBatch) -> None:
    parts = [batch.class_tokens, *batch.tokens.values(), *batch.windows.values(), *batch.views.values()]
    for part in parts if batch.pixels is None else [*parts, batch.pixels]:
        assert isinstance(part, Pretended)
        assert part.dtype == torch.float32


def test_text_lies_on_the_device_from_memory_and_from_disk(tmp_path: Path, device: Guard) -> None:
    plan = replace(encoder().plan, device=PRETENDED)
    right = encoder().encode_text(["a photo of a plate"])
    for _ in range(2):  # the second encoder reads what the first one wrote
        used = LazyEncoder(plan)
        used.texts.folder = tmp_path
        for _ in range(2):
            vectors = used.texts.encode(["a photo of a plate"])
            assert vectors.device == PRETENDED
            torch.testing.assert_close(vectors.cpu(), right, atol=TOLERANCE, rtol=0)
    assert not used.loaded
    assert TextCache(encoder()).encode(["a photo of a plate"]).device == CPU


@pytest.mark.parametrize("name", ["clip_ad_paper", "anoclip_tta", "fiseclip", "dual_image_tta"])
def test_predict_images_gives_results_on_the_cpu(name: str, encoder_there: ClipEncoder) -> None:
    pixels = photos(4)
    right = load_method(name, encoder()).predict_images(pixels, "plate")
    bound = BoundMethod(load_method(name, encoder()).method, encoder_there)
    for given in (pixels, pixels.to(PRETENDED)):
        found = bound.predict_images(given, "plate")
        assert found.scores.device == found.maps.device == CPU
        assert_same(found, right, TOLERANCE)


def test_training_on_another_device_gives_the_same_layers(
    photo_folder: Path, encoder_there: ClipEncoder, tmp_path: Path
) -> None:
    dataset = load_dataset("mvtec", root=str(photo_folder), categories=["plate"])
    options = TrainingOptions(epochs=2, batch_size=4)
    learners = [ClipADPlus(temperature=0.07) for _ in range(2)]
    losses = [
        train(learner, dataset, used, options, tmp_path / f"{index}.safetensors")
        for index, (learner, used) in enumerate(zip(learners, (encoder(), encoder_there), strict=True))
    ]
    np.testing.assert_allclose(losses[1], losses[0], atol=TOLERANCE)
    for here, there in zip(*(learner.linear.state_dict().values() for learner in learners), strict=True):
        assert there.device == PRETENDED
        torch.testing.assert_close(there.cpu(), here, atol=TOLERANCE, rtol=0)


def test_metrics_take_tensors_of_a_device(device: Guard) -> None:
    random = torch.Generator().manual_seed(0)
    masks, maps = torch.rand(4, 9, 9, generator=random) > 0.7, torch.rand(4, 9, 9, generator=random)
    labels, scores = torch.tensor([0, 1, 0, 1]), torch.rand(4, generator=random)
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        right = pixel_metrics(masks.numpy(), maps.to(kind).float().numpy())
        assert pixel_metrics(masks.to(PRETENDED), maps.to(PRETENDED, kind)) == right
    assert image_metrics(labels.to(PRETENDED), scores.to(PRETENDED)) == image_metrics(labels.numpy(), scores.numpy())


def test_random_tensors_do_not_depend_on_the_device(device: Guard) -> None:
    for draw in (normal, uniform):
        here, there = (draw((3, 4), torch.Generator().manual_seed(5), where) for where in (CPU, PRETENDED))
        assert there.device == PRETENDED
        assert torch.equal(there.cpu(), here)
    bounded = uniform((1000,), torch.Generator().manual_seed(1), CPU, -0.25, 0.5)
    assert -0.25 <= bounded.min() < -0.2
    assert 0.45 < bounded.max() < 0.5


def test_decisions_depend_on_names_and_seed_alone() -> None:
    method = DualImage()
    method.seed = 1
    first = method.random("a", "b").permutation(50)
    method.random("c").permutation(50)
    assert (method.random("a", "b").permutation(50) == first).all()
    assert (method.random("b", "a").permutation(50) != first).any()
    method.seed = 2
    assert (method.random("a", "b").permutation(50) != first).any()


def test_patch_embedding_as_a_product() -> None:
    """What CUDA does in float32 instead of a convolution, whose factors it would round."""
    for bias in (False, True):
        conv = torch.nn.Conv2d(3, 10, kernel_size=8, stride=8, bias=bias).requires_grad_(False)
        images = photos(2)
        expected = conv(images).flatten(2).transpose(1, 2)
        torch.testing.assert_close(patch_products(conv, images), expected, atol=1e-5, rtol=1e-5)


def test_blocks_by_kind_of_device() -> None:
    assert blocks_for(CPU) == CPU_BLOCKS
    assert blocks_for(torch.device("mps")).similarities > CPU_BLOCKS.similarities
    synchronize(CPU)

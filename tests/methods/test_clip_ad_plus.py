"""SDP+ against the official CLIP-AD code, its training program and its checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.recorded_clip import recorded_encoder
from tests.helpers.recordings import assert_recorded
from tests.helpers.tiny_model import TINY_ENCODER, TINY_MODEL
from zsad_bench import evaluate, load_dataset, load_encoder, load_method
from zsad_bench.cli.main import main as benchmark
from zsad_bench.contract import Dataset, FeatureBatch
from zsad_bench.core.errors import UserError
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.methods.clip_ad_plus import ClipADPlus, dice_loss, focal_loss
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.train import main, training_options
from zsad_bench.training.checkpoint import Checkpoint, encoder_facts, image_mark, training_label
from zsad_bench.training.loop import make_optimizer, train, train_step

CLASSES = ["bottle", "carpet", "pcb1", "metal nut"]  # image i of the golden run belongs to class i
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def encoder(golden_clipad: Path) -> ClipEncoder:
    return recorded_encoder(golden_clipad)


@pytest.fixture(scope="module")
def inputs(golden_clipad: Path) -> Arrays:
    return dict(np.load(golden_clipad / "inputs.npz"))


@pytest.fixture(scope="module")
def golden(golden_clipad: Path) -> Arrays:
    return dict(np.load(golden_clipad / "clipad_sdpplus.npz"))


@pytest.fixture(scope="module")
def checkpoint(encoder: ClipEncoder, golden: Arrays, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The linear layers of the golden run as a checkpoint of this program."""
    method = ClipADPlus(reference_quirks=True)
    names = [name for name, _ in method.begin_training(encoder.spec, seed=0).named_parameters()]
    tensors = {name: torch.from_numpy(golden[f"linear_fc.{name}"]) for name in names}
    path = tmp_path_factory.mktemp("golden") / "layers.safetensors"
    Checkpoint(tensors, {**method.must_match(), **encoder_facts(encoder.spec)}).save(path)
    return str(path)


@pytest.fixture(scope="module")
def batch(encoder: ClipEncoder, inputs: Arrays, checkpoint: str) -> FeatureBatch:
    """The golden images, encoded once."""
    bound = load_method("clip_ad_plus_paper", encoder=encoder, checkpoint=checkpoint)
    return ordinary(encoder.encode(torch.from_numpy(inputs["images"]), bound.method.request()))


@pytest.fixture(scope="module")
def text(encoder: ClipEncoder) -> torch.Tensor:
    """Text vectors (4, 2, D) of the images' classes, by the mean."""
    cache, ensemble = encoder.texts, load_ensemble("clip_ad")
    return torch.stack([cache.features(ensemble, name).vectors() for name in CLASSES]).clone()


@pytest.fixture(scope="module")
def masks(inputs: Arrays) -> torch.Tensor:
    return torch.from_numpy(inputs["masks"][:, 0]).float()


def ordinary(batch: FeatureBatch) -> FeatureBatch:
    """The same batch in tensors that may take part in a backward pass."""
    tokens = {tap: values.clone() for tap, values in batch.tokens.items()}
    return replace(batch, class_tokens=batch.class_tokens.clone(), tokens=tokens)


def one(batch: FeatureBatch, index: int) -> FeatureBatch:
    """A batch of a single image."""
    part = slice(index, index + 1)
    tokens = {tap: values[part] for tap, values in batch.tokens.items()}
    return replace(batch, image_ids=batch.image_ids[part], class_tokens=batch.class_tokens[part], tokens=tokens)


def sampled(maps: torch.Tensor) -> torch.Tensor:
    """The pixels of full maps that the golden arrays keep."""
    return maps[..., 2::5, 1::5]


@pytest.mark.parametrize(("sigma", "n_maps"), [(8.0, 4), (2.0, 2)])
def test_maps_and_both_terms(
    encoder: ClipEncoder, batch: FeatureBatch, golden: Arrays, checkpoint: str, sigma: float, n_maps: int
) -> None:
    method = load_method(
        "clip_ad_plus_paper", encoder=encoder, checkpoint=checkpoint, text_vector="mean", sigma=sigma
    ).method
    for image, name in enumerate(CLASSES):
        method.prepare(encoder.texts.features(load_ensemble("clip_ad"), name))
        single = one(batch, image)
        prediction = method.predict(single)
        np.testing.assert_allclose(float(prediction.scores), golden["score_text"][image], atol=2e-5)
        highest = golden[f"score_mapmax_smooth{sigma:.0f}"][image]
        np.testing.assert_allclose(prediction.maps.max(), highest, atol=1e-4)
        if image < n_maps:
            assert_recorded(prediction.maps[0], golden[f"map_smooth{sigma:.0f}"][image], atol=1e-4)
        if sigma == 8.0:
            with torch.no_grad():
                stages, raw = method.stage_maps(single, method.text)[:, 0], method.raw_maps(single)[0]
            np.testing.assert_allclose(sampled(stages), golden["ft_stage_maps_stride5"][:, image], atol=1e-4)
            extent = torch.stack([stages.amin((1, 2)), stages.amax((1, 2)), stages.mean((1, 2))], dim=1)
            np.testing.assert_allclose(extent, golden["ft_stage_minmaxmean"][:, image], atol=1e-4)
            np.testing.assert_allclose(sampled(raw), golden["combined_raw_stride5"][image], atol=1e-4)
            if image == 0:
                assert_recorded(stages.sum(dim=0), golden["ft_sum_img0"], atol=1e-4)


def test_linear_outputs(encoder: ClipEncoder, batch: FeatureBatch, golden: Arrays, checkpoint: str) -> None:
    method = load_method("clip_ad_plus_paper", encoder=encoder, checkpoint=checkpoint).method
    for stage, (layer, tap) in enumerate(zip(method.linear, method.training_request().taps, strict=True)):
        assert_recorded(layer(batch.patches(tap)), golden["linear_out"][stage], atol=5e-4)


def test_losses_on_synthetic_maps(golden: Arrays) -> None:
    probabilities, truth = torch.from_numpy(golden["loss_syn_prob"]), torch.from_numpy(golden["loss_syn_mask"]).float()
    assert float(focal_loss(probabilities[:, 1], truth)) == pytest.approx(golden["loss_syn_focal"], abs=1e-5)
    assert float(dice_loss(probabilities[:, 1], truth)) == pytest.approx(golden["loss_syn_dice"], abs=1e-5)


def test_three_training_steps(
    encoder: ClipEncoder, batch: FeatureBatch, text: torch.Tensor, masks: torch.Tensor, golden: Arrays
) -> None:
    """Initial weights, losses of every stage and the weights after three steps, by the public training functions."""
    method = ClipADPlus(reference_quirks=True)
    layers = method.begin_training(encoder.spec, seed=1)
    for name, tensor in layers.named_parameters():
        np.testing.assert_array_equal(tensor.detach(), golden[f"linear_fc.{name}"])
    optimizer = make_optimizer(layers, 1e-4)
    for step in range(3):
        focal, dice = method.stage_losses(batch, text, masks)
        np.testing.assert_allclose(focal.detach(), golden["train_focal"][step], atol=1e-5)
        np.testing.assert_allclose(dice.detach(), golden["train_dice"][step], atol=1e-5)
        loss = train_step(method, optimizer, batch, text, masks)
        assert loss == pytest.approx(golden["train_total"][step], abs=1e-5)
    for name, tensor in layers.named_parameters():
        np.testing.assert_allclose(tensor.detach(), golden[f"trained3_fc.{name}"], atol=2e-6)


def test_batch_of_one(
    encoder: ClipEncoder, batch: FeatureBatch, text: torch.Tensor, masks: torch.Tensor, golden: Arrays
) -> None:
    """The official Dice loss of a batch of one runs over the rows of the image; ours is that of an image."""
    official, ours = ClipADPlus(reference_quirks=True), ClipADPlus()
    official.begin_training(encoder.spec, seed=1)
    arguments = one(batch, 2), text[2:3], masks[2:3]
    focal, by_rows = official.stage_losses(*arguments)
    np.testing.assert_allclose(focal.detach(), golden["train_b1_focal"], atol=1e-5)
    np.testing.assert_allclose(by_rows.detach(), golden["train_b1_dice"], atol=1e-5)
    ours.begin_training(encoder.spec, seed=1)
    clean = ordinary(encoder.encode(torch.zeros(1, 3, 240, 240), ours.training_request()))
    _, by_image = ours.stage_losses(clean, text[2:3], masks[2:3])
    expected = dice_loss(ours.stage_maps(clean, text[2:3])[0], masks[2:3])
    torch.testing.assert_close(by_image[0], expected)


def test_perfect_and_wrong_maps_bound_the_losses() -> None:
    truth = torch.zeros(2, 8, 8)
    truth[:, 2:5, 2:5] = 1
    assert float(dice_loss(truth, truth)) == pytest.approx(0)
    assert float(focal_loss(truth, truth)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(1 - truth, truth)) > 0.9
    assert float(focal_loss(1 - truth, truth)) > 5


@pytest.fixture
def photos(photo_folder: Path) -> Dataset:
    return load_dataset("mvtec", root=str(photo_folder))


def start_training(photos: Dataset, encoder: ClipEncoder, output: Path, *keys: str) -> list[float]:
    return train(ClipADPlus(), photos, encoder, training_options(["learning_rate=1e-2", "epochs=3", *keys]), output)


def test_training_writes_a_checkpoint_with_its_provenance(
    photos: Dataset, tiny_encoder: ClipEncoder, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "layers.safetensors"
    losses = start_training(photos, tiny_encoder, output)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    facts = Checkpoint.load(output).facts
    assert facts["dataset"] == "photos"
    assert facts["categories"] == "plate"
    assert (facts["n_images"], facts["n_anomalous"]) == ("12", "6")
    assert facts["encoder.name"] == "tiny_clip"
    assert (facts["epochs"], facts["seed"], facts["split"]) == ("3", "42", "test")
    assert str(tmp_path) not in json.dumps(facts)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_training_does_not_depend_on_memory_or_interruption(
    photos: Dataset, tiny_encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, encoded_anew, interrupted = (tmp_path / f"{name}.safetensors" for name in "abc")
    start_training(photos, tiny_encoder, whole, "shuffle=true")
    start_training(photos, tiny_encoder, encoded_anew, "shuffle=true", "memory_mb=0")
    assert whole.read_bytes() == encoded_anew.read_bytes()
    loss_of, steps = ClipADPlus.training_loss, []

    def breaking(method: ClipADPlus, *arguments: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return loss_of(method, *arguments)

    monkeypatch.setattr(ClipADPlus, "training_loss", breaking)
    with pytest.raises(KeyboardInterrupt):
        start_training(photos, tiny_encoder, interrupted, "shuffle=true")
    assert not interrupted.exists()
    start_training(photos, tiny_encoder, interrupted, "shuffle=true")
    assert len(steps) == 4 + 4, "the first epoch of two steps must not be repeated"
    assert interrupted.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("key", ["shuffle=true", "batch_size=3", "seed=1", "learning_rate=1e-3", "limit=6"])
def test_every_training_key_changes_the_layers(
    photos: Dataset, tiny_encoder: ClipEncoder, tmp_path: Path, key: str
) -> None:
    start_training(photos, tiny_encoder, tmp_path / "a.safetensors", "epochs=1")
    start_training(photos, tiny_encoder, tmp_path / "b.safetensors", "epochs=1", key)
    first, second = (Checkpoint.load(tmp_path / f"{name}.safetensors").tensors for name in "ab")
    assert any((first[name] - second[name]).abs().max() > 1e-6 for name in first)


def test_finished_training_is_kept_and_another_one_refused(
    photos: Dataset, tiny_encoder: ClipEncoder, tmp_path: Path
) -> None:
    output = tmp_path / "layers.safetensors"
    start_training(photos, tiny_encoder, output, "epochs=1")
    assert start_training(photos, tiny_encoder, output, "epochs=1") == []
    with pytest.raises(UserError, match=r"trained with another epochs \(1, now 2\)"):
        start_training(photos, tiny_encoder, output, "epochs=2")


def test_masks_are_needed(photos: Dataset, tiny_encoder: ClipEncoder, tmp_path: Path) -> None:
    shutil.rmtree(photos.root / "plate" / "ground_truth")
    bare = load_dataset("mvtec", root=str(photos.root))
    with pytest.raises(UserError, match="no anomalous test image has a mask, and training needs masks"):
        start_training(bare, tiny_encoder, tmp_path / "layers.safetensors")


@pytest.fixture(scope="module")
def layers(tiny_encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint for the tiny encoder that has seen image ``a/b.png``."""
    method = ClipADPlus()
    parameters = method.begin_training(tiny_encoder.spec, seed=0)
    facts = {**method.must_match(), **encoder_facts(tiny_encoder.spec), "dataset": "other"}
    path = tmp_path_factory.mktemp("layers") / "layers.safetensors"
    Checkpoint(parameters.state_dict(), {**facts, "images": image_mark("a/b.png")}).save(path)
    return path


def test_training_images_are_refused(photos: Dataset, tiny_encoder: ClipEncoder, tmp_path: Path) -> None:
    """Its categories of its dataset are, in any split; under another dataset name still the images themselves."""
    output = tmp_path / "layers.safetensors"
    start_training(photos, tiny_encoder, output, "epochs=1", "limit=4")
    bound = load_method("clip_ad_plus", encoder=tiny_encoder, checkpoint=str(output))
    with pytest.raises(UserError, match=r"test split of this dataset \(photos: plate\).* method\.allow_seen=true"):
        evaluate(bound, photos)
    renamed = MVTec(root=str(photos.root), name="elsewhere")
    with pytest.raises(UserError, match=r"it was trained on plate/test/.* set method\.allow_seen=true"):
        evaluate(bound, renamed)
    allowed = load_method("clip_ad_plus", encoder=tiny_encoder, checkpoint=str(output), allow_seen=True)
    assert np.isfinite(evaluate(allowed, photos)[0].metrics["pixel_auroc"])


def test_label_of_training_data() -> None:
    facts = {"dataset": "mvtec", "categories": "bottle cable", "split": "test"}
    assert training_label(facts, "visa", ["bottle"], allow_seen=False) == ""
    assert training_label(facts, "mvtec", ["wood"], allow_seen=False) == "trained on other categories of mvtec"
    assert training_label(facts, "mvtec", ["wood", "cable"], allow_seen=True) == "trained on mvtec"
    with pytest.raises(UserError, match=r"test split of this dataset \(mvtec: cable\)") as caught:
        training_label(facts, "mvtec", ["wood", "cable"], allow_seen=False)
    assert "\n" not in str(caught.value)


def test_rows_say_what_was_trained_on(
    photos: Dataset, photo_folder: Path, tiny_encoder: ClipEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "layers.safetensors"
    start_training(photos, tiny_encoder, output, "epochs=1", "limit=4")
    command = [
        *("method=clip_ad_plus", f"method.checkpoint={output}", "dataset=mvtec", f"dataset.root={photo_folder}"),
        *(f"encoder.model={TINY_MODEL}", "encoder.pretrained=null", f"results_dir={tmp_path}", "name=run", "maps=none"),
    ]
    assert benchmark(command) == 2
    assert "test split of this dataset (photos: plate)" in capsys.readouterr().err
    assert benchmark([*command, "method.allow_seen=true"]) == 0
    assert "paper, trained on photos" in (tmp_path / "run" / "metrics.csv").read_text()
    assert "trained on photos" in (tmp_path / "run" / "leaderboard.md").read_text()


def test_guard_looks_at_names_of_images(tiny_encoder: ClipEncoder, layers: Path) -> None:
    bound = load_method("clip_ad_plus", encoder=tiny_encoder, checkpoint=str(layers))
    pixels = torch.zeros(2, 3, 48, 48)
    assert bound.predict_images(pixels, "cup", image_ids=["a/a.png", "b/b.png"]).scores.isfinite().all()
    with pytest.raises(UserError, match=r"trained on a/b\.png \(dataset other\)"):
        bound.predict_images(pixels, "cup", image_ids=["a/a.png", "a/b.png"])


def test_missing_checkpoint_says_how_to_train(tiny_encoder: ClipEncoder) -> None:
    with pytest.raises(UserError, match=r"method\.checkpoint=null: .*python -m zsad_bench\.train") as caught:
        load_method("clip_ad_plus", encoder=tiny_encoder)
    assert "\n" not in str(caught.value)


def test_checkpoint_of_something_else_is_refused(tiny_encoder: ClipEncoder, layers: Path, tmp_path: Path) -> None:
    config = json.loads(TINY_MODEL.read_text())
    config["vision_cfg"]["width"] = 48
    other_model = tmp_path / "other.json"
    other_model.write_text(json.dumps(config))
    other = load_encoder(str(other_model), None)
    for encoder, keys, message in (
        (other, {}, r"trained with encoder\.name=tiny_clip and this run has encoder\.name=other"),
        (tiny_encoder, {"layers": [2, 4]}, "blocks=1 2 3 4 and this run has blocks=2 4"),
        (tiny_encoder, {"reference_quirks": True}, "reference_quirks=False and this run has"),
    ):
        with pytest.raises(UserError, match=message):
            load_method("clip_ad_plus", encoder=encoder, checkpoint=str(layers), **keys)
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(layers.read_bytes().replace(b"zsad-bench checkpoint 1", b"something of another k"[:23].ljust(23)))
    for path, message in (
        (tmp_path / "none.safetensors", "no such file"),
        (tmp_path / "broken.safetensors", "not a readable safetensors file"),
        (plain, "not a checkpoint of this program"),
    ):
        with pytest.raises(UserError, match=message):
            load_method("clip_ad_plus", encoder=tiny_encoder, checkpoint=str(path))


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", 0.1), ("sigma", 2.0), ("text_vector", "kde"), ("class_weights", False), ("prompts", "winclip")],
)
def test_every_key_changes_the_map(tiny_encoder: ClipEncoder, layers: Path, key: str, value: object) -> None:
    pixels = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    plain, changed = (
        load_method("clip_ad_plus", encoder=tiny_encoder, checkpoint=str(layers), **keys).predict_images(pixels, "cup")
        for keys in ({}, {key: value})
    )
    assert (plain.maps - changed.maps).abs().max() > 1e-6
    assert plain.scores.isfinite().all()


def test_fusion_is_a_sum_of_log_odds(tiny_encoder: ClipEncoder, layers: Path) -> None:
    pixels = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    both, text, place = (
        load_method("clip_ad_plus", encoder=tiny_encoder, checkpoint=str(layers), fusion=fusion).predict_images(
            pixels, "cup"
        )
        for fusion in ("sum", "text", "map")
    )
    torch.testing.assert_close(both.scores, text.scores + place.scores)
    torch.testing.assert_close(place.scores, torch.logit(both.maps.amax(dim=(1, 2)) / 4))


def test_command_line(photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["dataset=mvtec", f"dataset.root={photo_folder}"]
    output = tmp_path / "layers.safetensors"
    command = ["method=clip_ad_plus", *data, *TINY_ENCODER, "epochs=1", f"output={output}"]
    assert main(command) == 0
    assert output.exists()
    assert main(command) == 0
    assert "finished before" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "learning_rate" in capsys.readouterr().out
    for wrong, message in (
        ([*command, "epoch=2"], "did you mean epochs"),
        ([*command, "epochs=few"], "epochs"),
        ([*command, "epochs=0"], "epochs=0: must be at least 1"),
        ([*command, "split=all"], "split=all: choose train or test"),
        ([*command, "output=layers.pt"], "must end in .safetensors"),
        (["method=winclip", *data, *TINY_ENCODER], "nothing to train"),
        ([*TINY_ENCODER], "auxiliary dataset"),
        ([*command, "method.sigm=1"], "did you mean method.sigma"),
    ):
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len([line for line in error.splitlines() if line.startswith("error")]) == 1

"""Loading encoders: every way to give weights, every way to get it wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.config.schema import EncoderConfig
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.errors import UserError
from zsad_bench.encoder import weights as weights_module
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import LazyEncoder, load_encoder
from zsad_bench.encoder.plan import plan_encoder
from zsad_bench.encoder.weights import file_sha256, find_weights

TINY = str(TINY_MODEL)


def refused(**options: object) -> str:
    with pytest.raises(UserError) as caught:
        load_encoder(**{"model": TINY, "pretrained": None, **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def state(tiny_encoder: ClipEncoder) -> dict[str, torch.Tensor]:
    return {key: tensor.clone().contiguous() for key, tensor in tiny_encoder.model.state_dict().items()}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_local_weights_give_the_same_features(
    tiny_encoder: ClipEncoder, state: dict[str, torch.Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        save_file(state, path)
    loaded = load_encoder(TINY, str(path), sha256=file_sha256(path))
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for encoder in (loaded, tiny_encoder):
        assert encoder.encode(pixels, FeatureRequest()).class_tokens.dtype == torch.float32
    torch.testing.assert_close(
        loaded.encode(pixels, FeatureRequest()).class_tokens, tiny_encoder.encode(pixels, FeatureRequest()).class_tokens
    )
    assert loaded.spec.weights == f"weights{suffix}"


def test_sparse_token_rows_are_expanded(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    table = state.pop("token_embedding.weight")
    rows = torch.tensor([0, 320, 49406, 49407], dtype=torch.int32)
    sparse = {**state, "token_embedding.rows": rows, "token_embedding.values": table[rows.long()].half()}
    path = tmp_path / "sparse.safetensors"
    save_file(sparse, path, metadata={"vocabulary": "damaged flawless"})
    encoder = load_encoder(TINY, str(path))
    weight = encoder.model.token_embedding.weight
    torch.testing.assert_close(weight[320], table[320], atol=1e-3, rtol=1e-3)
    assert weight[1].abs().max() == 0
    assert encoder.unknown_words("damaged broken bottle") == ["broken", "bottle"]


def test_random_weights_are_the_same_everywhere() -> None:
    torch.manual_seed(123)
    first = load_encoder(TINY, None).model.state_dict()
    torch.manual_seed(321)
    second = load_encoder(TINY, None).model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_image_size_interpolates_positions(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    encoder = load_encoder(TINY, str(path), image_size=64)
    assert encoder.spec.grid == (8, 8)
    batch = encoder.encode(torch.randn(1, 3, 64, 64), FeatureRequest((Tap(-1),), windows=(2,)))
    assert batch.patches(Tap(-1)).shape == (1, 64, 32)
    assert batch.windows[2].shape == (1, 49, 16)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_close(tiny_encoder: ClipEncoder, precision: str) -> None:
    low = load_encoder(TINY, None, precision=precision)
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    tap = Tap(-1, Stream(embedding=True), projected=True)
    expected = tiny_encoder.encode(pixels, FeatureRequest((tap,)))
    actual = low.encode(pixels, FeatureRequest((tap,)))
    assert torch.nn.functional.cosine_similarity(actual.patches(tap), expected.patches(tap), dim=-1).min() > 0.99
    text = torch.nn.functional.cosine_similarity(low.encode_text(["a cup"]), tiny_encoder.encode_text(["a cup"]))
    assert text.item() > 0.99


def test_chunks_do_not_matter(tiny_encoder: ClipEncoder) -> None:
    pixels = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    request = FeatureRequest((Tap(2),), windows=(2,))
    whole = load_encoder(TINY, None, chunk_size=5).encode(pixels, request)
    parts = load_encoder(TINY, None, chunk_size=2).encode(pixels, request)
    assert parts.image_ids == whole.image_ids == ("0", "1", "2", "3", "4")
    torch.testing.assert_close(parts.tokens[Tap(2)], whole.tokens[Tap(2)], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts.windows[2], whole.windows[2], atol=1e-5, rtol=1e-5)


def test_squash_and_shortest() -> None:
    image = Image.fromarray(np.tile(np.arange(96, dtype=np.uint8)[None, :, None], (48, 1, 3)))
    squashed = load_encoder(TINY, None).preprocess([image])[0, 0, 0]
    centred = load_encoder(TINY, None, resize="shortest").preprocess([image])[0, 0, 0]
    assert squashed[-1] - squashed[0] > 1.9 * (centred[-1] - centred[0])


def test_preprocessing_is_open_clips_for_square_images(tiny_encoder: ClipEncoder) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))
    expected = open_clip.image_transform(48, is_train=False)(image)
    torch.testing.assert_close(tiny_encoder.preprocess([image])[0], expected)


def test_mistakes_are_one_line(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert "did you mean ViT-B-16" in refused(model="ViT-B16")
    assert "no such file" in refused(model="nowhere.json")
    assert "timm" in refused(model="ViT-B-16-SigLIP") or "plain" in refused(model="ViT-B-16-SigLIP")
    assert "plain ViT" in refused(model="RN50")
    assert "no such weights file" in refused(pretrained=str(tmp_path / "missing.pt"))
    assert "multiple of the patch size 8; the nearest is 48" in refused(image_size=50)
    assert "choose squash or shortest" in refused(resize="crop")
    assert "choose from fp32" in refused(precision="int8")
    assert "at least 1" in refused(chunk_size=0)
    assert "auto, cpu, cuda or mps" in refused(device="gpu")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not a checkpoint")
    assert "damaged.safetensors: not a" in refused(pretrained=str(damaged))
    truncated = tmp_path / "truncated.pt"
    torch.save(state, truncated)
    truncated.write_bytes(truncated.read_bytes()[:1000])
    assert "truncated.pt: not a" in refused(pretrained=str(truncated))
    other = tmp_path / "other.safetensors"
    save_file({key: value for key, value in state.items() if key != "visual.proj"}, other)
    assert "has no tensor visual.proj" in refused(pretrained=str(other))
    save_file({**state, "visual.proj": torch.zeros(3, 3)}, other)
    assert "visual.proj is (3, 3) where (32, 16) is expected" in refused(pretrained=str(other))
    save_file({**state, "extra": torch.zeros(1)}, other)
    assert "tensors the model lacks, first extra" in refused(pretrained=str(other))
    save_file(state, other)
    assert "SHA-256" in refused(pretrained=str(other), sha256="0" * 64)


def test_damaged_weights_are_one_line_before_they_are_read(tmp_path: Path) -> None:
    """The words that an encoder knows are asked for while nothing has to be encoded yet."""
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not a checkpoint")
    plan = plan_encoder(EncoderConfig(TINY, str(damaged), device="cpu", feature_bits=32))
    with pytest.raises(UserError, match=r"damaged\.safetensors: not a readable checkpoint"):
        LazyEncoder(plan).unknown_words("damaged bottle")


def test_wrong_config_file(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("{", encoding="utf-8")
    assert "not a readable JSON" in refused(model=str(path))
    path.write_text("{}", encoding="utf-8")
    assert "not an open_clip model config" in refused(model=str(path))
    config = json.loads(Path(TINY).read_text(encoding="utf-8"))
    config["vision_cfg"]["attentional_pool"] = True
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "pools its tokens" in refused(model=str(path))


@pytest.mark.parametrize(
    ("model", "pretrained", "fitting"),
    [("ViT-L-14-336", "openai", "ViT-L-14-336-quickgelu"), ("ViT-B-32", "laion400m_e32", "ViT-B-32-quickgelu")],
)
def test_gelu_mismatch_is_refused(model: str, pretrained: str, fitting: str) -> None:
    with pytest.raises(UserError, match=f"use encoder.model={fitting}"):
        find_weights(model, pretrained)


def test_gelu_mismatch_of_a_release_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-16.pt"  # the name of OpenAI's own file
    path.write_bytes(b"")
    with pytest.raises(UserError, match="quickgelu"):
        find_weights("ViT-B-16", str(path))


def test_unknown_tag_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean laion400m_e3"):
        find_weights("ViT-B-16-plus-240", "laion400m_e30")


def test_missing_weights_name_file_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the message names the release file of the very tag, not the hub entry of another one."""

    def offline(config: dict[str, str], prefer_hf_hub: bool) -> str:
        assert not prefer_hf_hub  # open_clip's table sends laion400m_e32 to the hub repository of laion400m_e31
        raise OSError("no network")

    monkeypatch.setattr(weights_module.open_clip, "download_pretrained", offline)
    with pytest.raises(UserError) as caught:
        find_weights("ViT-B-16-plus-240", "laion400m_e32")
    file = "vit_b_16_plus_240-laion400m_e32-699c4b84.pt"
    for part in ("OSError: no network", file, "encoder.pretrained=<path>", "encoder=demo"):
        assert part in str(caught.value)

"""CLIP checkpoints as people have them: every form and type, at every image size, or one line with the true cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.checkpoints import FORMS, State, as_openai, cast, write, write_torch
from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench import load_encoder, load_method
from zsad_bench.contract import FeatureRequest, Tap
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder

CONFIG = json.loads(TINY_MODEL.read_text(encoding="utf-8"))
POSITIONS = "visual.positional_embedding"


@pytest.fixture(scope="module")
def state(tiny_encoder: ClipEncoder) -> State:
    """Numbers as in a trained model: positions that vary smoothly over the grid, and are no multiples of 2^-11."""
    random = torch.Generator().manual_seed(1)
    state = {key: tensor.clone() for key, tensor in tiny_encoder.model.state_dict().items()}
    state[POSITIONS] = torch.randn(state[POSITIONS].shape, generator=random).cumsum(dim=0) / 7
    return state


def loaded_by_open_clip(state: State, folder: Path, image_size: int, **text: int) -> nn.Module:
    """The float32 model that open_clip's own loader makes of a float32 checkpoint."""
    vision = {**CONFIG["vision_cfg"], "image_size": image_size}
    model = open_clip.CLIP(CONFIG["embed_dim"], vision, {**CONFIG["text_cfg"], **text})
    open_clip.load_checkpoint(model, str(write_torch(cast(state, torch.float32), folder / "float32.pt")))
    return model


def assert_equal(actual: nn.Module, expected: nn.Module) -> None:
    own, right = actual.state_dict(), expected.state_dict()
    assert own.keys() == right.keys()
    for key in own:
        assert torch.equal(own[key], right[key]), key


@pytest.mark.parametrize("image_size", [8, 32, 48, 80])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_loaded_as_its_float32_cast(state: State, form: str, image_size: int, tmp_path: Path) -> None:
    path, float32 = write(form, state, tmp_path)
    encoder = load_encoder(str(TINY_MODEL), str(path), image_size=image_size)
    assert_equal(encoder.model, loaded_by_open_clip(float32, tmp_path, image_size))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("form", ["half safetensors", "TorchScript, OpenAI's types", "float32 state dict"])
def test_positions_are_interpolated_in_float32_at_every_precision(
    state: State, form: str, precision: str, tmp_path: Path
) -> None:
    path, float32 = write(form, state, tmp_path)
    encoder = load_encoder(str(TINY_MODEL), str(path), image_size=72, precision=precision)
    expected = loaded_by_open_clip(float32, tmp_path, 72)
    open_clip.convert_weights_to_lp(expected, torch.bfloat16 if precision == "bf16" else torch.float16)
    assert_equal(encoder.model, expected)
    batch = encoder.encode(torch.rand(2, 3, 72, 72), FeatureRequest((Tap(-1),), windows=(3,)))
    assert batch.patches(Tap(-1)).shape == (2, 81, 32)
    assert torch.isfinite(batch.windows[3]).all()


@pytest.mark.parametrize("name", ["winclip", "musc_paper", "anoclip"])
def test_a_half_precision_archive_at_another_size_predicts(state: State, name: str, tmp_path: Path) -> None:
    """What MuSc's published set-up does with OpenAI's file, in small."""
    path, float32 = write("TorchScript, OpenAI's types", state, tmp_path)
    exact, _ = write("float32 state dict", float32, tmp_path)
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = (
        load_method(name, encoder=load_encoder(str(TINY_MODEL), str(file), image_size=64)).predict_images(pixels, "cup")
        for file in (path, exact)
    )
    assert found.maps.shape == (3, 64, 64)
    assert found.maps.std() > 0
    torch.testing.assert_close(found.maps, expected.maps)
    torch.testing.assert_close(found.scores, expected.scores)


def test_the_bundled_half_precision_weights_at_another_size() -> None:
    place = "pkg://zsad_bench/demo_encoder/demo_clip"
    encoder = load_encoder(f"{place}.json", f"{place}.safetensors", image_size=64)
    side = 64 // encoder.spec.patch_size
    assert encoder.spec.grid == (side, side)
    assert encoder.encode(torch.rand(1, 3, 64, 64), FeatureRequest((Tap(-1),))).patches(Tap(-1)).shape[1] == side**2


@pytest.mark.parametrize("length", [40, 96])
def test_another_context_length(state: State, length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps({**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "context_length": length}}))
    path, float32 = write("half state dict", state, tmp_path)
    encoder = load_encoder(str(model), str(path), image_size=64)
    assert_equal(encoder.model, loaded_by_open_clip(float32, tmp_path, 64, context_length=length))
    assert f"77 text tokens are interpolated to text_cfg.context_length={length}" in capsys.readouterr().err
    assert encoder.encode_text(["a cup"]).shape == (1, 16)


def test_text_tower_of_its_own(state: State, tmp_path: Path) -> None:
    """A model config with ``custom_text`` names the same tensors otherwise; open_clip's loader renames them."""
    model = tmp_path / "model.json"
    model.write_text(json.dumps({**CONFIG, "custom_text": True}))
    path, _ = write("OpenAI's types", state, tmp_path)
    apart = load_encoder(str(model), str(path), image_size=64)
    joined = load_encoder(str(TINY_MODEL), str(path), image_size=64)
    torch.testing.assert_close(apart.encode_text(["a damaged cup"]), joined.encode_text(["a damaged cup"]))


def without(state: State, key: str) -> State:
    return {name: tensor for name, tensor in state.items() if name != key}


def changed(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], object]:
    return lambda state: {**state, key: change(state[key])}


class RunsCode:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


# What is wrong -> the file's content, and what the message must say.
DAMAGE: dict[str, tuple[Callable[[State], object], tuple[str, ...]]] = {
    "no row for the class token": (changed(POSITIONS, lambda old: old[1:]), (POSITIONS, "36 rows", "class token")),
    "grid that is not square": (changed(POSITIONS, lambda old: old[:33]), ("33 rows", "square grid", "8 x 8 patches")),
    "one row": (changed(POSITIONS, lambda old: old[:1]), ("1 rows", "square grid")),
    "no row": (changed(POSITIONS, lambda old: old[:0]), ("0 rows", "square grid")),
    "positions of a batch": (changed(POSITIONS, lambda old: old[None]), ("(1, 37, 32) where (65, 32) is expected",)),
    "positions of another width": (changed(POSITIONS, lambda old: old[:, :16]), ("(37, 16) where (65, 32)",)),
    "text positions of another width": (
        changed("positional_embedding", lambda old: old[:, :8]),
        ("tensor positional_embedding is (77, 8)",),
    ),
    "no positions": (lambda state: without(state, POSITIONS), (f"has no tensor {POSITIONS}",)),
    "no class token": (
        lambda state: without(state, "visual.class_embedding"),
        ("has no tensor visual.class_embedding",),
    ),
    "positions of a ResNet": (
        lambda state: {**without(state, POSITIONS), "visual.attnpool.positional_embedding": torch.zeros(50, 32)},
        (f"has no tensor {POSITIONS}",),
    ),
    "quantised positions": (changed(POSITIONS, lambda old: old.to(torch.int8)), (f"{POSITIONS} is int8", "quantised")),
    "quantised weights": (
        changed("visual.proj", lambda old: old.to(torch.float8_e4m3fn)),
        ("visual.proj is float8_e4m3fn", "quantised"),
    ),
    "sparse weights": (changed("visual.proj", lambda old: old.to_sparse()), ("cannot be loaded", "visual.proj")),
    "weights beside other values": (lambda state: {**state, "epoch": 3}, ("epoch is a int", "state dict")),
    "a list": (lambda state: list(state.values()), ("it holds a list",)),
    "a tensor": (lambda state: state[POSITIONS], ("it holds a Tensor",)),
    "nothing": (lambda state: {}, ("it holds a dict without a state dict",)),
    "nothing under state_dict": (lambda state: {"state_dict": None}, ("without a state dict",)),
    "token rows without values": (
        lambda state: {**without(state, "token_embedding.weight"), "token_embedding.rows": torch.arange(3)},
        ("damaged", "token_embedding.values"),
    ),
    "token rows outside the table": (
        lambda state: {
            **without(state, "token_embedding.weight"),
            "token_embedding.rows": torch.tensor([60_000]),
            "token_embedding.values": torch.zeros(1, 16),
        },
        ("outside the vocabulary of 49408",),
    ),
}
OTHER_MODELS = {
    "positions of a batch",
    "positions of another width",
    "text positions of another width",
    "no positions",
    "no class token",
    "positions of a ResNet",
}


def message_for(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_encoder(str(TINY_MODEL), str(path), image_size=64)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("damage", DAMAGE)
def test_the_true_cause_in_one_line(state: State, damage: str, dtype: torch.dtype, tmp_path: Path) -> None:
    content, parts = DAMAGE[damage]
    message = message_for(write_torch(content(cast(state, dtype)), tmp_path / "weights.pt"))
    for part in parts:
        assert part in message
    assert ("another architecture" in message) == (damage in OTHER_MODELS)


def test_pickled_code_is_refused_and_not_run(state: State, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write_torch({**state, "extra": RunsCode(trace)}, tmp_path / "weights.pt")
    assert "Unsupported global" in message_for(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:00"]
)
def test_what_is_no_checkpoint_at_all(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "not a readable checkpoint" in message_for(path)


def test_a_truncated_archive(state: State, tmp_path: Path) -> None:
    path, _ = write("TorchScript, OpenAI's types", state, tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "not a readable checkpoint" in message_for(path)


def test_weights_of_a_deeper_model(state: State, tmp_path: Path) -> None:
    deeper = as_openai({**state, "visual.transformer.resblocks.4.ln_1.weight": torch.ones(32)})
    message = message_for(write_torch(deeper, tmp_path / "weights.pt"))
    assert "1 tensors the model lacks, first visual.transformer.resblocks.4.ln_1.weight" in message

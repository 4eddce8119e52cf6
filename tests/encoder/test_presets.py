"""Every preset of ``conf/experiment`` and ``conf/encoder`` on a checkpoint of the true names, shapes and types.

The file has the position embeddings in full and one number for every other tensor, repeated by strides of 0; the model
lies on the meta device but for its position embeddings. So a ViT-L needs no memory, and what reads, checks and
interpolates its weights is the real code.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import open_clip
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from open_clip.model import CLIP, resize_pos_embed
from torch import Tensor, nn

from tests.helpers.checkpoints import State, as_openai, write_torch
from tests.helpers.registry import make
from zsad_bench.config.compose import compose_config
from zsad_bench.config.schema import EncoderConfig
from zsad_bench.contract import FeatureRequest
from zsad_bench.encoder import loading as encoder_module
from zsad_bench.encoder import tower
from zsad_bench.encoder import weights as weights_module
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.encoder.model_files import ModelConfig, read_model_config
from zsad_bench.encoder.plan import EncoderPlan, plan_encoder
from zsad_bench.encoder.weights import load_weights

POSITIONS = "visual.positional_embedding"
CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
ENCODERS = sorted(path.stem for path in (CONF / "encoder").glob("*.yaml"))
# MuSc's papers and codes run ViT-L/14@336 at 518 pixels; everything else is at 240.
IMAGE_SIZES = {"musc_mvtec": 518, "musc_visa": 518}


def bare(config: ModelConfig, image_size: int | None = None) -> CLIP:
    """A model without memory for its weights, except for its position embeddings; they start as zeros."""
    size = image_size or config["vision_cfg"]["image_size"]
    with torch.device("meta"):
        model = encoder_module._build(config, cast(int, size), "fp32", "preset")
    positions = cast(CLIP, model).visual.positional_embedding
    cast(CLIP, model).visual.positional_embedding = nn.Parameter(torch.zeros(positions.shape))
    return cast(CLIP, model)


def checkpoint(model: str, tag: str, folder: Path) -> Path:
    """OpenAI's files are in half precision, laion's training checkpoints in float32."""
    shapes = {key: tensor.shape for key, tensor in bare(read_model_config(model)).state_dict().items()}
    numbers: State = dict.fromkeys(shapes, torch.zeros(()))
    numbers[POSITIONS] = torch.randn(shapes[POSITIONS], generator=torch.Generator().manual_seed(0)) / 7
    path = folder / f"{model}-{tag}.pt"
    if tag == "openai":
        return write_torch({key: tensor.expand(shapes[key]) for key, tensor in as_openai(numbers).items()}, path)
    wrapped = {f"module.{key}": tensor.expand(shapes[key]) for key, tensor in numbers.items()}
    return write_torch({"epoch": 32, "name": model, "state_dict": wrapped}, path)


@pytest.fixture
def plan_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Plans of encoder configurations, whose weights are not fetched but made."""

    def fetched(config: dict[str, str], prefer_hf_hub: bool) -> str:
        return str(made[-1])

    def plan(config: DictConfig) -> EncoderPlan:
        chosen = cast(dict, OmegaConf.to_container(config, resolve=True))
        made.append(checkpoint(chosen["model"], chosen["pretrained"], tmp_path))
        return plan_encoder(EncoderConfig(**{**chosen, "device": "cpu", "precision": "fp32"}))

    made: list[Path] = []
    monkeypatch.setattr(weights_module.open_clip, "download_pretrained", fetched)
    return plan


def load(plan: EncoderPlan) -> CLIP:
    """The model with the position embeddings of the plan's weights."""
    assert plan.weights.path is not None
    model = bare(plan.config, plan.geometry.size)
    load_weights(model, plan.weights, plan.spec.name)
    return model


def stored_positions(plan: EncoderPlan) -> Tensor:
    content = torch.load(plan.weights.path, weights_only=True)
    state = content.get("state_dict", content)
    return state.get(POSITIONS, state.get(f"module.{POSITIONS}"))


def assert_interpolated(model: CLIP, stored: Tensor) -> None:
    """Position embeddings as open_clip interpolates the float32 cast of the stored ones."""
    expected = {POSITIONS: stored.float()}
    resize_pos_embed(expected, model)
    assert torch.equal(model.visual.positional_embedding, expected[POSITIONS])


def assert_encodes(model: CLIP, plan: EncoderPlan, request: FeatureRequest) -> None:
    """The walk of the image tower gives every tap and window of the request; shapes alone, on the meta device."""
    spec, walked = plan.spec, tower.Tower(model.to("meta").visual, pack=False)
    images = torch.empty(2, 3, spec.image_size, spec.image_size, device="meta")
    taps = [tap.resolve(spec.n_blocks) for tap in request.taps]
    class_tokens, taken = tower.dense_forward(walked, images, taps)
    assert class_tokens.shape == (2, spec.embed_dim)
    for tap in taps:
        n_tokens = 1 if tap.class_only else 1 + spec.grid[0] * spec.grid[1]
        assert taken[tap].shape == (2, n_tokens, spec.embed_dim if tap.projected else spec.width)
    for side in request.windows:
        n_windows = (spec.grid[0] - side + 1) * (spec.grid[1] - side + 1)
        assert tower.window_forward(walked, images, spec.grid, (side,))[side].shape == (2, n_windows, spec.embed_dim)


@pytest.mark.filterwarnings("ignore:.*meta parameter:UserWarning")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_loads_and_asks_for_what_its_tower_has(name: str, plan_of, tmp_path: Path) -> None:
    config = compose_config([f"+experiment={name}"])
    plan = plan_of(config.encoder)
    assert plan.spec.image_size == IMAGE_SIZES.get(name, 240)
    assert plan.spec.grid == (plan.spec.image_size // plan.spec.patch_size,) * 2
    half = config.encoder.pretrained == "openai"
    assert stored_positions(plan).dtype == (torch.float16 if half else torch.float32)
    model = load(plan)
    assert model.visual.grid_size == plan.spec.grid
    assert_interpolated(model, stored_positions(plan))
    method = make(config.method, tmp_path, plan.spec)
    assert_encodes(model, plan, method.request())


@pytest.mark.filterwarnings("ignore:.*meta parameter:UserWarning")
@pytest.mark.parametrize("patches", [None, 1, 5, 40])
@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "demo"])
def test_every_encoder_loads_at_any_size(name: str, patches: int | None, plan_of) -> None:
    config = compose_config([f"encoder={name}", "dataset=mvtec"]).encoder
    patch = read_model_config(config.model)["vision_cfg"]["patch_size"]
    config.image_size = None if patches is None else patches * patch
    plan = plan_of(config)
    model = load(plan)
    assert patches is None or plan.spec.grid == (patches, patches)
    assert_interpolated(model, stored_positions(plan))
    assert_encodes(model, plan, FeatureRequest(windows=(1,)))


def test_a_preset_of_the_demo_encoder_needs_no_stand_in() -> None:
    config = compose_config(["encoder=demo"]).encoder
    encoder = load_encoder(**{**OmegaConf.to_container(config, resolve=True), "image_size": 80})
    assert encoder.spec.grid == (80 // encoder.spec.patch_size,) * 2
    assert open_clip.get_cast_dtype(encoder.precision) is torch.bfloat16

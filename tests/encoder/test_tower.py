"""The dense walk against open_clip itself, against closed forms, and against the reference codes' arrays."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers.recorded_clip import recorded_encoder, recorded_images
from tests.helpers.recordings import assert_recorded
from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.packed import can_pack
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.encoder.tower import Tower, dense_forward, unsupported_reason, window_forward, window_indices

VV = Stream(embedding=True)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_class_token_is_open_clips_own(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    expected = tiny_encoder.model.encode_image(pixels)
    for taps in ((), (Tap(2), Tap(4, VV, projected=True))):
        actual, _ = dense_forward(tiny_encoder.tower, pixels, taps)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_plain_taps_equal_forward_intermediates(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    taps = [Tap(block) for block in (1, 2, 3, 4)]
    _, taken = dense_forward(tiny_encoder.tower, pixels, taps)
    expected = tiny_encoder.visual.forward_intermediates(pixels, indices=[0, 1, 2, 3], output_fmt="NLC")
    for tap, tokens in zip(taps, expected["image_intermediates"], strict=True):
        torch.testing.assert_close(taken[tap][:, 1:], tokens, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_projected_tap_is_ln_post_and_projection(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    visual = tiny_encoder.visual
    _, taken = dense_forward(tiny_encoder.tower, pixels, [Tap(3), Tap(3, projected=True)])
    expected = visual.ln_post(taken[Tap(3)]) @ visual.proj
    torch.testing.assert_close(taken[Tap(3, projected=True)], expected)


def loop_surgery(visual: torch.nn.Module, hidden: torch.Tensor, number: int, names: str) -> torch.Tensor:
    """mean over names of softmax(z z^T / sqrt(d)) v, head by head, then the output projection: written as loops."""
    block = visual.transformer.resblocks[number - 1]
    normed = block.ln_1(hidden)
    width, heads = normed.shape[-1], block.attn.num_heads
    weight, bias = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
    parts = {name: normed @ w.T + b for name, w, b in zip("qkv", weight, bias, strict=True)}
    size = width // heads
    total = torch.zeros_like(normed)
    for name in names:
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            for image in range(len(normed)):
                z = parts[name][image][:, columns]
                total[image][:, columns] += (
                    (z @ z.T / size**0.5).softmax(-1) @ parts["v"][image][:, columns] / len(names)
                )
    return total @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


@torch.inference_mode()
@pytest.mark.parametrize(
    ("stream", "block", "summands"),
    [
        (Stream(("v",), embedding=True), 4, [0, 1, 2, 3, 4]),
        (Stream(("v",), restart=2), 3, [3]),
        (Stream(("v",), restart=2), 4, [3, 4]),
        (Stream(("q",), start=2, embedding=True), 3, [0, 2, 3]),
        (Stream(("k",), start=4), 4, [4]),
        (Stream(("q", "k", "v"), start=4), 4, [4]),
    ],
)
def test_surgery_stream_equals_closed_form(
    tiny_encoder: ClipEncoder, pixels: torch.Tensor, stream: Stream, block: int, summands: list[int]
) -> None:
    visual = tiny_encoder.visual
    _, plain = dense_forward(tiny_encoder.tower, pixels, [Tap(number) for number in (1, 2, 3, 4)])
    inputs = [tiny_encoder.tower.embed(pixels), *(plain[Tap(number)] for number in (1, 2, 3, 4))]
    expected = sum(
        inputs[0] if number == 0 else loop_surgery(visual, inputs[number - 1], number, "".join(stream.attention))
        for number in summands
    )
    _, taken = dense_forward(tiny_encoder.tower, pixels, [Tap(block, stream)])
    torch.testing.assert_close(taken[Tap(block, stream)], expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_value_attention_of_equal_values_is_their_mean() -> None:
    """All patches alike: softmax(v v^T) is uniform, so the output is the projected value itself."""
    encoder = load_encoder(str(TINY_MODEL), None)
    visual = encoder.visual
    visual.positional_embedding.zero_()
    visual.class_embedding.copy_(visual.conv1(torch.ones(1, 3, 48, 48))[0, :, 0, 0])
    tap = Tap(1, Stream())
    _, taken = dense_forward(encoder.tower, torch.ones(1, 3, 48, 48), [tap])
    block = visual.transformer.resblocks[0]
    value = (
        block.ln_1(encoder.tower.embed(torch.ones(1, 3, 48, 48))) @ block.attn.in_proj_weight[64:].T
        + block.attn.in_proj_bias[64:]
    )
    torch.testing.assert_close(taken[tap], block.attn.out_proj(value), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_distinct_taps_are_distinct_tensors(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    streams = (None, VV, Stream(restart=2))
    taps = [Tap(block, stream) for block in (1, 2, 3, 4) for stream in streams]
    _, taken = dense_forward(tiny_encoder.tower, pixels, taps)
    # restart=2 without embedding starts with the same block outputs as nothing else here, so all pairs differ
    for first, second in combinations(taps, 2):
        assert taken[first].data_ptr() != taken[second].data_ptr()
        assert not torch.equal(taken[first], taken[second]), (first, second)


@torch.inference_mode()
def test_after_attention_is_between_attention_and_feed_forward(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    visual = tiny_encoder.visual
    middle = Tap(2, after_attention=True)
    _, taken = dense_forward(tiny_encoder.tower, pixels, [middle, Tap(2)])
    block = visual.transformer.resblocks[1]
    expected = taken[middle] + block.mlp(block.ln_2(taken[middle]))
    torch.testing.assert_close(taken[Tap(2)], expected, atol=1e-6, rtol=1e-5)


def test_window_indices_are_row_major() -> None:
    indices = window_indices((3, 4), 2)
    assert indices.shape == (6, 4)
    assert indices[0].tolist() == [0, 1, 4, 5]
    assert indices[-1].tolist() == [6, 7, 10, 11]


@torch.inference_mode()
def test_windows_differ_and_match_one_by_one(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    """anomalib's window path makes all windows of an image equal with open_clip >= 2.26.1; ours must not."""
    visual, grid = tiny_encoder.visual, tiny_encoder.spec.grid
    windows = window_forward(tiny_encoder.tower, pixels, grid, (2,))[2]
    assert windows.shape == (3, 25, 16)
    assert F.normalize(windows, dim=-1).std(dim=1).max() > 1e-2
    tokens = tiny_encoder.tower.embed(pixels)
    for position in (0, 7, 24):
        rows = [0, *(window_indices(grid, 2)[position] + 1).tolist()]
        alone = visual.transformer(tokens[:, rows])[:, 0]
        torch.testing.assert_close(windows[:, position], visual.ln_post(alone) @ visual.proj, atol=1e-5, rtol=1e-5)


def test_bad_taps_are_refused(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="4 blocks"):
        tiny_encoder.encode(pixels, FeatureRequest((Tap(5),)))
    with pytest.raises(ValueError, match="before their stream starts"):
        tiny_encoder.encode(pixels, FeatureRequest((Tap(1, Stream(start=2)),)))
    with pytest.raises(ValueError, match="do not fit"):
        tiny_encoder.encode(pixels, FeatureRequest(windows=(7,)))
    with pytest.raises(ValueError, match="1-based"):
        Tap(0)
    with pytest.raises(ValueError, match="without the projection"):
        Tap(1, projected=True, normed=True)


def test_normed_tap_is_ln_post_alone(tiny_encoder: ClipEncoder, pixels: torch.Tensor) -> None:
    raw, normed, projected = Tap(2), Tap(2, normed=True), Tap(2, projected=True)
    tokens = tiny_encoder.encode(pixels, FeatureRequest((raw, normed, projected))).tokens
    visual = tiny_encoder.model.visual
    with torch.inference_mode():
        torch.testing.assert_close(tokens[normed], visual.ln_post(tokens[raw]))
        torch.testing.assert_close(tokens[projected], tokens[normed] @ visual.proj)


@torch.inference_mode()
def test_open_clips_own_embeddings(golden_clipad: Path) -> None:
    """Class tokens and text embeddings that open_clip 3.3.0 itself computed."""
    encoder = recorded_encoder(golden_clipad)
    check = np.load(golden_clipad / "openclip330_check.npz")
    images = recorded_images(golden_clipad)
    class_tokens = encoder.encode(images, FeatureRequest()).class_tokens
    np.testing.assert_allclose(class_tokens, check["image_features"], atol=1e-4)
    prompts = ["a photo of a flawless bottle.", "a photo of a damaged bottle."]
    np.testing.assert_array_equal(encoder.tokenizer(prompts), check["text_tokens"])
    np.testing.assert_allclose(encoder.encode_text(prompts), check["text_features"], atol=1e-4)


def test_towers_without_class_token_are_refused() -> None:
    assert "not open_clip's own ViT" in str(unsupported_reason(torch.nn.Linear(1, 1)))


@torch.inference_mode()
def test_streams_match_the_official_codes(golden_clipad: Path) -> None:
    """AnoVL's value-value tokens, CLIP-AD's stages, and CLIP-AD's aliased ordinary tokens o_l = h_l + a_(l+1)."""
    encoder = recorded_encoder(golden_clipad)
    images = recorded_images(golden_clipad)
    anovl, clipad = np.load(golden_clipad / "anovl_features.npz"), np.load(golden_clipad / "clipad_features.npz")
    whole = Tap(12, VV, projected=True)
    stages = [Tap(block, Stream(restart=3), projected=True) for block in (3, 6, 9, 12)]
    aliased = [*(Tap(block + 1, after_attention=True) for block in (3, 6, 9)), Tap(12)]
    batch = encoder.encode(images, FeatureRequest((whole, *stages, *aliased)))
    assert_recorded(batch.patches(whole), anovl["tokens6_proj"], atol=1e-4)
    np.testing.assert_allclose(batch.class_tokens, anovl["pooled_cls"], atol=1e-4)
    for stage, (tap, ordinary) in enumerate(zip(stages, aliased, strict=True)):
        assert_recorded(batch.patches(tap), clipad["surgery_raw"][stage][:, 1:], atol=1e-4)
        assert_recorded(batch.tokens[ordinary][:2], clipad["ori_raw_img01"][stage], atol=1e-4)


@torch.inference_mode()
def test_plain_taps_match_musc(golden_winclip: Path) -> None:
    encoder = recorded_encoder(golden_winclip)
    inputs, musc = np.load(golden_winclip / "inputs.npz"), np.load(golden_winclip / "musc.npz")
    images = torch.from_numpy(np.concatenate([inputs["images"], inputs["images_extra"]]))
    taps = tuple(Tap(int(block)) for block in musc["layers"])
    batch = encoder.encode(images, FeatureRequest(taps))
    for layer, tap in enumerate(taps):
        assert_recorded(batch.tokens[tap], musc["tokens"][layer], atol=1e-4)
    np.testing.assert_allclose(F.normalize(batch.class_tokens, dim=-1), musc["cls"], atol=1e-5)


V, Q = Stream(("v",), embedding=True), Stream(("q", "k", "v"), start=3)
LAST = -1
ASKED = (
    *(Tap(2), Tap(2, V), Tap(LAST), Tap(LAST, projected=True), Tap(LAST, normed=True), Tap(LAST, class_only=True)),
    *(Tap(LAST, after_attention=True), Tap(LAST, after_attention=True, class_only=True)),
    *(Tap(LAST, V, projected=True), Tap(LAST, V), Tap(LAST, Q), Tap(LAST, Stream(("v",), restart=2), normed=True)),
)


@torch.inference_mode()
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_have_the_same_bits_whatever_else_is_asked(precision: str, packed: bool) -> None:
    place = "pkg://zsad_bench/demo_encoder/demo_clip"
    encoder = load_encoder(f"{place}.json", f"{place}.safetensors", precision=precision, feature_bits=32)
    if packed and not can_pack(encoder.visual.conv1.weight.dtype):
        pytest.skip("this CPU has no packed products")
    size, n_blocks = encoder.spec.image_size, encoder.spec.n_blocks
    images = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(encoder.visual.conv1.weight.dtype)
    tower, taps = Tower(encoder.visual, pack=packed), [tap.resolve(n_blocks) for tap in ASKED]
    class_token, everything = dense_forward(tower, images, taps)
    for asked in ((), *((tap,) for tap in taps), *combinations(taps, 2)):
        found, taken = dense_forward(tower, images, asked)
        assert torch.equal(found, class_token), asked
        for tap in asked:
            assert torch.equal(taken[tap], everything[tap]), (tap, asked)
    # A tap's class row is the class token itself where it is the ordinary stream's.
    end = Tap(n_blocks, projected=True)
    assert torch.equal(everything[Tap(n_blocks)][:, :1], everything[Tap(n_blocks, class_only=True)])
    tolerance = {"atol": 1e-5, "rtol": 1e-2 if precision == "bf16" else 1e-4}
    torch.testing.assert_close(everything[end][:, 0], class_token, **tolerance)


@pytest.mark.parametrize("n_images", [1, 3, 8])
def test_views_and_windows_have_the_same_bits_whatever_else_is_asked(n_images: int) -> None:
    encoder = load_encoder(str(TINY_MODEL), None, chunk_size=8, feature_bits=32)
    images = torch.randn(n_images, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    views = tuple(range(22))
    whole = encoder.encode(images, FeatureRequest(taps=(Tap(-1), Tap(-1, V)), windows=(2, 3), views=views))
    for view in views:
        assert torch.equal(encoder.encode(images, FeatureRequest(views=(view,))).views[view], whole.views[view]), view
    some = encoder.encode(images, FeatureRequest(views=(21, 3)))
    assert set(some.views) == {3, 21}
    for side in (2, 3):
        alone = encoder.encode(images, FeatureRequest(windows=(side,)))
        assert torch.equal(alone.windows[side], whole.windows[side])
        assert torch.equal(alone.class_tokens, whole.class_tokens)

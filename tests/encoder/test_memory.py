"""``encoder.chunk_size``: the automatic choice, and going on with fewer images when memory runs out."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.contract import FeatureRequest, Tap
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.encoder.memory import LARGEST, automatic_chunk_size

TINY = str(TINY_MODEL)
CPU = torch.device("cpu")
REQUEST = FeatureRequest((Tap(2),), windows=(2,), views=(0, 3))


def pixels(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def limited(fitting: int, chunk_size: int) -> tuple[ClipEncoder, list[int]]:
    """An encoder whose patch embedding asks for more memory than any machine has when it gets more than ``fitting``
    images, so that torch's own allocator refuses; and the list of how many images it got."""
    encoder, seen = load_encoder(TINY, None, chunk_size=chunk_size), []

    def allocate(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > fitting:
            torch.empty(1 << 60)

    encoder.visual.conv1.register_forward_pre_hook(allocate)
    return encoder, seen


def test_automatic_size_fits_the_tower() -> None:
    """8 images of ViT-B/16 on a CPU; larger images go in smaller chunks, at least one at a time."""
    assert load_encoder(TINY, None, chunk_size="auto").chunks.size == automatic_chunk_size(37, 32, CPU)
    assert automatic_chunk_size(197, 768, CPU) == automatic_chunk_size(226, 896, CPU) == 8
    sizes = [automatic_chunk_size(tokens, 768, CPU) for tokens in (1, 10, 50, 197, 577, 1370, 10_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (LARGEST, 1)
    assert all(size & (size - 1) == 0 for size in sizes)
    with pytest.raises(UserError, match=r"encoder\.chunk_size=many: .*auto"):
        load_encoder(TINY, None, chunk_size="many")


def test_memory_that_runs_out_halves_the_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    encoder, seen = limited(fitting=3, chunk_size=8)
    found = encoder.encode(pixels(7), REQUEST)
    assert seen[:3] == [7, 3, 3]
    assert "out of memory with 7 images at a time; going on with encoder.chunk_size=3" in capsys.readouterr().err
    expected = load_encoder(TINY, None, chunk_size=3).encode(pixels(7), REQUEST)
    assert found.image_ids == expected.image_ids
    assert torch.equal(found.class_tokens, expected.class_tokens)
    assert torch.equal(found.tokens[Tap(2)], expected.tokens[Tap(2)])
    assert torch.equal(found.windows[2], expected.windows[2])
    assert torch.equal(found.views[3], expected.views[3])


def test_the_smaller_chunk_is_kept() -> None:
    """An encoder does not run into the same wall again."""
    encoder, seen = limited(fitting=2, chunk_size=8)
    encoder.encode(pixels(8), FeatureRequest())
    assert seen == [8, 4, 2, 2, 2, 2]
    encoder.encode(pixels(4), FeatureRequest())
    assert seen[6:] == [2, 2]


def test_one_image_that_does_not_fit_is_one_line() -> None:
    encoder, seen = limited(fitting=0, chunk_size=4)
    with pytest.raises(UserError, match=r"out of memory with one image at a time .*encoder\.precision=bf16") as caught:
        encoder.encode(pixels(4), FeatureRequest())
    assert "\n" not in str(caught.value)
    assert seen == [4, 2, 1]


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    encoder, seen = limited(fitting=8, chunk_size=4)
    wrong = encoder.visual.positional_embedding.data[:-1].clone()
    encoder.visual.positional_embedding.data = wrong
    with pytest.raises(RuntimeError, match="size of tensor"):
        encoder.encode(pixels(4), FeatureRequest())
    assert seen == [4]

"""Prompt ensembles: what they write, how they are averaged, how they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from zsad_bench.contract import TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.text.cache import TextCache
from zsad_bench.text.ensembles import PromptEnsemble, ensemble_names, load_ensemble


def test_winclip_writes_154_and_88_prompts() -> None:
    normal, abnormal = load_ensemble("winclip").write("metal nut")
    assert (len(normal), len(abnormal)) == (154, 88)
    assert len(set(normal)) == 154
    assert normal[0] == "a cropped photo of the metal nut."
    assert "a photo of a metal nut without flaw for visual inspection." in normal
    assert abnormal[-1] == "a photo of the metal nut with damage for anomaly detection."


def test_nouns_articles_and_order() -> None:
    ensemble = PromptEnsemble(
        "own",
        normal=["{}", "perfect {}"],
        abnormal=["damaged {}"],
        templates=["a {noun} of a {}", "the {noun} of the {}"],
        nouns={"object": ["industrial photo"], "texture": ["textural photo"]},
        outer="template",
        class_name_map={"macaroni1": "macaroni"},
    )
    assert ensemble.write("macaroni1")[0] == [
        "an industrial photo of a macaroni",
        "an industrial photo of a perfect macaroni",
        "the industrial photo of the macaroni",
        "the industrial photo of the perfect macaroni",
    ]
    assert ensemble.write("carpet", is_texture=True)[1] == [
        "a textural photo of a damaged carpet",
        "the textural photo of the damaged carpet",
    ]


@pytest.mark.parametrize("name", ensemble_names())
def test_bundled_ensembles_have_no_leftover_placeholders(name: str) -> None:
    for is_texture in (False, True):
        for prompts in load_ensemble(name).write("metal nut", is_texture):
            assert all("{" not in prompt and "  " not in prompt and "metal nut" in prompt for prompt in prompts)


def test_averages_differ_as_defined() -> None:
    normal = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    features = TextFeatures("x", normal, normal.flip(0) * torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(features.vectors("unit")[0], F.normalize(torch.tensor([1.0, 1.0]), dim=0))
    torch.testing.assert_close(features.vectors("raw")[0], F.normalize(torch.tensor([3.0, 1.0]), dim=0))
    with pytest.raises(UserError, match="unit or raw"):
        features.vectors("median")


class CountingEncoder:
    """Counts the texts it is asked to encode."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def ready(self) -> None:
        """It has no weights."""

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        self.seen += prompts
        return torch.tensor([[float(len(prompt)), 1.0] for prompt in prompts])


def test_texts_are_encoded_once() -> None:
    encoder = CountingEncoder()
    cache = TextCache(encoder)
    first = cache.features(load_ensemble("winclip"), "pcb")
    second = cache.features(load_ensemble("winclip"), "pcb")
    assert len(encoder.seen) == len(set(encoder.seen)) == 154 + 88
    assert torch.equal(first.normal, second.normal)


def test_a_list_is_encoded_as_a_whole_whatever_is_known() -> None:
    encoder = CountingEncoder()
    cache = TextCache(encoder)
    cache.features(load_ensemble("winclip"), "pcb")
    encoder.seen.clear()
    cache.features(load_ensemble("winclip_zqhang"), "pcb")  # a subset of the same sentences
    normal, abnormal = load_ensemble("winclip_zqhang").write("pcb")
    assert encoder.seen == list(dict.fromkeys(normal + abnormal))


def test_texts_on_disk_need_no_encoder(tmp_path: Path) -> None:
    first, second = TextCache(CountingEncoder()), TextCache(CountingEncoder())
    first.folder = second.folder = tmp_path / "texts"
    second.may_encode = False
    with pytest.raises(UserError, match="overwrite=cached"):
        second.features(load_ensemble("winclip"), "pcb")
    expected = first.features(load_ensemble("winclip"), "pcb")
    found = second.features(load_ensemble("winclip"), "pcb")
    assert torch.equal(found.normal, expected.normal)
    assert torch.equal(found.abnormal, expected.abnormal)


def test_damaged_text_files_are_encoded_again(tmp_path: Path) -> None:
    for content in (b"", b"damaged", None):
        encoder = CountingEncoder()
        cache = TextCache(encoder)
        cache.folder = tmp_path
        cache.encode(["one", "two"])
        assert encoder.seen == ["one", "two"]
        (stored,) = tmp_path.iterdir()
        if content is not None:
            stored.write_bytes(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normal: [a]\nabnormal: ['{}']\ntemplates: ['{}']", "normal must be a list of texts that each hold {}"),
        ("normal: ['{}']\nabnormal: ['{}']\ntemplates: ['{}']\naverage: median", "average=median"),
        ("normal: ['{}']\nabnormal: ['{}']\ntemplates: ['{}']\nstates: 3", "states"),
        ("normal: ['{}']", "abnormal"),
        ("[1, 2", "YAML"),
    ],
)
def test_bad_ensemble_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_ensemble(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_ensembles() -> None:
    with pytest.raises(UserError, match="winclip_zqhang"):
        load_ensemble("wincl")
    with pytest.raises(UserError, match="cannot be read"):
        load_ensemble("nowhere.yaml")

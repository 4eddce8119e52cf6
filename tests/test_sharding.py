"""Parts of a job on several machines give the bytes of one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import TINY_MODEL, comparable_tables
from zsad_bench.__main__ import main
from zsad_bench.errors import UserError
from zsad_bench.sharding import Shard


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photo_folder / "plate", photo_folder / "bolt")
    return photo_folder


def run(photos: Path, name: str, *arguments: str) -> int:
    encoder = [f"encoder.model={TINY_MODEL}", "encoder.pretrained=null", "encoder.device=cpu"]
    return main([*arguments, "dataset=mvtec", f"dataset.root={photos}", *encoder, f"name={name}"])


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3"])
def test_unclear_shards_are_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"shard=.*1/16 to 16/16"):
        Shard.parse(text)


@pytest.mark.parametrize(("batches", "count"), [(7, 3), (2, 5), (1, 1), (16, 16)])
def test_shards_hold_every_batch_once(batches: int, count: int) -> None:
    shards = [Shard.parse(f"{index}/{count}") for index in range(1, count + 1)]
    assert [number for shard in shards for number in shard.batches(batches)] == list(range(batches))
    names = [f"c{index}" for index in range(batches)]
    assert sorted(name for shard in shards for name in shard.categories(names)) == sorted(names)


@pytest.mark.parametrize(
    ("method", "by"), [("winclip", "category"), ("fiseclip", "image"), ("clip_ad_transductive", "image")]
)
def test_parts_give_the_bytes_of_one_run(photos: Path, by: str, method: str) -> None:
    job = (f"method={method}", "batch_size=5", "maps=none")
    assert run(photos, "whole", *job) == 0
    for part in ("3/3", "1/3", "1/3", "2/3"):
        assert run(photos, "parts", *job, f"shard={part}", f"shard_by={by}") == 0
    assert comparable_tables(Path("results/parts")) == comparable_tables(Path("results/whole"))
    assert not list(Path("results/parts").rglob("*-of-*"))


def test_missing_and_damaged_parts_are_computed_again(photos: Path) -> None:
    job = ("method=fiseclip", "batch_size=5", "maps=none", "shard_by=image")
    assert run(photos, "whole", *job) == 0
    assert run(photos, "parts", *job, "shard=1/2") == 0
    assert not list(Path("results/parts").rglob("categories/*.json"))
    (part,) = Path("results/parts").rglob("plate/0001-of-0002.npz")
    part.write_bytes(part.read_bytes()[:50])
    assert run(photos, "parts", *job, "shard=2/2") == 0
    assert {path.stem for path in Path("results/parts").rglob("categories/*.json")} == {"bolt"}
    assert run(photos, "parts", *job, "shard=1/2") == 0
    assert comparable_tables(Path("results/parts")) == comparable_tables(Path("results/whole"))


def test_methods_that_remember_all_images_cannot_be_cut(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quirky = ("method=anoclip_tta", "method.reference_quirks=true", "method.views=identity", "maps=none")
    assert run(photos, "run", *quirky, "shard=1/2", "shard_by=image") == 2
    assert "shard_by=category" in capsys.readouterr().err

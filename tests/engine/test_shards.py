"""Parts of a job on several machines give the bytes of one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.result_files import comparable_tables
from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main
from zsad_bench.core.errors import UserError
from zsad_bench.engine.shards import Shard


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photo_folder / "plate", photo_folder / "bolt")
    return photo_folder


def run(photos: Path, name: str, *arguments: str) -> int:
    return main([*arguments, "dataset=mvtec", f"dataset.root={photos}", *TINY_ENCODER, f"name={name}"])


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3"])
def test_unclear_shards_are_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"shard=.*1/16 to 16/16"):
        Shard.parse(text)


@pytest.mark.parametrize(("categories", "count"), [(7, 3), (2, 5), (1, 1), (16, 16)])
def test_shards_hold_every_category_once(categories: int, count: int) -> None:
    shards = [Shard.parse(f"{index}/{count}") for index in range(1, count + 1)]
    names = [f"c{index}" for index in range(categories)]
    assert sorted(name for shard in shards for name in shard.categories(names)) == sorted(names)


@pytest.mark.parametrize("method", ["winclip", "fiseclip", "clip_ad_transductive"])
def test_parts_give_the_bytes_of_one_run(photos: Path, method: str) -> None:
    job = (f"method={method}", "batch_size=5", "maps=none")
    assert run(photos, "whole", *job) == 0
    for part in ("3/3", "1/3", "1/3", "2/3"):
        assert run(photos, "parts", *job, f"shard={part}") == 0
    assert comparable_tables(Path("results/parts")) == comparable_tables(Path("results/whole"))

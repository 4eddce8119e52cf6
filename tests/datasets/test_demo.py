"""The demo dataset on disk: rendered once, mended when damaged, safe to interrupt and to start twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zsad_bench import load_dataset
from zsad_bench.contract import Dataset
from zsad_bench.core.errors import UserError
from zsad_bench.data.images import read_image_file

SMALL = {"size": 32, "n_normal": 1, "n_anomalous": 2, "n_train": 1}


def demo(root: Path, **options: object) -> Dataset:
    return load_dataset("demo", root=str(root), **{**SMALL, **options})


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    assert len(demo(root).categories) >= 6
    return root


@pytest.fixture
def copy(rendered: Path, tmp_path: Path) -> Path:
    root = tmp_path / "demo"
    for name, data in contents(rendered).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_it_is_an_ordinary_mvtec_folder(rendered: Path) -> None:
    as_demo, as_mvtec = demo(rendered), load_dataset("mvtec", root=str(rendered))
    assert as_demo.categories == as_mvtec.categories
    assert as_demo.problems() == []
    for category in as_demo.categories:
        test = as_demo.samples(category)
        assert [sample.image_id for sample in test] == [sample.image_id for sample in as_mvtec.samples(category)]
        assert [sample.label for sample in test].count(1) == 2
        for sample in test:
            mask = as_demo.read_mask(sample)
            assert mask is not None
            assert mask.any() == (sample.label == 1)
        assert len(as_demo.samples(category, "train")) == 1


def test_damaged_and_missing_files_are_rendered_again(copy: Path, rendered: Path) -> None:
    images = sorted(copy.rglob("test/*/*.png"))
    images[0].write_bytes(b"damaged")
    images[1].unlink()
    next(copy.rglob("*_mask.png")).unlink()
    demo(copy).samples("gear")
    assert contents(copy) == contents(rendered)


def test_another_recipe_replaces_the_folder(copy: Path) -> None:
    before = contents(copy)
    assert all(len(demo(copy, n_normal=2).samples(category)) == 4 for category in demo(copy, n_normal=2).categories)
    assert json.loads((copy / "demo.json").read_text(encoding="utf-8"))["recipe"]["n_normal"] == 2
    demo(copy).samples("gear")
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["demo"]  # no temporary folder is left


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files"):
        demo(tmp_path).samples("gear")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_processes_end_with_one_good_copy(tmp_path: Path, rendered: Path) -> None:
    root = tmp_path / "demo"
    code = f"from zsad_bench import load_dataset; load_dataset('demo', root={str(root)!r}, **{SMALL}).samples('gear')"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error.decode()
    assert contents(root) == contents(rendered)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_seeds_draw_other_scenes(rendered: Path, tmp_path: Path) -> None:
    first = demo(rendered).samples("tile")[0]
    other = demo(tmp_path / "demo", seed=5).samples("tile")[0]
    assert (
        np.abs(np.asarray(read_image_file(first.path)).astype(int) - np.asarray(read_image_file(other.path))).max() > 20
    )


def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    for options, message in (({"group": "training"}, "evaluation or auxiliary"), ({"size": 8}, "at least 32")):
        with pytest.raises(UserError, match=message):
            demo(tmp_path / "demo", **options)

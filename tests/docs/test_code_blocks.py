"""Every code block of README.md and docs: it runs, or it says what it needs and its commands are known to the program.

A block runs as it stands, on photos and weights that are small: see ``SMALL`` and ``workplace``. With the comment
``<!-- needs: ... -->`` before it nothing is computed, but its keys, files, options and targets must exist. With
``<!-- file: ... -->`` it is that file in the folder in which later blocks of its page run. ``text`` is no code.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import TINY_MODEL, save_image
from tests.helpers.code_blocks import Block, blocks_of, commands_of
from zsad_bench.cli.data.commands import USAGE
from zsad_bench.cli.main import main
from zsad_bench.config.compose import compose_config
from zsad_bench.contract import Dataset
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder
from zsad_bench.engine.dataset_card import card
from zsad_bench.engine.method_card import MethodCard
from zsad_bench.report.write import main as report
from zsad_bench.train import training_options

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {page.relative_to(ROOT).as_posix(): blocks_of(page, ROOT) for page in PAGES}
SMALL = [
    f"encoder.model={TINY_MODEL}",
    "encoder.pretrained=null",
    "encoder.device=cpu",
    "features=off",
    "dataset.categories=[tile]",
    "dataset.n_normal=2",
    "dataset.n_anomalous=2",
    "dataset.n_train=0",
    "dataset.size=48",
    "maps=none",
]
TRAINED_GROUPS = ("method", "dataset", "encoder")

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bash reads the commands")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_encoder: ClipEncoder) -> Path:
    """An empty folder with two photos, in which every encoder is a tiny one."""

    def load_tiny(*args: object, **options: object) -> ClipEncoder:
        inspect.signature(load_encoder).bind(*args, **options)
        return tiny_encoder

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("zsad_bench.encoder.loading.load_encoder", load_tiny)
    monkeypatch.setenv("ZSAD_DATA", str(tmp_path / "data"))
    for name in ("a.jpg", "b.jpg"):
        save_image(tmp_path / name, np.random.default_rng(len(name)).integers(0, 255, (40, 56, 3), dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_blocks_of(page: str, workplace: Path, capsys: Capture, request: pytest.FixtureRequest) -> None:
    names: dict[str, object] = {"__name__": page}
    for block in BLOCKS[page]:
        assert block.language in ("sh", "python", "yaml", "text"), f"{block.page}: name the language behind the fence"
        if block.file:
            target = workplace / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, "utf-8")
        if block.language == "python":
            take_python(block, names)
        elif block.language == "yaml":
            assert MethodCard.of(yaml.safe_load(block.text)), block.page
        elif block.language == "sh":
            for command in commands_of(block.text, workplace / "stand_ins"):
                if "zsad_bench.report" in command and not block.needs:
                    for folder in (each for each in command[3:] if each.startswith("results/")):
                        shutil.copytree(request.getfixturevalue("example_run"), workplace / folder)
                take_command(block, command, capsys)


def test_the_dataset_of_the_page_reads_its_layout(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS["docs/datasets.md"] if block.language == "python"]
    names: dict[str, object] = {}
    take_python(block, names)
    for number in range(3):
        save_image(tmp_path / "nut" / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
    kind = names["Pairs"]
    assert isinstance(kind, type)
    assert issubclass(kind, Dataset)
    assert [sample.label for sample in kind(root=tmp_path, name="pairs").samples("nut")] == [0, 1, 0]


def test_every_page_with_a_fence_was_read() -> None:
    for page in PAGES:
        fences = re.findall(r"^\s*```", page.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(BLOCKS[page.relative_to(ROOT).as_posix()]), page


def take_python(block: Block, names: dict[str, object]) -> None:
    """Run a block in the names of its page; of one that needs more only the imports."""
    text = "\n".join(re.findall(r"^(?:from|import) .*", block.text, re.MULTILINE)) if block.needs else block.text
    compile(block.text, block.page, "exec")
    exec(compile(text, block.page, "exec", dont_inherit=True), names)  # without the __future__ of this file


def take_command(block: Block, command: list[str], capsys: Capture) -> None:
    known: dict[tuple[str, ...], Callable[[Block, list[str], Capture], None]] = {
        ("python", "-m", "zsad_bench"): take_benchmark,
        ("python", "-m", "zsad_bench.report"): take_report,
        ("python", "-m", "zsad_bench.train"): take_training,
        ("zsad-bench", "data"): take_data,
        ("make",): take_make,
        ("pip", "install"): take_install,
        ("ray",): take_ray,
    }
    for start, take in known.items():
        if tuple(command[: len(start)]) == start:
            take(block, command[len(start) :], capsys)
            return
    assert command[0] == "python", f"{block.page}: nobody knows how to try {command}"
    take_script(block, command[1:])


def take_benchmark(block: Block, arguments: list[str], capsys: Capture) -> None:
    """Run it; with ``overwrite=never`` everything is checked and nothing computed."""
    capsys.readouterr()
    if block.needs:
        assert main([*arguments, "overwrite=never"]) == 2
        error = capsys.readouterr().err
        assert "overwrite=never computes nothing" in error or "is not installed; pip install" in error, block.page
        return
    assert main([*arguments, *SMALL]) == 0, f"{block.page}: {capsys.readouterr().err}"
    (table,) = Path("results").glob("*/metrics.csv")
    asked = {name for text in arguments if text.startswith("method=") for name in text[len("method=") :].split(",")}
    rows = pd.read_csv(table)
    assert set(rows["method"]) == asked
    assert rows["image_auroc"].between(0, 1).all()


def take_training(block: Block, arguments: list[str], _: Capture) -> None:
    assert block.needs, f"{block.page}: a training is not small"
    composed = [text for text in arguments if text.split("=")[0].split(".")[0] in TRAINED_GROUPS]
    assert compose_config(composed)
    assert training_options([text for text in arguments if text not in composed])


def take_report(block: Block, arguments: list[str], _: Capture) -> None:
    assert report(arguments) == 0, block.page


def take_data(block: Block, arguments: list[str], capsys: Capture) -> None:
    """Datasets are where they are said to be on no machine of the tests; a download would use a network."""
    assert block.needs, f"{block.page}: there is no data"
    verb, *rest = [text.replace("/data", "absent") for text in arguments]
    assert {text for text in rest if text.startswith("--")} <= set(re.findall(r"--[\w-]+", USAGE)), block.page
    if verb == "download":
        assert card(rest[0]).download is not None
    else:
        assert main(["data", verb, *rest]) == 2
        assert "does not exist" in capsys.readouterr().err, block.page


def take_make(block: Block, targets: list[str], _: Capture) -> None:
    assert block.needs, f"{block.page}: make installs"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), block.page


def take_install(block: Block, packages: list[str], _: Capture) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for package in packages:
        name, _, extra = package.partition("[")
        assert name == project["name"], block.page
        assert extra.rstrip("]") in project["optional-dependencies"], block.page


def take_ray(block: Block, arguments: list[str], _: Capture) -> None:
    assert block.needs, f"{block.page}: there is no cluster"


def take_script(block: Block, arguments: list[str]) -> None:
    assert block.needs, f"{block.page}: scripts of tools and benchmarks take their time"
    text = (ROOT / arguments[0]).read_text("utf-8")
    assert all(f'"{option}"' in text for option in arguments if option.startswith("--")), block.page

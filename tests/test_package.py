"""The wheel: everything inside, runs from any directory, shadows nobody's ``datasets``; one version everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import zsad_bench
from zsad_bench.core.version import package_version

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("conf", "datasets", "methods", "zsad_bench")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION = PYPROJECT["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    (source / "results").mkdir(parents=True)
    for name in ("__init__.py", "published.csv"):
        shutil.copy(ROOT / "results" / name, source / "results")
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for part in PARTS:
        for path in (ROOT / part).rglob("*"):
            if path.suffix in {".py", ".yaml", ".json", ".safetensors"} and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT).as_posix()
                assert (name if part == "zsad_bench" else f"zsad_bench/{name}") in inside
    assert "zsad_bench/reference/published.csv" in inside
    assert {name.split("/")[0] for name in inside} == {"zsad_bench", f"zsad_bench-{VERSION}.dist-info"}


def test_every_folder_of_python_files_is_a_listed_package() -> None:
    """A new room that pyproject.toml does not name would be missing from the wheel."""
    folders = {file.parent for part in ("datasets", "methods", "zsad_bench") for file in (ROOT / part).rglob("*.py")}
    names = {folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders}
    expected = {name if name.split(".")[0] == "zsad_bench" else f"zsad_bench.{name}" for name in names}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({*expected, "zsad_bench.conf", "zsad_bench.reference"})


def test_one_version_everywhere() -> None:
    """After a change of the version install again: ``make test`` does it by itself."""
    assert package_version() == VERSION
    assert zsad_bench.__version__ == VERSION
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == VERSION


def test_every_requirement_has_a_lower_bound_that_can_be_pinned() -> None:
    """``make test-lowest`` installs what this program prints."""
    program = [sys.executable, str(ROOT / "tools" / "lowest.py")]
    pins = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "numpy==2.0" in pins
    names = {pin.partition("==")[0] for pin in pins}
    assert {re.split(r"[>=<]", text)[0] for text in PYPROJECT["project"]["dependencies"]} <= names


def test_the_root_package_imports_nothing_that_takes_time() -> None:
    code = "import sys, zsad_bench; print(sorted({'torch', 'numpy', 'email', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_runs_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import zsad_bench, sys; from zsad_bench import load_encoder;"
        "from zsad_bench.config.compose import compose_config;"
        f"assert zsad_bench.__file__.startswith({str(site)!r});"
        "config = compose_config(); encoder = load_encoder(config.encoder.model, config.encoder.pretrained);"
        "import zsad_bench.methods.winclip, zsad_bench.datasets.demo as demo;"
        f"assert demo.__file__.startswith({str(site)!r}); assert 'datasets' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)

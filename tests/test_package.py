"""The wheel: everything inside, runs from any directory, shadows nobody's ``datasets``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("conf", "datasets", "methods", "zsad_bench")


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
    assert {name.split("/")[0] for name in inside} == {"zsad_bench", "zsad_bench-0.1.0.dist-info"}


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

"""Shared fixtures: recordings of reference codes, tiny models, tiny datasets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.example_run import CATEGORIES, METHODS, draw_photos, make_run
from tests.helpers.miniatures import save_image
from tests.helpers.recordings import plain_files, recorded_sets, set_name, shared_folder
from tests.helpers.tiny_model import TINY_MODEL
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import load_encoder


@pytest.fixture(scope="session", autouse=True)
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests keep features of their own, not in the user's cache."""
    before = os.environ.get("ZSAD_CACHE")
    os.environ["ZSAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ZSAD_CACHE"]
    else:
        os.environ["ZSAD_CACHE"] = before


@pytest.fixture(scope="session", params=recorded_sets("winclip_musc_metrics"), ids=set_name)
def golden_winclip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of four WinCLIP codes, MuSc and the field's metric codes; see ``recordings.assert_recorded``."""
    return plain_files(request.param, tmp_path_factory)


@pytest.fixture(scope="session", params=recorded_sets("clipad_anovl"), ids=set_name)
def golden_clipad(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of the official CLIP-AD and AnoVL codes; see ``recordings.assert_recorded``."""
    return plain_files(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Real inspection photos in MVTec layout."""
    return shared_folder("data")


@pytest.fixture(scope="session")
def tiny_encoder() -> ClipEncoder:
    """A random ViT of 4 blocks on 6 x 6 patches."""
    return load_encoder(str(TINY_MODEL), None)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """12 small photos, 6 of them with a bright square and its mask, in MVTec layout as category ``plate``."""
    root = tmp_path / "photos"
    random = np.random.default_rng(0)
    for index in range(12):
        pixels = random.integers(90, 130, (40, 56, 3), dtype=np.uint8)
        kind = "good" if index % 2 else "spot"
        if kind == "spot":
            mask = np.zeros((40, 56), dtype=np.uint8)
            mask[8 + index : 20 + index, 10:30] = 255
            pixels[mask > 0] = 240
            save_image(root / "plate" / "ground_truth" / kind / f"{index:03}_mask.png", mask)
        save_image(root / "plate" / "test" / kind / f"{index:03}.png", pixels)
    return root


@pytest.fixture(scope="session")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of made-up methods on drawn photos, with two seeds; do not change it."""
    folder = tmp_path_factory.mktemp("example")
    dataset = draw_photos(folder / "photos", CATEGORIES[:2], 18)
    make_run(folder / "example", dataset, METHODS[1:], batch_sizes=(1, 4), seeds=(0, 1))
    return folder / "example"


@pytest.fixture(scope="session")
def example_report(example_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of ``example_run``."""
    for package in ("plotly", "itables", "scikit_posthocs"):
        pytest.importorskip(package)
    from zsad_bench.report.write import write_report

    return write_report([example_run], output=tmp_path_factory.mktemp("report"))

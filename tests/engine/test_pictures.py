"""Pictures and stored maps of a category: names that never meet, and values that are what the method gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zsad_bench.data.geometry import Geometry
from zsad_bench.datasets.mvtec import MVTec
from zsad_bench.engine.pictures import write_maps, write_worst
from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import JobInfo

GEOMETRY = Geometry(48, "squash")


def stored(folder: Path, photos: Path, maps: np.ndarray) -> np.ndarray:
    dataset = MVTec(root=photos, name="photos")
    samples = dataset.samples("plate")[: len(maps)]
    write_maps(folder, "plate", dataset, samples, maps, "all", GEOMETRY)
    with np.load(folder / "plate.npz") as file:
        assert file["image_ids"].tolist() == [sample.image_id for sample in samples]
        return np.asarray(file["maps"])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0.0, 0.5), np.float16),
        ((-60000.0, 65504.0), np.float16),
        ((0.0, 65520.0), np.float32),
        ((0.0, 1e30), np.float32),
        ((-1e5, 0.0), np.float32),
        ((0.0, 1e-6), np.float32),  # a multiple of 2^-24, and 6 % off
        ((0.0, 1e-9), np.float32),
    ],
)
def test_stored_maps_are_the_methods_values(
    tmp_path: Path, photo_folder: Path, values: tuple[float, float], dtype: type[np.floating]
) -> None:
    maps = np.random.default_rng(0).random((3, 8, 8), np.float32) / 4 + 0.5
    maps[1, 2, 3:5] = values
    found = stored(tmp_path / "maps", photo_folder, maps)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float64), maps, rtol=2.0**-11, atol=0)


def test_pictures_of_categories_with_like_names(tmp_path: Path, photo_folder: Path) -> None:
    names = ("a/b", "a_b", "Nut", "nut", "nut.v1", "nut.v2", "nut.worst")
    dataset = MVTec(root=photo_folder, name="photos")
    samples = dataset.samples("plate")[:2]
    maps, scores = np.zeros((2, 8, 8), np.float32), {sample.image_id: 0.5 for sample in samples}
    info = JobInfo("m", "paper", "single", "d", "standard", "e", "w", 48, 1, 0, "0" * 12, names)
    folder = JobFolder(tmp_path, info)
    for name in names:
        write_maps(folder.path / "maps", name, dataset, samples, maps, "all", GEOMETRY)
        write_worst(folder.path / "maps", name, dataset, samples, maps, scores, GEOMETRY)
        assert folder.worst_picture(name).exists()
    assert len({path.name.casefold() for path in (folder.path / "maps").iterdir()}) == 3 * len(names)

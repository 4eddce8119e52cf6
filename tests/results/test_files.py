"""Result files: what is written comes back, under names of its own, and damage is noticed."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.result_files import category, info, saved
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic
from zsad_bench.leaderboard.tables import collect
from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import JobInfo
from zsad_bench.statistics.bootstrap import Replicates
from zsad_bench.statistics.histograms import summarise
from zsad_bench.statistics.kept import REPLICATES, SUMMARY, kept_arrays


def test_a_category_survives_the_disk_exactly(tmp_path: Path) -> None:
    result = category("bottle", 1 / 3, math.nan)
    loaded = saved(tmp_path, info(), result).load("bottle")
    assert loaded is not None
    assert loaded.metrics["image_auroc"] == 1 / 3
    assert math.isnan(loaded.metrics["pixel_ap"])
    assert loaded.images == result.images
    assert saved(tmp_path, info()).load("cable") is None


def test_damaged_arrays_count_as_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path, info(), category("bottle", 0.5))
    assert set(folder.arrays("bottle", REPLICATES)) == {"images", "values"}
    path = folder.path / "categories" / "bottle.replicates.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert folder.arrays("bottle", REPLICATES) == {}
    assert folder.arrays("bottle", SUMMARY) == {}


def test_damaged_files_count_as_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path, info(), category("bottle", 0.5))
    path = folder.path / "categories" / "bottle.json"
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    assert folder.load("bottle") is None


def test_folder_names_are_portable() -> None:
    job = JobInfo("m", "Re:construction", "batch", "My Set", "p", "e", "w", 1, "all", 3, "0" * 12, ("c",))
    assert re.fullmatch(r"m-Re-construction_My-Set_ball_s3-[0-9a-f]{10}_0{12}", job.folder)
    plain = replace(job, variant="paper", dataset="real_iad", batch_size=4)
    assert plain.folder == "m_real_iad_b4_s3_000000000000"
    datasets = ("my set", "my-set", "My Set", "my/set", "my_set", "my.set", "mẏ set")
    assert len({replace(job, dataset=dataset).folder.casefold() for dataset in datasets}) == len(datasets)


ALIKE = ("a/b", "a_b", "a b", "a-b", "Screw", "screw", "parts/screw.v1", "screw.v1", "screw.v2", "screw.worst", "con")


def test_categories_with_like_names_have_files_of_their_own(tmp_path: Path) -> None:
    job = replace(info(), categories=ALIKE)
    masks, maps = [np.eye(4, dtype=bool), np.zeros((4, 4), bool)], np.arange(32.0, dtype=np.float32).reshape(2, 4, 4)
    folder = JobFolder(tmp_path, job)
    folder.start("seed: 0\n")
    for number, name in enumerate(ALIKE):
        with_pixels = summarise([f"{name}/a.png", f"{name}/b.png"], masks, maps)
        result = category(name, number / 100)
        folder.save(result, kept_arrays(name, result.units, with_pixels if number % 2 else None))
    for number, name in enumerate(ALIKE):
        found = folder.load(name)
        assert found is not None
        assert (found.category, found.metrics["image_auroc"]) == (name, number / 100)
        assert bool(folder.arrays(name, SUMMARY)) == bool(number % 2)
        assert Replicates.from_arrays(folder.arrays(name, REPLICATES)) is not None
    files = [path.name.casefold() for path in folder.path.rglob("*.*")]
    assert len(set(files)) == len(files) == 2 + 2 * len(ALIKE) + len(ALIKE) // 2
    rows = collect(tmp_path).metrics
    assert rows["category"].tolist() == [*sorted(ALIKE), "mean"]


def test_files_of_version_0_1_are_found_if_they_are_of_the_category(tmp_path: Path) -> None:
    job = replace(info(), categories=ALIKE)
    folder = saved(tmp_path, job, category("a/b", 0.5), category("screw.v1", 0.25), category("Screw", 0.75))
    for name, earlier in (("a/b", "a_b"), ("screw.v1", "screw.v1"), ("Screw", "Screw")):
        stem = folder.category_file(name).stem
        for ending in (".json", ".replicates.npz"):
            (folder.path / "categories" / f"{stem}{ending}").rename(folder.path / "categories" / f"{earlier}{ending}")
    assert [name for name in ALIKE if folder.load(name) is not None] == ["a/b", "Screw", "screw.v1"]
    assert folder.arrays("a/b", REPLICATES)
    folder.save(category("a_b", 0.125))  # as it is plain, its name is that of the old file
    loaded = folder.load("a_b")
    assert loaded is not None
    assert loaded.metrics["image_auroc"] == 0.125
    assert folder.load("a/b") is None  # computed again, and kept apart from then on
    folder.save(category("a/b", 0.5))
    assert [folder.load(name) is not None for name in ("a/b", "a_b")] == [True, True]


def test_a_job_is_read_where_it_lies(tmp_path: Path) -> None:
    job = replace(info(), dataset="My Set", categories=("bottle",))
    folder = saved(tmp_path, job, category("bottle", 0.5))
    folder.path.rename(folder.path.with_name("winclip_my-set_b8_s0_aaaaaaaaaaaa"))  # what version 0.1 called it
    assert collect(tmp_path).metrics["category"].tolist() == ["bottle", "mean"]


def test_unwritable_places_are_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        write_atomic(blocked / "x.csv", "")
    assert list(tmp_path.iterdir()) == [blocked]

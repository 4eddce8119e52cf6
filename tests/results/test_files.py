"""Result files: tables from small hand-made jobs."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.tables import unpadded
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic
from zsad_bench.leaderboard.paper_figures import published
from zsad_bench.leaderboard.tables import collect, write_tables
from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import CategoryResult, ImageResult, JobInfo
from zsad_bench.statistics.histograms import summarise


def info(
    method: str = "winclip", batch_size: int | str = 8, setting: str = "single", digest: str = "a" * 12
) -> JobInfo:
    labels = (method, "paper", setting, "mvtec", "standard", "ViT", "tag", 240)
    return JobInfo(*labels, batch_size, 0, digest, ("bottle", "cable"))


def category(name: str, auroc: float, pixel: float = 0.5) -> CategoryResult:
    metrics = dict.fromkeys(("image_auroc", "image_ap", "image_f1max"), auroc)
    metrics |= dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"), pixel)
    images = (ImageResult(f"{name}/a.png", 0, "good", 0.1), ImageResult(f"{name}/b.png", None, "", 0.25))
    return CategoryResult(name, 2, 1, 0, metrics, "", "print", images, {"seconds_load": 1.5})


def saved(folder: Path, job: JobInfo, *results: CategoryResult) -> JobFolder:
    job_folder = JobFolder(folder, job)
    job_folder.start("seed: 0\n")
    for result in results:
        job_folder.save(result)
    return job_folder


def test_a_category_survives_the_disk_exactly(tmp_path: Path) -> None:
    result = category("bottle", 1 / 3, math.nan)
    loaded = saved(tmp_path, info(), result).load("bottle")
    assert loaded is not None
    assert loaded.metrics["image_auroc"] == 1 / 3
    assert math.isnan(loaded.metrics["pixel_ap"])
    assert loaded.images == result.images
    assert saved(tmp_path, info()).load("cable") is None


def test_damaged_files_count_as_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path, info(), category("bottle", 0.5))
    path = folder.path / "categories" / "bottle.json"
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    assert folder.load("bottle") is None


def test_means_need_every_category(tmp_path: Path) -> None:
    saved(tmp_path, info("whole"), category("bottle", 0.5), category("cable", 0.7))
    saved(tmp_path, info("part", digest="b" * 12), category("bottle", 0.9))
    tables = collect(tmp_path)
    rows = tables.metrics.set_index(["method", "category"])
    assert rows.loc[("whole", "mean"), "image_auroc"] == pytest.approx(0.6)
    assert rows.loc[("whole", "mean"), "n_images"] == 4
    assert ("part", "mean") not in rows.index
    board = tables.leaderboard.set_index("method")
    assert board.loc["part", "categories"] == "1/2"
    assert pd.isna(board.loc["part", "image_auroc"])
    assert pd.isna(board.loc["part", "rank"])


def test_undefined_metrics_have_no_mean_and_a_note(tmp_path: Path) -> None:
    saved(tmp_path, info(), category("bottle", 0.5), category("cable", 0.7, math.nan))
    mean = collect(tmp_path).metrics.set_index("category").loc["mean"]
    assert math.isnan(mean["pixel_aupro"])
    assert "pixel_aupro defined in 1/2 categories" in mean["notes"]
    assert mean["image_auroc"] == pytest.approx(0.6)


def test_ranks_stay_within_a_setting(tmp_path: Path) -> None:
    for number, (method, setting, auroc) in enumerate(
        [("a", "single", 0.6), ("b", "single", 0.8), ("c", "batch", 0.7)]
    ):
        results = (category("bottle", auroc), category("cable", auroc))
        saved(tmp_path, info(method, setting=setting, digest=str(number) * 12), *results)
    board = collect(tmp_path).leaderboard
    assert dict(zip(board["method"], board["rank"], strict=True)) == {"a": 2, "b": 1, "c": 1}


def test_rows_are_ordered_by_what_they_are(tmp_path: Path) -> None:
    for number, size in enumerate(["all", 16, 4]):
        saved(tmp_path, info(batch_size=size, digest=str(number) * 12), category("cable", 0.5), category("bottle", 0.5))
    metrics = collect(tmp_path).metrics
    assert metrics["batch_size"].tolist() == [4] * 3 + [16] * 3 + ["all"] * 3
    assert metrics["category"].tolist() == ["bottle", "cable", "mean"] * 3


def test_tables_are_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    saved(tmp_path, info(), category("cable", 1 / 3), category("bottle", 2 / 3))
    write_tables(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    write_tables(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == first
    assert b"0.3333333333333333," in first["metrics.csv"]
    assert "| 1 | winclip |" in unpadded(first["leaderboard.md"].decode())
    assert "50.0" in first["leaderboard.md"].decode()


def test_an_empty_folder_gives_empty_tables(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    assert tables.metrics.empty
    assert (tmp_path / "leaderboard.md").read_text(encoding="utf-8") == "No finished job.\n"


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
        folder.save(category(name, number / 100), with_pixels if number % 2 else None)
    for number, name in enumerate(ALIKE):
        found = folder.load(name)
        assert found is not None
        assert (found.category, found.metrics["image_auroc"]) == (name, number / 100)
        assert (folder.summary(name) is not None) == bool(number % 2)
        assert folder.replicates(name) is not None
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
    assert folder.replicates("a/b") is not None
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


def test_published_figures_stand_beside_comparable_jobs(tmp_path: Path) -> None:
    base = info()
    standard = "standard, 240 px"
    same = replace(base, encoder="ViT-B-16-plus-240", pretrained="laion400m_e32", protocol=standard)
    others = [
        replace(same, encoder="ViT-L-14", config_hash="1" * 12),
        replace(same, protocol="standard, limit 5, 240 px", config_hash="2" * 12),
        replace(same, image_size=336, config_hash="3" * 12),
    ]
    for job in (same, *others):
        saved(tmp_path, job, category("bottle", 0.5), category("cable", 0.7))
    board = collect(tmp_path).leaderboard.set_index("config_hash")
    assert board.loc["a" * 12, "published_image_auroc"] == 0.918
    assert "2303.14814" in board.loc["a" * 12, "published_source"]
    assert board.drop("a" * 12)["published_image_auroc"].isna().all()


def test_published_figures_are_clean() -> None:
    table = published()
    metrics = table.filter(regex="^(image|pixel)_(auroc|ap|f1max|aupro)$")
    assert metrics.stack().dropna().between(0, 1).all()
    assert table["source"].str.len().gt(5).all()
    assert set(table["method"]) == {"winclip", "anoclip", "clip_ad", "musc"}
    assert table["dataset"].str.fullmatch("[a-z0-9_]+").all()

"""The command line from end to end, in this process, on small real files with a tiny encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from tests.helpers.miniatures import save_image
from tests.helpers.result_files import comparable_tables
from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main

ENCODER = [*TINY_ENCODER, "name=run"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "run"


def run(root: Path, *arguments: str) -> int:
    return main([*arguments, "dataset=mvtec", f"dataset.root={root}", *ENCODER])


def test_one_run_writes_everything(here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photo_folder) == 0
    rows = pd.read_csv(here / "metrics.csv", keep_default_na=False)
    assert rows["category"].tolist() == ["plate", "mean"]
    assert set(rows["dataset"]) == {"photos"}  # not "mvtec": these are not the categories of MVTec AD
    assert (rows["n_images"] == 12).all()
    assert (rows["n_anomalous"] == 6).all()
    assert (rows["pretrained"] == "random").all()
    for metric in ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"):
        assert rows[metric].astype(float).between(0, 1).all()
    images = pd.read_csv(here / "images.csv")
    assert images["image_id"].tolist() == sorted(images["image_id"])
    assert images["score"].between(0, 1).all()
    (job,) = (here / "jobs").iterdir()
    assert (job / "maps" / "plate.png").stat().st_size > 10_000
    assert (job / "config.yaml").exists()
    assert pd.read_csv(here / "timing.csv")["images_per_second"].gt(0).all()
    captured = capsys.readouterr()
    assert "metrics.csv" in captured.out
    assert "weights are random" in captured.err


def test_the_same_command_is_byte_for_byte_the_same(
    here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photo_folder, "maps=all") == 0
    first = comparable_tables(here)
    (stored,) = here.glob("jobs/*/maps/plate.npz")
    assert np.load(stored)["maps"].shape == (12, 48, 48)
    capsys.readouterr()
    assert run(photo_folder, "maps=all") == 0
    assert "finished already" in capsys.readouterr().err
    assert comparable_tables(here) == first
    assert run(photo_folder, "maps=all", "overwrite=always") == 0
    assert "finished already" not in capsys.readouterr().err
    assert comparable_tables(here) == first


def test_a_given_dataset_name_is_kept(here: Path, photo_folder: Path) -> None:
    assert run(photo_folder, "dataset.name=plates", "maps=none", "limit=2") == 0
    rows = pd.read_csv(here / "metrics.csv")
    assert set(rows["dataset"]) == {"plates"}
    assert set(rows["protocol"]) == {"standard, limit 2, 48 px"}


def test_changed_photos_are_evaluated_again(here: Path, photo_folder: Path) -> None:
    assert run(photo_folder) == 0
    first = comparable_tables(here)
    save_image(photo_folder / "plate" / "test" / "good" / "100.png", np.zeros((40, 56, 3), np.uint8))
    assert run(photo_folder) == 0
    assert comparable_tables(here) != first
    assert pd.read_csv(here / "metrics.csv")["n_images"].tolist() == [13, 13]


def test_a_sweep_ends_with_one_leaderboard(here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photo_folder, "-m", "method=winclip,winclip_zqhang", "batch_size=1,5,all", "maps=none") == 0
    board = pd.read_csv(here / "leaderboard.csv")
    assert len(board) == 6
    assert "leaderboard" in capsys.readouterr().out
    rows = pd.read_csv(here / "metrics.csv")
    for _, group in rows[rows["category"] == "mean"].groupby("variant"):
        values = group.filter(regex="^(image|pixel)_").drop(columns="image_size").to_numpy(float)
        assert np.abs(values - values[0]).max() < 1e-5
    scores = pd.read_csv(here / "images.csv").pivot_table(
        index="image_id", columns=["variant", "batch_size"], values="score"
    )
    assert scores["paper"].std(axis=1).max() < 1e-5


@pytest.mark.parametrize("sweep", [[], ["-m", "batch_size=1,4"]], ids=["job", "sweep"])
def test_keys_of_hydra_are_followed(sweep: list[str], here: Path, photo_folder: Path) -> None:
    common = ["method=musc", "maps=none"]
    assert run(photo_folder, *sweep, *common) == 0
    tables = comparable_tables(here)
    assert not (here / ".hydra").exists()
    assert run(photo_folder, *sweep, *common, "overwrite=always", "hydra.output_subdir=.hydra") == 0
    assert (here / ".hydra" / "overrides.yaml").exists()
    assert comparable_tables(here) == tables


def test_swept_methods_may_have_keys_that_the_default_method_lacks(here: Path, photo_folder: Path) -> None:
    sigmas = ("-m", "method=clip_ad,clip_ad_transductive", "method.sigma=3.5")
    assert run(photo_folder, *sigmas, "method.layers=[2]", "dataset.categories=[plate]", "maps=none") == 0
    methods = [OmegaConf.load(path).method for path in here.glob("jobs/*/config.yaml")]
    assert sorted(method.name for method in methods) == ["clip_ad", "clip_ad_transductive"]
    assert all(method.sigma == 3.5 for method in methods)


def test_interrupted_work_is_finished_and_equal(here: Path, photo_folder: Path) -> None:
    for copy in ("bolt", "nut"):
        for path in (photo_folder / "plate").rglob("*.png"):
            target = photo_folder / copy / path.relative_to(photo_folder / "plate")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert run(photo_folder) == 0
    expected = comparable_tables(here)
    (job,) = (here / "jobs").iterdir()
    (job / "categories" / "nut.json").unlink()
    (job / "categories" / "bolt.json").write_text("{", encoding="utf-8")
    kept = (job / "categories" / "plate.json").stat().st_mtime_ns
    assert run(photo_folder) == 0
    assert comparable_tables(here) == expected
    assert (job / "categories" / "plate.json").stat().st_mtime_ns == kept


def test_a_broken_image_stops_but_keeps_what_is_done(
    here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(photo_folder / "zebra" / "test" / "good" / "000.png", np.zeros((40, 56, 3), np.uint8))
    broken = photo_folder / "zebra" / "test" / "good" / "001.png"
    broken.write_bytes(b"\x89PNG broken")
    assert run(photo_folder, "maps=none") == 2
    error = capsys.readouterr().err
    assert "001.png" in error
    assert "Traceback" not in error
    assert pd.read_csv(here / "metrics.csv")["category"].tolist() == ["plate"]
    assert pd.read_csv(here / "leaderboard.csv")["categories"].tolist() == ["1/2"]
    assert run(photo_folder, "maps=none", "on_error=skip") == 0
    rows = pd.read_csv(here / "metrics.csv")
    assert rows.loc[rows["category"] == "zebra", "n_skipped"].tolist() == [1]


def test_a_sweep_survives_a_failing_job(here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photo_folder, "-m", "method.windows=[2],[9]", "maps=none") == 2
    error = capsys.readouterr().err
    assert "method.windows=[9]" in error
    assert "Traceback" not in error
    assert len(pd.read_csv(here / "leaderboard.csv").dropna(subset="rank")) == 1
    (failure,) = here.glob("failed/*/*.json")
    assert json.loads(failure.read_text(encoding="utf-8"))["exit_code"] == 2


def test_photos_without_labels_get_scores_and_maps(here: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(3):
        save_image(
            tmp_path / "my photos" / f"{index}.jpg", random.integers(0, 255, (30, 20 + index, 3), dtype=np.uint8)
        )
    assert main(["dataset=folder", f"dataset.root='{tmp_path / 'my photos'}'", *ENCODER]) == 0
    rows = pd.read_csv(here / "metrics.csv")
    assert rows["image_auroc"].isna().all()
    assert "no labels" in rows["notes"][0]
    assert len(pd.read_csv(here / "images.csv")["score"].dropna()) == 3
    assert len(list(here.glob("jobs/*/maps/*.png"))) == 1


def test_only_anomalous_photos_get_pixel_metrics(here: Path, photo_folder: Path) -> None:
    for path in (photo_folder / "plate" / "test" / "good").iterdir():
        path.unlink()
    assert run(photo_folder, "maps=none") == 0
    row = pd.read_csv(here / "metrics.csv").iloc[0]
    assert pd.isna(row["image_auroc"])
    assert pd.isna(row["image_ap"])
    assert 0 <= row["pixel_auroc"] <= 1
    assert "no normal image" in row["notes"]


def test_anomalous_photos_without_masks_get_image_metrics(here: Path, photo_folder: Path) -> None:
    for path in (photo_folder / "plate" / "ground_truth" / "spot").iterdir():
        path.unlink()
    assert run(photo_folder, "maps=none") == 0
    row = pd.read_csv(here / "metrics.csv").iloc[0]
    assert 0 <= row["image_auroc"] <= 1
    assert pd.isna(row["pixel_auroc"])
    assert "6 anomalous images without a mask" in row["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=mvtec", "dataset.root=/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["method=winclop"], "did you mean winclip"),
        (["batch_size=0"], "batch_size=0"),
        (["-m", "batch_size=1,0"], "batch_size=0"),
        (["dataset=demo", "dataset.categories=[pcbs]"], "did you mean 'pcb'"),
        (["encoder.image_size=50"], "multiple of the patch size"),
        (["encoder.pretrained=missing.pt"], "missing.pt: no such weights file"),
        (["results_dir=/proc/none"], "/proc/none"),
    ],
)
def test_mistakes_exit_with_2_and_one_line(
    here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    defaults = ["dataset=mvtec", f"dataset.root={photo_folder}"] if not any("dataset=" in a for a in arguments) else []
    if "dataset=demo" in arguments:
        defaults = ["dataset.size=32", "dataset.n_normal=1", "dataset.n_anomalous=0", "dataset.n_train=0"]
    assert main([*defaults, *ENCODER, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_data_check_finds_problems(here: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "dataset=mvtec", f"dataset.root={photo_folder}"]) == 0
    assert "plate" in capsys.readouterr().out
    save_image(photo_folder / "plate" / "ground_truth" / "spot" / "999_mask.png", np.zeros((4, 4), np.uint8))
    assert main(["data", "check", "dataset=mvtec", f"dataset.root={photo_folder}"]) == 1
    assert "999_mask.png" in capsys.readouterr().out
    assert main(["data", "chekc"]) == 2


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from zsad_bench.cli.main import main; sys.argv = ['zsad-bench', '--help'];"
        "main(); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("dataset=folder", "winclip", "batch_size", "zsad-bench data"):
        assert part in done.stdout

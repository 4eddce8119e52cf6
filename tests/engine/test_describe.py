"""What rows say of a job: the variant of a YAML only with its keys, the weights, the precision, the protocol."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import zeros

from tests.helpers.tiny_model import TINY_ENCODER
from zsad_bench.cli.main import main
from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.contract import Dataset, Method
from zsad_bench.engine.describe import _released, describe
from zsad_bench.engine.method_card import MethodCard, bundled_presets, literal
from zsad_bench.leaderboard.paper_figures import comparable
from zsad_bench.results.rows import EXAMPLE, PARITY, RECONSTRUCTION, JobInfo

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
TINY = [*TINY_ENCODER, "encoder.precision=fp32"]


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 15 categories of MVTec AD by name, two images each."""
    root = tmp_path_factory.mktemp("data") / "mvtec"
    for category in compose_config(["dataset=mvtec"]).dataset.class_names:
        for kind in ("good", "broken"):
            (root / category / "test" / kind).mkdir(parents=True)
            Image.new("RGB", (48, 48)).save(root / category / "test" / kind / "0.png")
    return root


def info_of(root: Path, *overrides: str) -> JobInfo:
    config = compose_config(["dataset=mvtec", f"dataset.root='{root}'", *overrides])
    method = build(config.method, Method, "method")
    return describe(config, method, build(config.dataset, Dataset, "dataset"))


def test_the_default_row_is_the_papers_with_its_published_figure(mvtec: Path) -> None:
    info = info_of(mvtec)
    assert (info.variant, info.fidelity, info.precision, info.protocol) == ("paper", PARITY, "fp32", "standard, 240 px")
    assert comparable(info).values["image_auroc"] == pytest.approx(0.918)


@pytest.mark.parametrize(
    ("changes", "variant"),
    [
        (["method.temperature=5", "method.windows=[1]"], "modified (temperature=5, windows=[1])"),
        (["method.image_term=false"], "modified (image_term=false)"),
        (["method.prompt_average=raw"], "modified (prompt_average=raw)"),
        (["method.prompts=winclip_zqhang"], "modified (prompts=winclip_zqhang)"),
        (["method=winclip_zqhang", "method.temperature=1"], "zqhang, modified (temperature=1)"),
        (["method.variant=zqhang"], "zqhang, modified (prompts=winclip)"),
        (["method.variant=mine"], "mine, modified (variant=mine)"),
        (["method=fiseclip", "method.drop=0.1"], "reconstruction, modified (drop=0.1)"),
        (["method=musc", "method.layers=[1,2]", "batch_size=all"], "modified (layers=[1, 2])"),
    ],
)
def test_other_keys_than_the_yaml_has_are_named_and_no_figure_stands_beside(
    mvtec: Path, changes: list[str], variant: str
) -> None:
    info = info_of(mvtec, *changes)
    assert (info.variant, info.fidelity) == (variant, "modified")
    assert comparable(info).values == {}


@pytest.mark.parametrize(
    ("changes", "protocol"),
    [
        (["encoder.resize=shortest"], "standard, resize shortest, 240 px"),
        (["evaluation_size=256"], "standard, 256 px"),
        (["encoder.image_size=224"], "standard, 224 px"),
        (["limit=2"], "standard, limit 2, 240 px"),
        (["last_batch=keep"], "standard, last batch kept short, 240 px"),
        (["last_batch=drop", "batch_size=1"], "standard, 240 px"),
        (["dataset.mask_threshold=9"], "standard, mask > 9, 240 px"),
        (["dataset.categories=[bottle]"], "standard, categories bottle, 240 px"),
    ],
)
def test_what_changes_the_measured_pixels_is_protocol(mvtec: Path, changes: list[str], protocol: str) -> None:
    info = info_of(mvtec, *changes)
    assert info.protocol == protocol
    assert (comparable(info).values == {}) == (protocol != "standard, 240 px")


def test_choices_of_an_experiment_do_not_modify_a_variant(mvtec: Path, tmp_path: Path) -> None:
    assert info_of(mvtec, "method=winclip_fewshot", "method.k_shot=4").variant == "paper"
    config = compose_config(["method=clip_ad_plus", "method.checkpoint=layers.safetensors", "dataset=mvtec"])
    method = build(config.method, Method, "method")
    assert "checkpoint" in method.FILES


@pytest.mark.parametrize("preset", PRESETS)
def test_every_card_is_complete_and_its_evidence_exists(preset: str, mvtec: Path) -> None:
    config = compose_config([f"method={preset}"])
    card = MethodCard.of(dict(config.method))
    assert card.version >= 1
    assert card.level in (PARITY, RECONSTRUCTION, EXAMPLE)
    assert card.paper
    assert card.code
    assert card.citation
    if card.level == PARITY:
        path, _, name = card.evidence.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
    else:
        assert card.evidence == ""
        assert card.level in config.method.variant


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_is_modified(preset: str, mvtec: Path) -> None:
    changes = ["method.checkpoint=null"] if "clip_ad_plus" in preset else []
    info = info_of(mvtec, f"method={preset}", *changes)
    assert "modified" not in info.variant
    assert info.fidelity == MethodCard.of(bundled_presets()[preset]).level


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_no_published_set_up_is_modified(experiment: str, mvtec: Path) -> None:
    config = compose_config([f"+experiment={experiment}", f"dataset.root='{mvtec}'", "dataset=mvtec"])
    method = build(config.method, Method, "method")
    info = describe(config, method, build(config.dataset, Dataset, "dataset"))
    assert info.fidelity == PARITY


def test_values_are_written_as_on_the_command_line() -> None:
    assert [literal(value) for value in (None, True, 0.5, [1, 2], "a", {"k": [None]})] == [
        *("null", "true", "0.5", "[1, 2]", "a", "{k: [null]}")
    ]


def test_weights_say_what_they_are(mvtec: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({"a": zeros(1)}, path)
    label = info_of(mvtec, f"encoder.pretrained={path}").pretrained
    assert label.startswith("mine.safetensors ")
    save_file({"a": zeros(2)}, path)
    assert info_of(mvtec, f"encoder.pretrained={path}").pretrained != label
    assert info_of(mvtec, "encoder.pretrained=null").pretrained == "random"
    assert info_of(mvtec).pretrained == "laion400m_e32"
    assert ("laion400m_e32", "699c4b84") in set(_released("ViT-B-16-plus-240"))
    assert ("openai", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02") in set(
        _released("ViT-L-14-336-quickgelu")
    )


def test_a_teaching_encoder_says_so_wherever_its_file_lies(mvtec: Path, tmp_path: Path) -> None:
    config = compose_config(["dataset=demo"]).encoder
    folder = ROOT / "zsad_bench" / "demo_encoder"
    copy = tmp_path / "innocent.safetensors"
    shutil.copy(folder / "demo_clip.safetensors", copy)
    model = f"encoder.model={folder / 'demo_clip.json'}"
    for pretrained in (config.pretrained, copy):
        assert info_of(mvtec, model, f"encoder.pretrained={pretrained}").encoder == "demo_clip (teaching)"


def test_keys_that_a_sweep_varies_are_columns(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["dataset=mvtec", f"dataset.root={photo_folder}", *TINY, "maps=none", "name=run"]
    assert main(["-m", "method=winclip,musc", "++method.temperature=0.01,0.07", "dataset.fast_jpeg=false", *data]) != 0
    assert main(["-m", "method=winclip", "method.temperature=0.01,0.07,0.5", *data]) == 0
    assert main(["method=musc", *data]) == 0
    board = pd.read_csv("results/run/leaderboard.csv")
    winclip = board[board["method"] == "winclip"]
    assert sorted(winclip["method.temperature"]) == [0.01, 0.07, 0.5]
    assert board[board["method"] == "musc"]["method.temperature"].isna().all()
    assert set(winclip["variant"]) == {"paper", "modified (temperature=0.01)", "modified (temperature=0.5)"}
    metrics = pd.read_csv("results/run/metrics.csv")
    assert set(metrics["method.temperature"].dropna()) == {0.01, 0.07, 0.5}
    for name in ("leaderboard.md", "leaderboard.tex"):
        assert "temperature" in Path(f"results/run/{name}").read_text(encoding="utf-8")
    assert "temperature" in capsys.readouterr().out


def test_rows_that_measured_other_pixels_are_ranked_apart(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["dataset=mvtec", f"dataset.root={photo_folder}", *TINY, "maps=none", "name=run", "method=winclip"]
    assert main(["-m", "encoder.image_size=48,64", "encoder.resize=squash,shortest", *data]) == 0
    board = pd.read_csv("results/run/leaderboard.csv")
    assert board["rank"].tolist() == [1, 1, 1, 1]
    assert main(["-m", "encoder.image_size=48,64", "evaluation_size=56", *data, "name=same"]) == 0
    assert sorted(pd.read_csv("results/same/leaderboard.csv")["rank"]) == [1, 2]

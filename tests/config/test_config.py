"""The configuration refuses mistakes before anything heavy is imported, naming the key and the nearest valid one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from zsad_bench.config.compose import compose_config, compose_jobs, hydra_session
from zsad_bench.config.run_name import run_name
from zsad_bench.config.sweeps import every_job, expand_seeds
from zsad_bench.core.errors import UserError
from zsad_bench.text.ensembles import ensemble_names

CONF = Path(__file__).resolve().parents[2] / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.temprature=1", "method.temprature: no such key; did you mean method.temperature?"),
        ("temperature=1", "did you mean method.temperature?"),
        ("batch_sise=4", "did you mean batch_size?"),
        ("methd=winclip", "did you mean method?"),
        ("encoder.modle=x", "did you mean encoder.model?"),
        ("dataset.rot=x", "did you mean dataset.root?"),
        ("method=winclp", "did you mean winclip?"),
        ("method=nothing_like_it", "choose from"),
        ("dataset=mvtek", "did you mean mvtec?"),
        ("seed=abc", "could not be converted to Integer"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("limit=1.5", "limit=1.5"),
        ("limit=-3", "limit=-3: must be at least 1"),
        ("batch_size=0", "batch_size=0: must be at least 1"),
        ("batch_size=many", "or all"),
        ("batch_size=1,4", "-m batch_size=1,4"),
        ("method.temperature=warm", "must be a number"),
        ("method.image_term=3", "must be true or false"),
        ("method.windows=2", "must be a list"),
        ("encoder.precision=int8", "choose fp32"),
        ("on_error=ignore", "choose stop or skip"),
        ("foo", "'foo': cannot be read; write key=value"),
        ("name=[", "cannot be read"),
    ],
)
def test_mistakes_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_config([override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_photos_need_a_root() -> None:
    with pytest.raises(UserError, match=r"dataset.root=<folder>"):
        compose_config(["dataset=folder"])


def test_the_demo_encoder_is_chosen_for_the_demo_only() -> None:
    assert "demo" in compose_config([]).encoder.model
    real = compose_config(["dataset=mvtec"])
    assert (real.encoder.model, real.encoder.pretrained) == ("ViT-B-16-plus-240", "laion400m_e32")
    assert compose_config(["encoder=vit_l_14"]).encoder.model == "ViT-L-14-quickgelu"


def test_data_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZSAD_DATA", raising=False)
    assert compose_config(["dataset=visa"]).dataset.root == "data/visa"
    monkeypatch.setenv("ZSAD_DATA", "/somewhere")
    assert compose_config(["dataset=visa"]).dataset.root == "/somewhere/visa"


@pytest.mark.parametrize("method", options("method"))
def test_every_method_config_composes_and_names_its_prompts(method: str) -> None:
    prompts = compose_config([f"method={method}"]).method.get("prompts")
    assert prompts is None or prompts in ensemble_names()


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_and_its_method_exists(experiment: str) -> None:
    config = compose_config([f"+experiment={experiment}"])
    assert experiment.startswith(config.method.name.removesuffix("_transductive").split("_")[0])
    assert config.dataset.name in experiment
    assert config.name == experiment.replace("_", "-")


@pytest.mark.parametrize(
    ("dataset", "encoder"),
    [(dataset, "demo") for dataset in options("dataset")] + [("mvtec", encoder) for encoder in options("encoder")],
)
def test_every_dataset_and_every_encoder_composes(dataset: str, encoder: str) -> None:
    config = compose_config([f"dataset={dataset}", f"encoder={encoder}", "dataset.root=photos"])
    assert config.encoder.resize == "squash"
    assert OmegaConf.missing_keys(config) == set()


def test_names_come_from_the_choices() -> None:
    assert run_name([]) == "winclip_demo"
    assert (
        run_name(["method=winclip", "dataset=mvtec", "batch_size=8", "results_dir=x"]) == "winclip_mvtec_batch-size-8"
    )
    assert run_name(["dataset=folder", f"dataset.root='{Path.cwd()}/my_photos'"]) == "winclip_folder-my_photos"
    far = {run_name(["dataset=folder", f"dataset.root='{root}'"]) for root in ("/data/photos", "a/photos", "b/photos")}
    assert len(far) == 3
    assert all(name.startswith("winclip_folder-photos-") for name in far)
    assert run_name(["dataset=folder", "dataset.root=my_photos"]) == "winclip_folder-my_photos"
    roots = ["my-photos", "my photos", "My Photos", "my.photos", "photos ", "фото", "снимки", "con"]
    names = {run_name(["dataset=folder", f"dataset.root='{root}'"]) for root in roots}
    assert len(names) == len(roots)
    assert all(re.fullmatch(r"winclip_folder-[a-z0-9_-]+", name) for name in names)
    assert run_name(["method.prompts=ж.yaml"]) != run_name(["method.prompts=ш.yaml"])
    sweep = run_name(["method=a,b,c", "batch_size=1,4,16", "encoder.pretrained=/long/way/w.safetensors"])
    assert sweep == "a-b-c_demo_batch-size-1-4-16_pretrained-w.safetensors"
    long = run_name([f"method.windows=[{','.join(map(str, range(80)))}]"])
    assert len(long) <= 100
    assert long != run_name([f"method.windows=[{','.join(map(str, range(81)))}]"])


def test_a_sweep_is_every_combination_in_the_order_given() -> None:
    jobs = every_job(["method=winclip,winclip_mala", "batch_size=1,4,all", "seed=range(0,2)", "limit=5"])
    assert len(jobs) == len({tuple(job) for job in jobs}) == 2 * 3 * 2
    assert jobs[0] == ["method=winclip", "batch_size=1", "seed=0", "limit=5"]
    assert jobs[1] == ["method=winclip", "batch_size=1", "seed=1", "limit=5"]
    assert {value for job in jobs for value in job if value.startswith("batch")} == {
        "batch_size=1",
        "batch_size=4",
        "batch_size=all",
    }


@pytest.mark.parametrize("more", [[], ["dataset.n_normal=3", "+experiment=winclip_mvtec"]])
def test_jobs_are_composed_once_for_each_choice_of_groups(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compositions = []
    original = ConfigLoaderImpl._load_configuration_impl

    def counted(*arguments: object, **keys: object) -> object:
        compositions.append(keys.get("overrides"))
        return original(*arguments, **keys)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counted)
    jobs = every_job(["method=winclip,musc", "dataset=demo", "batch_size=1,4,all", "seed=0,1", *more])
    together = [job.config for job in compose_jobs(jobs)]
    assert len(compositions) == 2
    assert together == [compose_config(job) for job in jobs]
    assert [config.seed for config in together[:2]] == [0, 1]


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=musc", "method.sides=[1]", "batch_size=all", "name=x", "board.filter={method: [musc]}"],
        ["encoder=vit_l_14", "encoder.precision=bf16", "+method.extra=1", "~method.variant", "name=x"],
        ["dataset=mvtec", "dataset.root=/data", "dataset.categories=[bottle]", "features=off", "+new=3", "name=x"],
    ],
)
def test_single_keys_change_a_config_as_in_a_composition_by_hydra(overrides: list[str]) -> None:
    with hydra_session():
        expected = hydra.compose("config", overrides=overrides)
    assert compose_config(overrides) == expected


def test_configuration_does_not_import_torch() -> None:
    code = (
        "import sys; from zsad_bench.config.compose import compose_config, compose_jobs, hydra_session\n"
        "compose_config(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("text", ["seeds=3", "seeds=2..1", "seeds=0...2", "seeds=a..b"])
def test_other_forms_of_seeds_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"seeds=0\.\.9"):
        expand_seeds([text])
    assert expand_seeds(["a=1", "seeds=2..4"]) == ["a=1", "seed=2,3,4"]

"""What must and what must not change whether a finished result is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import open_dict

from tests.helpers.miniatures import save_image
from tests.helpers.tiny_model import TINY_ENCODER, TINY_MODEL
from zsad_bench import load_dataset
from zsad_bench.cli.main import main
from zsad_bench.config.compose import compose_config
from zsad_bench.config.schema import METHOD_CARD
from zsad_bench.contract import Sample
from zsad_bench.engine.identity import fingerprint, identity

MVTEC = ["dataset=mvtec", "dataset.root=data"]
TINY = [*TINY_ENCODER, "encoder.precision=fp32"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def of(*overrides: str, categories: tuple[str, ...] = ("bottle",)) -> str:
    return identity(compose_config(list(overrides)), categories)


@pytest.mark.parametrize(
    "more",
    [
        ["dataset.root=/elsewhere"],
        ["encoder.device=cpu"],
        ["encoder.chunk_size=1"],
        ["maps=none"],
        ["results_dir=x"],
        ["name=x"],
        ["threads=3"],
        ["features=off"],
        ["fail_fast=true"],
        ["shard=1/2"],
        ["overwrite=always"],
        ["dataset.title=other"],
        ["dataset.about.used_by=other"],
        ["method.paper=other"],
        ["method.code=other"],
        ["method.citation=other"],
        ["method.fidelity.level=example"],
        ["encoder.image_size=240"],  # the model's own
        ["evaluation_size=240"],  # the encoder's
        ["batch_size=8"],
        ["board.metric=pixel_ap"],
    ],
    ids=" ".join,
)
def test_what_changes_no_number_changes_no_identity(more: list[str]) -> None:
    assert of(*MVTEC, *more) == of(*MVTEC)


DIFFERENT = [
    ["seed=1"],
    ["batch_size=4"],
    ["last_batch=keep"],
    ["last_batch=drop"],
    ["limit=3"],
    ["evaluation_size=128"],
    ["sweep200=true"],
    ["on_error=skip"],
    ["method=winclip_zqhang"],
    ["method.temperature=0.1"],
    ["method.windows=[2]"],
    ["method.version=2"],
    ["method.prompts=winclip_zqhang"],
    ["encoder=vit_b_16"],
    ["encoder.pretrained=laion400m_e31"],
    ["encoder.pretrained=null"],
    ["encoder.image_size=256"],
    ["encoder.resize=shortest"],
    ["encoder.precision=bf16"],
    ["encoder.feature_bits=32"],
    ["encoder.compile=true"],
    ["dataset.mask_threshold=9"],
    ["dataset.fast_jpeg=true"],
    ["dataset.protocol=mine"],
    ["dataset.class_names={bottle: jar}"],
]


def test_what_changes_a_number_changes_the_identity() -> None:
    found = {of(*MVTEC), of(*MVTEC, categories=("bottle", "cable"))}
    found |= {of(*MVTEC, *more) for more in DIFFERENT}
    assert len(found) == 2 + len(DIFFERENT)


@pytest.mark.parametrize("size", ["1", "all"])
def test_a_key_without_effect_does_not_count(size: str) -> None:
    """No batch is short in these jobs."""
    assert of(*MVTEC, f"batch_size={size}", "last_batch=drop") == of(*MVTEC, f"batch_size={size}")


@pytest.mark.parametrize("name", ["winclip", "paper", "unit", "anomaly", "text", "mvtec", "squash"])
def test_a_file_that_is_called_like_a_value_changes_nothing(here: Path, name: str) -> None:
    before = of(*MVTEC)
    (here / name).write_text("something")
    assert of(*MVTEC) == before


def test_prompts_count_by_what_they_say(here: Path) -> None:
    text = "normal: ['good {}']\nabnormal: ['bad {}']\ntemplates: ['a {}']\n"
    for name, content in (("a.yaml", text), ("b.yaml", text), ("c.yaml", text.replace("bad", "broken"))):
        (here / name).write_text(content)
    one, same, other = (of(*MVTEC, f"method.prompts={name}.yaml") for name in "abc")
    assert one == same != other


def test_weights_models_and_checkpoints_count_by_content(here: Path) -> None:
    config = json.loads(TINY_MODEL.read_text())
    for name, gelu in (("m1", False), ("m2", True), ("m3", False)):
        (here / name).mkdir()
        (here / name / "model.json").write_text(json.dumps({**config, "quick_gelu": gelu}))
        for kind in ("weights.pt", "layers.safetensors"):
            (here / name / kind).write_text(f"{kind} {gelu}")
    for key in ("encoder.model={}/model.json", "encoder.pretrained={}/weights.pt"):
        one, other, same = (of(*MVTEC, key.format(name)) for name in ("m1", "m2", "m3"))
        assert one == same != other
    plus = ("method=clip_ad_plus", *MVTEC)
    one, other, same = (of(*plus, f"method.checkpoint={name}/layers.safetensors") for name in ("m1", "m2", "m3"))
    assert one == same != other


@pytest.mark.parametrize("dataset", ["folder", "auto", "meta_json", "mvtec"])
def test_the_root_counts_for_data_without_a_published_identity(here: Path, dataset: str) -> None:
    for folder in ("a/photos", "b/photos"):
        (here / folder).mkdir(parents=True)
    (here / "link").symlink_to(here / "a" / "photos")
    roots = ("a/photos", "b/photos", "link", "a/../a/photos")
    one, other, linked, again = (
        of(f"dataset={dataset}", f"dataset.root={root}", categories=("my_part",)) for root in roots
    )
    assert one == linked == again != other


@pytest.mark.parametrize(("dataset", "category"), [("demo", "tile"), ("mvtec", "bottle"), ("visa", "pcb1")])
def test_the_place_of_published_data_does_not_count(dataset: str, category: str) -> None:
    places = {of(f"dataset={dataset}", f"dataset.root={root}", categories=(category,)) for root in ("a", "b/data")}
    assert len(places) == 1


METHOD = """
from zsad_bench.contract import FeatureRequest
from zsad_bench.contract import Method, Prediction
from {package}helper import SIGN

class Mine(Method):
    setting = "single"

    def request(self):
        return FeatureRequest()

    def prepare(self, text):
        pass

    def predict(self, batch):
        scores = SIGN * batch.class_tokens[:, 0]
        return Prediction(scores, scores[:, None, None].expand(-1, *batch.image_size))
"""


@pytest.fixture
def own_method(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Writes a method outside of the package; the overrides that choose it."""
    monkeypatch.syspath_prepend(str(here))
    (here / "configs" / "method").mkdir(parents=True)

    def write(package: str = "", sign: float = 1.0, more: str = "") -> list[str]:
        folder = here / package.replace(".", "/")
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(METHOD.format(package=f"{package}." if package else "") + more)
        (folder / "helper.py").write_text(f"SIGN = {sign}\n")
        target = f"{package}.mine.Mine" if package else "mine.Mine"
        (here / "configs" / "method" / "mine.yaml").write_text(f"_target_: {target}\nname: mine\nvariant: first\n")
        for name in list(sys.modules):
            if name.split(".")[0] in ("mine", "helper", package.split(".", maxsplit=1)[0] or "mine"):
                del sys.modules[name]
        return [f"hydra.searchpath=[file://{here}/configs]", "method=mine"]

    return write


@pytest.mark.parametrize("package", ["", "lab", "lab.methods"])
def test_the_code_of_a_plugin_counts_with_what_it_imports(
    own_method: Callable[..., list[str]], here: Path, package: str
) -> None:
    if package:
        (here / package.split(".", maxsplit=1)[0]).mkdir(exist_ok=True)
    first = of(*own_method(package), *MVTEC)
    assert of(*own_method(package), *MVTEC) == first
    assert of(*own_method(package, more="\nNEW = 1\n"), *MVTEC) != first
    assert of(*own_method(package, sign=-1.0), *MVTEC) != first


def test_a_method_author_who_flips_a_sign_gets_new_numbers(
    own_method: Callable[..., list[str]], photo_folder: Path
) -> None:
    scores = []
    for sign in (1.0, -1.0):
        _, method = own_method(sign=sign)
        job = ["--config-dir", "configs", method, *TINY, "dataset=mvtec", f"dataset.root={photo_folder}", "name=run"]
        assert main([*job, "maps=none"]) == 0
        scores.append(pd.read_csv("results/run/images.csv").set_index("image_id")["score"])
    np.testing.assert_allclose(scores[1], -scores[0])
    own_method(sign=1.0)
    assert main([*job, "maps=none"]) == 0
    again = pd.read_csv("results/run/images.csv").set_index("image_id")["score"]
    pd.testing.assert_series_equal(again, scores[0])


# ---------------------------------------------------------------- what is read for a category


def sample(folder: Path, name: str = "000.bmp", label: int = 1) -> Sample:
    return Sample(name, folder / name, "c", label, "scratch" if label else "good", folder / "masks" if label else None)


@pytest.fixture
def photos(here: Path) -> list[Sample]:
    """Two photos in an uncompressed format, so that all contents have one size; the first has a folder of masks."""
    for index in range(2):
        save_image(here / f"{index:03}.bmp", np.full((8, 8, 3), index, np.uint8))
    for index in range(2):
        save_image(here / "masks" / f"{index}.bmp", np.full((8, 8), index, np.uint8))
    return [sample(here), sample(here, "001.bmp", 0)]


def keep_times(path: Path, change: Callable[[], None]) -> None:
    """Change a file and give it its old dates back, as copying programs do."""
    state = path.stat()
    change()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size


def test_contents_of_photos_and_masks_count(photos: list[Sample], here: Path) -> None:
    found = [fingerprint(photos)]
    for path in (here / "000.bmp", here / "001.bmp", here / "masks" / "1.bmp"):
        for value in (77, 78):
            shape = (8, 8) if path.parent.name == "masks" else (8, 8, 3)
            keep_times(path, partial(save_image, path, np.full(shape, value, np.uint8)))
            found.append(fingerprint(photos))
    (here / "masks" / "2.bmp").write_bytes((here / "masks" / "1.bmp").read_bytes())
    found.append(fingerprint(photos))
    (here / "masks" / "2.bmp").unlink()
    found.append(fingerprint(photos[:1]))
    assert len(set(found)) == len(found)


def test_labels_objects_and_references_count(photos: list[Sample], here: Path) -> None:
    first, second = photos
    variants = [
        photos,
        [second, first],
        [replace(first, label=None), second],
        [replace(first, defect_type="dent"), second],
        [replace(first, group="part 1"), second],
        [replace(first, image_id="x"), second],
        [replace(first, mask_path=None), second],
    ]
    found = [fingerprint(each) for each in variants]
    found += [fingerprint(photos, [first]), fingerprint(photos, [second]), fingerprint(photos, [first, second])]
    assert len(set(found)) == len(found)


def test_dates_and_places_do_not_count(photos: list[Sample], here: Path) -> None:
    before = fingerprint(photos)
    os.utime(here / "000.bmp", (0, 0))
    assert fingerprint(photos) == before
    shutil.copytree(here, here.parent / f"{here.name}-copy")
    moved = here.parent / f"{here.name}-copy"
    assert fingerprint([sample(moved), sample(moved, "001.bmp", 0)]) == before


def draw(root: Path, seed: int) -> Path:
    """Six photos of one size, whatever they show."""
    for index in range(6):
        pixels = np.random.default_rng(seed + index).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        save_image(root / ("good" if index % 2 else "bad") / f"{index}.bmp", pixels)
    return root


def run(root: Path, *more: str) -> pd.DataFrame:
    """The scores of a run; whatever the results folder is called."""
    before = set(Path("results").glob("*"))
    assert main(["method=musc", "dataset=folder", f"dataset.root='{root}'", *TINY, "maps=none", *more]) == 0
    (folder,) = set(Path("results").glob("*")) - before or before
    return pd.read_csv(folder / "images.csv")


def test_new_photos_under_old_names_and_sizes_are_computed_again(here: Path) -> None:
    root = draw(here / "photos", 0)
    first = run(root)
    for path in sorted(root.rglob("*.bmp")):
        state = path.stat()
        replacement = np.random.default_rng(100 + int(path.stem)).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        save_image(path, replacement)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = run(root)
    assert len(second) == len(first) == 6
    assert not np.allclose(first["score"], second["score"])


def test_one_folders_results_are_not_shown_for_another(here: Path) -> None:
    draw(here / "a" / "photos", 0)
    draw(here / "b" / "photos", 50)
    first = run(here / "a" / "photos", "name=run")
    both = run(here / "b" / "photos", "name=run")
    assert len(both) == 12
    names = both.groupby("dataset")["score"].apply(list)
    assert len(names) == 2, "two folders of one name are two datasets"
    assert sum(values == first["score"].tolist() for values in names) == 1
    assert main(["dataset=folder", "dataset.root=a/photos", *TINY, "maps=none", "method=musc"]) == 0
    assert main(["dataset=folder", "dataset.root=b/photos", *TINY, "maps=none", "method=musc"]) == 0
    assert len(list(Path("results").glob("musc_folder-photos-*"))) == 2


def test_references_are_read_again(photo_folder: Path) -> None:
    (photo_folder / "plate" / "train" / "good").mkdir(parents=True)
    for index in range(3):
        save_image(photo_folder / "plate" / "train" / "good" / f"{index}.png", np.full((9, 9, 3), index, np.uint8))
    job = ["method=winclip_fewshot", "dataset=mvtec", f"dataset.root={photo_folder}", *TINY, "maps=none", "name=run"]
    assert main([*job, "method.k_shot=3"]) == 0
    before = pd.read_csv("results/run/images.csv")
    save_image(photo_folder / "plate" / "train" / "good" / "1.png", np.full((9, 9, 3), 200, np.uint8))
    assert main([*job, "method.k_shot=3"]) == 0
    after = pd.read_csv("results/run/images.csv")
    assert len(after) == len(before)
    assert not np.allclose(before["score"], after["score"])


def test_every_bundled_method_has_a_version_and_its_card_never_reaches_it() -> None:
    for path in sorted((Path(__file__).resolve().parents[2] / "conf" / "method").glob("*.yaml")):
        config = compose_config([f"method={path.stem}"])
        assert isinstance(config.method.version, int)
        with open_dict(config):
            for key in METHOD_CARD:
                if key != "version":
                    del config.method[key]
        assert identity(config, ("tile",)) == of(f"method={path.stem}", categories=("tile",))


def test_photos_that_did_not_change_are_not_read_again(here: Path) -> None:
    """A second process knows checksums from the index, as far as size, times and inode are the same."""
    dataset = load_dataset("folder", root=str(draw(here / "photos", 0)))
    samples = dataset.samples("photos")
    old = 1_700_000_000_123_456_789
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from zsad_bench.core import checksums
        read = []
        original = checksums.hashlib.file_digest
        checksums.hashlib.file_digest = lambda file, name: read.append(file.name) or original(file, name)
        for path in sys.argv[1:]:
            checksums.file_sha256(Path(path))
        print(len(read))
        """
    )
    for item in samples:
        os.utime(item.path, ns=(old, old))

    def reads() -> int:
        command = [sys.executable, "-c", script, *[str(item.path) for item in samples]]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert reads() == 6
    reads()  # the first one may have come so soon after the change that it did not trust the clock
    assert reads() == 0
    keep_times(samples[0].path, lambda: save_image(samples[0].path, np.zeros((48, 48, 3), np.uint8)))
    assert reads() == 1

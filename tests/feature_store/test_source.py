"""Features from the store: no image is encoded twice, and the numbers do not depend on where features came from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from tests.helpers.miniatures import save_image
from tests.helpers.result_files import comparable_tables
from tests.helpers.tiny_model import TINY_ENCODER, TINY_MODEL
from zsad_bench import load_dataset, load_encoder, load_method
from zsad_bench.cli.main import main
from zsad_bench.contract import FeatureRequest, Stream, Tap
from zsad_bench.core.console import Listener
from zsad_bench.core.errors import UserError
from zsad_bench.core.laps import Cost
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.loading import shared_encoder
from zsad_bench.feature_store import stored
from zsad_bench.feature_store.category import GROUP
from zsad_bench.feature_store.disk_store import DiskStore
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.feature_store.store import MemoryStore

TAPS = (Tap(2), Tap(-1, Stream(("v",), embedding=True), projected=True))
REQUEST = FeatureRequest(taps=TAPS, windows=(2,), views=(0, 5))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images of every call of an encoder."""
    calls: list[int] = []
    original = ClipEncoder.encode

    def counting(self: ClipEncoder, pixels: torch.Tensor, *rest: object) -> object:
        calls.append(len(pixels))
        return original(self, pixels, *rest)

    monkeypatch.setattr(ClipEncoder, "encode", counting)
    return calls


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_stored_features_are_the_encoders(kind: str, tmp_path: Path, photo_folder: Path, encoded: list[int]) -> None:
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples = dataset.samples("plate")
    (direct,) = FeatureSource(dataset, encoder).category("plate", samples, REQUEST).batches([samples])
    encoded.clear()
    store = MemoryStore(1.0) if kind == "memory" else DiskStore(tmp_path / "store", 1.0)
    for _ in range(2):
        source = FeatureSource(dataset, encoder, store)
        found = list(source.category("plate", samples, REQUEST).batches([samples[5:], samples[:5]]))
        assert [batch.image_ids for batch in found] == [
            tuple(sample.image_id for sample in part) for part in (samples[5:], samples[:5])
        ]
        for tap, tokens in direct.tokens.items():
            torch.testing.assert_close(torch.cat([found[1].tokens[tap], found[0].tokens[tap]]), tokens)
        torch.testing.assert_close(found[0].windows[2], direct.windows[2][5:])
        torch.testing.assert_close(found[1].views[5], direct.views[5][:5])
        torch.testing.assert_close(found[1].views[0], found[1].class_tokens)
    assert sum(encoded) == len(samples) <= GROUP


def test_more_is_asked_later(tmp_path: Path, photo_folder: Path, encoded: list[int]) -> None:
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples, source = dataset.samples("plate"), FeatureSource(dataset, encoder, DiskStore(tmp_path / "store", 1.0))
    source.category("plate", samples, FeatureRequest(taps=(Tap(2),)), FeatureRequest(windows=(3,)))
    source.category("plate", samples, FeatureRequest(windows=(3,)))
    assert sum(encoded) == 12
    source.category("plate", samples, FeatureRequest(taps=(Tap(1),)))
    assert sum(encoded) == 24


@pytest.mark.parametrize("room", [stored.HELD_BYTES, 0])
def test_fresh_features_are_used_as_they_are_if_there_is_room(
    room: int, tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "HELD_BYTES", room)
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples, store = dataset.samples("plate"), DiskStore(tmp_path / "store", 1.0)
    fresh = FeatureSource(dataset, encoder, store).category("plate", samples, REQUEST, FeatureRequest(windows=(3,)))
    for path in (tmp_path / "store").rglob("*.safetensors"):
        path.rename(path.with_suffix(".away"))
    if not room:
        monkeypatch.setattr(encoder, "encode", None)
        with pytest.raises(TypeError):
            next(fresh.batches([samples]))
        return
    (held,) = fresh.batches([samples])
    for path in (tmp_path / "store").rglob("*.away"):
        path.rename(path.with_suffix(".safetensors"))
    (read,) = FeatureSource(dataset, encoder, store).category("plate", samples, REQUEST).batches([samples])
    for tap, tokens in read.tokens.items():
        assert torch.equal(held.tokens[tap], tokens)
    assert torch.equal(held.windows[2], read.windows[2])
    assert torch.equal(held.class_tokens, read.class_tokens)


def test_a_store_that_is_too_small_only_costs_time(
    tmp_path: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "HELD_BYTES", 0)
    for index in range(12, 12 + 2 * GROUP):
        save_image(photo_folder / "plate" / "test" / "good" / f"{index:03}.png", np.full((9, 9, 3), index, np.uint8))
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples, source = dataset.samples("plate"), FeatureSource(dataset, encoder, DiskStore(tmp_path / "store", 1e-9))
    found = source.category("plate", samples, FeatureRequest(taps=(Tap(2),)))
    assert sum(len(batch) for batch in found.batches([samples[:30], samples[30:]])) == len(samples)
    assert capsys.readouterr().err.count("features.max_gb") == 1


def test_unreadable_images_are_counted_every_time(tmp_path: Path, photo_folder: Path) -> None:
    broken = next((photo_folder / "plate" / "test" / "good").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples = dataset.samples("plate")
    for store in (DiskStore(tmp_path / "store", 1.0), None):
        for request in (FeatureRequest(), FeatureRequest(), FeatureRequest(pixels=True)):
            source = FeatureSource(dataset, encoder, store, skip_unreadable=True)
            found = source.category("plate", samples, request)
            assert [broken.name in str(error) for error in found.unreadable.values()] == [True]
            readable = [sample for sample in samples if sample.image_id not in found.unreadable]
            assert [len(batch) for batch in found.batches([readable[:6], readable[6:]])] == [6, 5]
        with pytest.raises(UserError, match=broken.name):
            list(FeatureSource(dataset, encoder, store).category("plate", samples, FeatureRequest()).batches([samples]))


def test_derived_images_are_known_again(tmp_path: Path, photo_folder: Path, encoded: list[int]) -> None:
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples, store = dataset.samples("plate"), DiskStore(tmp_path / "store", 1.0)
    results = []
    for _ in range(2):
        source = FeatureSource(dataset, encoder, store)
        (batch,) = source.category("plate", samples[:3], FeatureRequest(pixels=True)).batches([samples[:3]])
        assert batch.pixels is not None
        assert batch.encode is not None
        results.append(batch.encode(batch.pixels.flip(-1), REQUEST).tokens)
    assert sum(encoded) == 6
    for tap, tokens in results[0].items():
        assert torch.equal(tokens, results[1][tap])


def sweep(photos: Path, *arguments: str) -> int:
    shared_encoder.cache_clear()
    return main(["-m", *arguments, "dataset=mvtec", f"dataset.root={photos}", *TINY_ENCODER, "maps=none"])


def test_a_sweep_encodes_every_image_once_and_a_second_one_none(photo_folder: Path, encoded: list[int]) -> None:
    methods = "method=winclip,anoclip,clip_ad,musc,fiseclip"
    assert sweep(photo_folder, methods, "batch_size=1,5,all", "name=first") == 0
    assert sum(encoded) == 12
    encoded.clear()
    assert sweep(photo_folder, methods, "batch_size=1,5,all", "name=second", "overwrite=cached") == 0
    assert encoded == []
    assert comparable_tables(Path("results/second")) == comparable_tables(Path("results/first"))


def test_numbers_do_not_depend_on_the_store(photo_folder: Path) -> None:
    tables = {}
    for mode in ("off", "memory", "disk"):
        assert sweep(photo_folder, "method=winclip,musc", "batch_size=5", f"features={mode}", f"name={mode}") == 0
        tables[mode] = pd.read_csv(f"results/{mode}/images.csv")
    assert tables["memory"].equals(tables["disk"])
    assert tables["off"].drop(columns="score").equals(tables["disk"].drop(columns="score"))
    np.testing.assert_allclose(tables["off"]["score"], tables["disk"]["score"], rtol=2e-4)


def test_cached_names_what_is_missing(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(photo_folder, "method=winclip", "name=run") == 0
    capsys.readouterr()
    assert sweep(photo_folder, "method=winclip,musc", "name=run", "overwrite=cached") == 2
    message = capsys.readouterr().err
    assert "features of 12 images are not stored" in message
    assert "Traceback" not in message
    board = pd.read_csv("results/run/leaderboard.csv")
    assert dict(zip(board["method"], board["categories"], strict=True)) == {"winclip": "1/1", "musc": "0/1"}


def test_never_only_makes_the_tables(photo_folder: Path, encoded: list[int]) -> None:
    assert sweep(photo_folder, "method=winclip", "name=run") == 0
    expected = Path("results/run/metrics.csv").read_bytes()
    Path("results/run/metrics.csv").unlink()
    shutil.rmtree(photo_folder / "plate" / "ground_truth")
    encoded.clear()
    assert sweep(photo_folder, "method=winclip", "name=run", "overwrite=never") == 0
    assert Path("results/run/metrics.csv").read_bytes() == expected
    assert encoded == []


def test_a_sweep_stops_at_its_first_failure_if_asked(photo_folder: Path) -> None:
    for extra, finished in (("fail_fast=true", 0), ("fail_fast=false", 1)):
        name = f"name={extra.replace('=', '-')}"
        assert sweep(photo_folder, "method=winclip,musc", "++method.windows=[9]", "overwrite=missing", extra, name) != 0
        assert len(list(Path("results").glob(f"{name.removeprefix('name=')}/jobs/*/categories/*.json"))) <= finished


def test_what_others_ask_for_is_not_charged(photo_folder: Path, tmp_path: Path) -> None:
    """A sweep's shards tell the parts of their cost; each method is charged its own, also by a later command."""
    assert sweep(photo_folder, "method=clip_ad,anoclip", "batch_size=1", "name=run") == 0
    assert sweep(photo_folder, "method=clip_ad", "batch_size=1", "name=later", "overwrite=cached") == 0
    (shard,) = (tmp_path / "cache" / "features").rglob("plate/*.safetensors")
    with safe_open(shard, framework="pt") as file:
        cost = Cost.from_metadata(file.metadata())
    assert cost is not None
    encoder = load_encoder(str(TINY_MODEL), None)
    timing = pd.read_csv("results/run/timing.csv").set_index("method")
    for name in ("clip_ad", "anoclip"):
        parts = encoder.parts(load_method(name, encoder).method.request())
        assert parts < set(cost.seconds)
        expected = 12 * sum(cost.seconds[part] for part in parts)
        assert timing.loc[name, "charged_encode"] == pytest.approx(expected, abs=1e-4)
    later = pd.read_csv("results/later/timing.csv").iloc[0]
    assert later["charged_encode"] == timing.loc["clip_ad", "charged_encode"]
    assert later["charged_text"] == timing.loc["clip_ad", "charged_text"] > 0
    assert "seconds_encode" not in later
    assert later["encoded_on"] == later["device"] == cost.device


def test_shards_without_times_are_unknown(tmp_path: Path, photo_folder: Path) -> None:
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples, request = dataset.samples("plate"), FeatureRequest(taps=(Tap(2),))
    for kind in (DiskStore(tmp_path / "a", 1.0), MemoryStore(1.0)):
        known, charges = kind, []
        put = known.put
        known.put = lambda place, keys, items, cost=None, put=put: put(place, keys, items)  # as older versions did
        listener = Listener(charge=charges.append)
        source = FeatureSource(dataset, encoder, known)
        list(source.category("plate", samples, request, None, listener).batches([samples]))
        assert {charge.seconds for charge in charges} == {None}


def test_charges_of_stored_features_are_those_of_their_passes(tmp_path: Path, photo_folder: Path) -> None:
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples = dataset.samples("plate")
    taps, windows = FeatureRequest(taps=(Tap(2),)), FeatureRequest(windows=(2,))
    rounds = []
    for _ in range(2):  # encoded now, and read by a process that knows the files only
        store, charged = DiskStore(tmp_path / "store", 1.0), {}
        for name, request in (("taps", taps), ("windows", windows), ("both", taps.union(windows))):
            found: list[float] = []
            listener = Listener(charge=lambda charge, found=found: found.append(charge.seconds))
            source = FeatureSource(dataset, encoder, store)
            batches = [samples[:8], samples[8:] + samples[:4]]  # the last one is filled with images that come again
            list(source.category("plate", samples, request, None, listener).batches(batches))
            assert len(found) == 16
            charged[name] = sum(found)
        assert charged["both"] > max(charged["taps"], charged["windows"])
        rounds.append(charged)
    assert rounds[0]["both"] == rounds[1]["both"]


def test_images_come_in_the_batches_that_were_asked_for(photo_folder: Path, encoded: list[int]) -> None:
    dataset, encoder = load_dataset("mvtec", root=str(photo_folder)), load_encoder(str(TINY_MODEL), None)
    samples = dataset.samples("plate")
    whole = encoder.encode(encoder.preprocess([dataset.read_image(sample, 48) for sample in samples]), REQUEST)
    for size in (1, 5, 12):
        encoded.clear()
        batches = [samples[start : start + size] for start in range(0, 12, size)]
        batches[-1] = [*batches[-1], *samples[: size - len(batches[-1])]]
        found = list(FeatureSource(dataset, encoder).category("plate", samples, REQUEST).batches(batches))
        assert max(encoded) <= GROUP
        for batch, wanted in zip(found, batches, strict=True):
            assert batch.image_ids == tuple(sample.image_id for sample in wanted)
            rows = [samples.index(sample) for sample in wanted]
            torch.testing.assert_close(batch.windows[2], whole.windows[2][rows])
            for tap in TAPS:
                torch.testing.assert_close(batch.tokens[tap], whole.tokens[tap][rows])


@pytest.mark.parametrize("mode", ["disk", "off"])
def test_the_number_of_workers_changes_nothing(
    mode: str, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for workers in (1, 7):
        name = f"name={mode}{workers}"
        monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / str(workers)))
        arguments = ["method=winclip,musc", "batch_size=5", f"features={mode}", f"workers={workers}"]
        assert sweep(photo_folder, *arguments, name) == 0
        tables.append(comparable_tables(Path(f"results/{mode}{workers}")))
    assert tables[0] == tables[1]

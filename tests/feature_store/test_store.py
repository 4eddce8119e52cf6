"""The feature store: what is put in comes out, damage is noticed, room is made, processes share it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zsad_bench.core.errors import UserError
from zsad_bench.feature_store.disk_store import LOCK_FILES, DiskStore
from zsad_bench.feature_store.store import GIGABYTE, FeatureStore, MemoryStore

PLACE = "encoder/dataset/category"


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    return MemoryStore(1.0) if request.param == "memory" else DiskStore(tmp_path / "store", 1.0)


def items(seed: int, count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "class": torch.randn(count, 4, generator=generator).bfloat16(),
        "tap.2": torch.randn(count, 5, 6, generator=generator).half(),
        "exact": torch.randn(count, 2, generator=generator),
    }


def test_what_is_put_in_comes_out(store: FeatureStore) -> None:
    first, second = items(0), items(1)
    store.put(PLACE, ["a", "b", "c"], first)
    store.put(PLACE, ["d", "e", "f"], second)
    for row, (source, index) in zip(store.get(PLACE, ["f", "a"], list(first)), [(second, 2), (first, 0)], strict=True):
        assert row is not None
        for name, value in row.items():
            assert value.dtype == source[name].dtype
            assert torch.equal(value, source[name][index])


def test_missing_parts_are_named(store: FeatureStore) -> None:
    store.put(PLACE, ["a"], {"class": torch.ones(1, 2)})
    store.put(PLACE, ["b"], {"class": torch.ones(1, 2), "tap.2": torch.ones(1, 2)})
    assert store.missing(PLACE, ["a", "b", "c"], ["class", "tap.2"]) == {"a": {"tap.2"}, "c": {"class", "tap.2"}}
    assert store.get(PLACE, ["a", "b"], ["class", "tap.2"])[0] is None
    assert store.missing("encoder/dataset/other", ["b"], ["class"]) == {"b": {"class"}}


def test_another_process_sees_it_at_once(tmp_path: Path) -> None:
    ours = DiskStore(tmp_path, 1.0)
    assert ours.missing(PLACE, ["a"], ["class"]) == {"a": {"class"}}
    code = (
        "import torch; from pathlib import Path; from zsad_bench.feature_store.disk_store import DiskStore;"
        f"DiskStore(Path({str(tmp_path)!r}), 1.0).put({PLACE!r}, ['a'], {{'class': torch.tensor([[1.0, 2.0]])}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ours.missing(PLACE, ["a"], ["class"]) == {}
    (row,) = ours.get(PLACE, ["a"], ["class"])
    assert row is not None
    assert row["class"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_damaged_shards_are_dropped_with_one_line(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DiskStore(tmp_path, 1.0).put(PLACE, ["a", "b", "c"], items(0))
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    shard.write_bytes({"cut": content[:-20], "empty": b"", "text": b"not a shard"}.get(damage, bytes(content)))
    store = DiskStore(tmp_path, 1.0)
    names = list(items(0))
    rows = store.get(PLACE, ["a", "b", "c"], names)
    assert None in rows
    assert capsys.readouterr().err.count("warning: ") == 1
    assert not shard.exists()
    assert set(store.missing(PLACE, ["a", "b", "c"], names)) == {"a", "b", "c"}
    store.put(PLACE, ["a", "b", "c"], items(0))
    assert None not in store.get(PLACE, ["a", "b", "c"], names)


def test_the_oldest_make_room(tmp_path: Path) -> None:
    block = {"class": torch.zeros(1, 1 << 18)}  # 1 MiB
    store = DiskStore(tmp_path, 4.5 * (1 << 20) / GIGABYTE)
    for number, key in enumerate("abcd"):
        store.put(PLACE, [key], block)
        for shard in tmp_path.rglob("*.safetensors"):
            if shard.stat().st_mtime > 1_000_000:
                os.utime(shard, (1000 * (number + 1),) * 2)
    fresh = DiskStore(tmp_path, 4.5 * (1 << 20) / GIGABYTE)
    fresh.get(PLACE, ["a"], ["class"])  # used now, so "b" is the oldest
    fresh.put(PLACE, ["e"], block)
    assert set(fresh.missing(PLACE, "abcde", ["class"])) == {"b"}
    assert sum(shard.stat().st_size for shard in tmp_path.rglob("*.safetensors")) < 4.5 * (1 << 20)


MIB = 1 << 20
BLOCK = {"class": torch.zeros(1, MIB // 16)}  # 256 KiB


def size(folder: Path) -> int:
    return sum(shard.stat().st_size for shard in folder.rglob("*.safetensors"))


def test_the_limit_holds_over_several_stores(tmp_path: Path) -> None:
    stores = [DiskStore(tmp_path, 4 * MIB / GIGABYTE) for _ in range(4)]
    for number in range(14):
        for position, store in enumerate(stores):
            store.put(PLACE, [f"{number} {position}"], BLOCK)
            assert size(tmp_path) <= 4 * MIB + len(stores) * (MIB // 4 + 1024)
    assert size(tmp_path) > 2 * MIB  # nor is more deleted than need be


def test_the_limit_holds_over_several_processes(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from zsad_bench.feature_store.disk_store import DiskStore, GIGABYTE\n"
        f"store = DiskStore(Path({str(tmp_path)!r}), 4 * {MIB} / GIGABYTE)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for number in range(24):\n"
        f"    store.put('e/d/' + sys.argv[1], [str(number)], {{'class': torch.zeros(1, {MIB // 16})}})"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("\n")
        assert writer.returncode == 0
    # One more shard than the limit a process, and what one wrote while another made room.
    assert size(tmp_path) <= 4 * MIB + 2 * len(writers) * (MIB // 4 + 1024)
    DiskStore(tmp_path, 4 * MIB / GIGABYTE).put(PLACE, ["last"], BLOCK)
    assert size(tmp_path) <= 4 * MIB


def test_a_large_store_is_not_counted_for_every_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    original = DiskStore._shards

    def counting(self: DiskStore) -> object:
        counted.append(1)
        return original(self)

    monkeypatch.setattr(DiskStore, "_shards", counting)
    store, small = DiskStore(tmp_path, 1.0), {"class": torch.zeros(1, MIB // 64)}
    for number in range(100):
        store.put(PLACE, [str(number)], small)
    assert len(counted) == 1  # 6 MiB are less than a sixteenth of what is left


def test_what_categories_work_with_is_deleted_last(tmp_path: Path) -> None:
    limit = 4.5 * MIB / 4 / GIGABYTE  # of four shards and a half
    writer, reader = DiskStore(tmp_path, limit), DiskStore(tmp_path, limit)
    for place, key in (("e/d/used", "a"), ("e/d/idle", "b"), ("e/d/own", "c"), ("e/d/idle", "d")):
        writer.put(place, [key], BLOCK)
    for age, (place, key) in enumerate((("e/d/used", "a"), ("e/d/own", "c"), ("e/d/idle", "b"), ("e/d/idle", "d"))):
        (path, _) = writer._places[place].rows[key, "class"]
        os.utime(path, (1000 + age,) * 2)
    assert reader.missing("e/d/used", ["a"], ["class"]) == {}  # a category in another process begins
    DiskStore(tmp_path, limit).put("e/d/own", ["e"], BLOCK)
    left = {
        key
        for place, key in (("used", "a"), ("idle", "b"), ("own", "c"), ("idle", "d"), ("own", "e"))
        if not DiskStore(tmp_path, limit).missing(f"e/d/{place}", [key], ["class"])
    }
    assert left == {"a", "c", "d", "e"}


def test_lock_files_stay_and_do_not_grow_in_number(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 1.0)
    with store.claim(PLACE, "task") as mine:
        assert mine
        (lock,) = (tmp_path / "locks").iterdir()
        number = lock.stat().st_ino
    assert lock.stat().st_ino == number  # who waits for this file waits for what the next one locks
    for task in range(3 * LOCK_FILES):
        with store.claim(PLACE, str(task)) as mine:
            assert mine
    assert len(list((tmp_path / "locks").iterdir())) <= LOCK_FILES
    assert not [path for path in tmp_path.rglob("*.lock") if path.parent.name != "locks"]


def test_a_task_is_never_done_by_two_at_a_time(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from zsad_bench.feature_store.disk_store import DiskStore\n"
        f"store, inside = DiskStore(Path({str(tmp_path)!r}), 1.0), Path({str(tmp_path)!r}) / 'inside'\n"
        "done = 0\n"
        "while done < 150:\n"
        f"    with store.claim({PLACE!r}, 'task') as mine:\n"
        "        if mine:\n"
        "            os.close(os.open(inside, os.O_CREAT | os.O_EXCL)); inside.unlink(); done += 1"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3


def test_memory_is_bounded_by_dropping_whole_places() -> None:
    block = {"class": torch.zeros(1, 1 << 18)}
    store = MemoryStore(2.5 * (1 << 20) / GIGABYTE)
    for place in "xyz":
        store.put(place, ["a"], block)
    assert [bool(store.missing(place, ["a"], ["class"])) for place in "xyz"] == [True, False, False]


def test_a_claim_is_exclusive_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from zsad_bench.feature_store.disk_store import DiskStore\n"
        f"with DiskStore(Path({str(tmp_path)!r}), 1.0).claim({PLACE!r}, 'task') as mine:\n"
        "    print(mine, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    store = DiskStore(tmp_path, 1.0)
    with store.claim(PLACE, "task") as mine:
        assert not mine
    with store.claim(PLACE, "another task") as mine:
        assert mine
    other.kill()
    other.wait()
    with store.claim(PLACE, "task") as mine:
        assert mine


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"features\.root=.*features=memory"):
        DiskStore(tmp_path / "file", 1.0).put(PLACE, ["a"], items(0, 1))

"""The index of checksums: right whatever happens to it, and shared."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from zsad_bench.core.checksums import ChecksumIndex

OLD = 1_700_000_000_123_456_789


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a.bmp"
    path.parent.mkdir()
    path.write_bytes(b"first")
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def remembered(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in folder.glob("*.json"):
        found |= json.loads(path.read_text())["files"]
    return found


def learn(folder: Path, *paths: Path) -> ChecksumIndex:
    """An index that has read files and was written; files changed a moment ago are read until it trusts their dates."""
    while True:
        index = ChecksumIndex(folder)
        for path in paths:
            index.sha256(path)
        index.save()
        if {path.name for path in paths} <= set(remembered(folder)):
            return index


def test_a_changed_file_is_read_again_whatever_its_dates_say(photo: Path, tmp_path: Path) -> None:
    os.utime(photo, ns=(OLD, OLD))
    index = learn(tmp_path / "index", photo)
    assert index.sha256(photo) == sha(b"first")
    photo.write_bytes(b"other")  # of the same size
    os.utime(photo, ns=(OLD, OLD))
    for known in (index, ChecksumIndex(tmp_path / "index")):
        assert known.sha256(photo) == sha(b"other")


def test_a_file_that_changes_again_at_once_is_not_trusted(photo: Path, tmp_path: Path) -> None:
    index = ChecksumIndex(tmp_path / "index")
    for content in (b"1", b"2", b"3", b"4") * 50:
        photo.write_bytes(content)
        assert index.sha256(photo) == sha(content)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"folder": 1, "files": {"a.bmp": 3}}', '{"files": null}'])
def test_a_damaged_index_only_costs_time(photo: Path, tmp_path: Path, content: str) -> None:
    learn(tmp_path / "index", photo)
    for path in (tmp_path / "index").glob("*.json"):
        path.write_text(content)
    assert learn(tmp_path / "index", photo).sha256(photo) == sha(b"first")


def test_a_false_entry_is_no_checksum(photo: Path, tmp_path: Path) -> None:
    learn(tmp_path / "index", photo)
    (path,) = (tmp_path / "index").glob("*.json")
    content = json.loads(path.read_text())
    content["files"]["a.bmp"][4] = "abc"
    path.write_text(json.dumps(content))
    assert ChecksumIndex(tmp_path / "index").sha256(photo) == sha(b"first")


def test_two_processes_add_to_each_others_index_and_lost_files_are_forgotten(photo: Path, tmp_path: Path) -> None:
    other, lost = photo.with_name("b.bmp"), photo.with_name("c.bmp")
    other.write_bytes(b"b")
    lost.write_bytes(b"c")
    learn(tmp_path / "index", photo, lost)
    lost.unlink()
    learn(tmp_path / "index", other)
    assert set(remembered(tmp_path / "index")) == {"a.bmp", "b.bmp"}


def test_a_folder_that_cannot_be_written_only_costs_time(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file where the folder should be")
    index = ChecksumIndex(tmp_path / "index")
    assert index.sha256(photo) == sha(b"first")
    index.save()
    with pytest.raises(FileNotFoundError):
        index.sha256(photo.with_name("missing.bmp"))

"""The compact set of recordings: equal to the full one, small, and no test can pass on numbers that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.helpers.recordings import COMPACT, FULL_SETS, assert_recorded, decode, normal, shared_folder, uniform, unpack


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return load_file(path)
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("name", FULL_SETS)
def test_unpacked_set_equals_the_full_one(name: str, tmp_path: Path) -> None:
    """Every number that is kept, within what its index line states; of the token table the rows that are kept."""
    full = shared_folder("golden", FULL_SETS[name])
    unpack(COMPACT / name, tmp_path)
    for file, entries in json.loads((COMPACT / name / "index.json").read_text()).items():
        ours, theirs = arrays_of(tmp_path / file), arrays_of(full / file)
        assert set(ours) == set(entries)
        for key, values in ours.items():
            if key.startswith("token_embedding."):
                expected = theirs["token_embedding.weight"][ours["token_embedding.rows"]]
                np.testing.assert_array_equal(ours["token_embedding.values"], expected)
            elif values.dtype.kind != "f" or entries[key]["coding"] in ("plain", "bytes", "pixels"):
                np.testing.assert_array_equal(values, theirs[key])
            else:
                rounding = 1.2e-7 * np.abs(theirs[key]).max()
                room = 5 * rounding if "seed" in entries[key] else entries[key]["step"] / 2 + rounding
                assert values.dtype == theirs[key].dtype
                assert_recorded(theirs[key], values, room)
    for path in (COMPACT / name).glob("*.json"):
        if path.name != "index.json":
            assert path.read_bytes() == (full / path.name).read_bytes()


def test_set_is_small_and_described() -> None:
    assert sum(path.stat().st_size for path in COMPACT.rglob("*") if path.is_file()) < 7e6
    readme = (COMPACT / "README.md").read_text()
    for name in FULL_SETS:
        for file, entries in json.loads((COMPACT / name / "index.json").read_text()).items():
            title = f"### `{name}/{Path(file).with_suffix('.npz')}`\n"
            table = readme.partition(title)[2].partition("###")[0]
            assert table, title
            if file.endswith(".npz"):
                assert [key for key in entries if f"| `{key}` |" not in table] == []


def test_draws_are_those_of_pytorch() -> None:
    random = torch.Generator().manual_seed(111)
    torch.rand(1000, generator=random)
    np.testing.assert_allclose(torch.empty(64).uniform_(-1, 1, generator=random), uniform(111, 1000, 64), atol=1e-7)
    np.testing.assert_allclose(torch.randn(160, generator=random), normal(111, 1064, 160), atol=1e-6)


def test_codings_of_small_arrays() -> None:
    part = {"coding": "grid", "dtype": "float32", "shape": [2, 5], "every": [[1, 2], [0, 3]], "step": 0.25, "low": -2}
    planes = np.array([[[0, 6]], [[0, 1]]], np.uint8)  # 0 and 6 + 256 steps above the lowest
    expected = np.full((2, 5), np.nan, np.float32)
    expected[1, [0, 3]] = -0.5, 65.0
    np.testing.assert_array_equal(decode(part, planes), expected)
    values = np.array([0.1, -3e5], np.float32)
    entry = {"coding": "bytes", "dtype": "float32", "shape": [2]}
    np.testing.assert_array_equal(decode(entry, values.view(np.uint8).reshape(2, 4).T), values)


@pytest.mark.parametrize(
    ("actual", "recorded"),
    [
        ([1.0, 2.0], [1.0, 2.1]),
        ([1.0, np.nan], [1.0, np.nan]),
        ([1.0, 2.0], [np.nan, np.nan]),
        ([1.0, 2.0], [[1.0, 2.0]]),
    ],
    ids=["another number", "no number", "nothing recorded", "another shape"],
)
def test_a_recording_that_is_not_met(actual: list[float], recorded: list[float]) -> None:
    assert_recorded([1.0, 2.0], [np.nan, 2.0], atol=1e-9)
    with pytest.raises(AssertionError):
        assert_recorded(actual, recorded, atol=1e-2)

"""Names as file names: different ones never share a file, on any file system; near misses; the order of batch sizes."""

from __future__ import annotations

import re
import unicodedata
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad_bench.core.names import (
    LONGEST,
    batch_size_order,
    did_you_mean,
    near_misses,
    readable_name,
    readable_names,
    safe_name,
)
from zsad_bench.core.sequences import evenly_spaced

ALIKE = [
    *("a/b", "a_b", "a-b", "a b", "a.b", "a\\b", "a:b", "a  b", "a b ", " a b", "a--b", "A/b", "A-B"),
    *("Screw", "screw", "SCREW", "screw.", "screw ", ".screw", "screw.v1", "screw.v2", "screw.worst", "screw-v1"),
    *("con", "CON", "con.txt", "nul", "com1", "lpt9", "aux", "prn", "conin$", "..", ".", "", " ", "/", "-", "_"),
    *("é", unicodedata.normalize("NFD", "é"), "ß", "ss", "ſ", "s", "фото", "снимки", "写真", "\ud800", "\0"),
    *("x" * 300, "x" * 299 + "y", "x" * 101, "x" * 100, "X" * 100),
]
names = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="aAbB_-./ é", max_size=5),
    st.text(alphabet="ab_-.", min_size=90, max_size=130),
    st.sampled_from(ALIKE),
    st.sampled_from(ALIKE).map(safe_name),
)


@given(st.lists(names, min_size=2, max_size=12, unique=True))
def test_different_names_have_different_files_on_every_file_system(chosen: list[str]) -> None:
    assert len({safe_name(name).casefold() for name in chosen}) == len(chosen)


@given(names)
def test_a_safe_name_is_a_file_name_everywhere(name: str) -> None:
    found = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", found)
    assert not found.endswith((".", " "))
    assert len(found) <= LONGEST
    assert not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", found.split(".")[0].lower())


@given(st.from_regex(r"[a-z0-9_]+(-[a-z_]+)*", fullmatch=True).filter(lambda name: len(name) <= LONGEST))
def test_plain_names_are_kept(name: str) -> None:
    if name not in ("con", "prn", "aux", "nul") and not re.fullmatch(r"(com|lpt)\d|.*-[0-9a-f]{10}", name):
        assert safe_name(name) == name
        assert safe_name(safe_name(name)) == safe_name(name)


def test_alike_names() -> None:
    for first, second in combinations(ALIKE, 2):
        assert safe_name(first).casefold() != safe_name(second).casefold(), (first, second)
    assert all(safe_name(name) == name for name in ("metal_nut", "01", "carpet", "a-b", "x" * 100))
    # A change of the rule would part existing results from their categories.
    assert safe_name("a/b") == "a-b-c14cddc033"


@given(st.lists(names, max_size=12, unique=True))
def test_readable_names_are_different_folders_too(chosen: list[str]) -> None:
    found = readable_names(chosen)
    assert set(found) == set(chosen)
    assert len({name.casefold() for name in found.values()}) == len(chosen)
    assert all(re.fullmatch(r"[^\x00-\x1f<>:\"/\\|?*.\s~-][^\x00-\x1f<>:\"/\\|?*]*", name) for name in found.values())
    assert not any(name.endswith((".", " ")) for name in found.values())


def test_readable_names_stay_as_they_are_where_they_can() -> None:
    assert readable_names(["Class1", "metal nut", "screw.v1", "a_b"]) == {
        name: name for name in ("Class1", "a_b", "metal nut", "screw.v1")
    }
    assert readable_names(["a/b", ".x"]) == {"a/b": "a_b", ".x": "x"}
    apart = readable_names(["Screw", "screw", "a/b", "a_b", "c:d", "c/d", "nul.x"])
    assert apart.pop("a_b") == "a_b"
    assert all(name == safe_name(original) for original, name in apart.items())
    assert readable_name("ViT-B-16-plus-240") == "ViT-B-16-plus-240"
    assert "/" not in readable_name("org/model")


def test_near_misses() -> None:
    assert near_misses("winclop", ["musc", "winclip"]) == ["winclip"]
    assert near_misses("SCREW", ["screw", "Screw"], count=3) == ["screw", "Screw"]
    assert near_misses("vit-b-16", ["ViT-B-16", "ViT-L-14", "RN50"], count=2) == ["ViT-B-16", "ViT-L-14"]
    assert near_misses("zzz", ["winclip"]) == []
    assert did_you_mean("winclop", ["musc", "winclip"]) == "; did you mean winclip?"
    assert did_you_mean("zzz", ["b", "a"]) == "; choose from b, a"
    assert did_you_mean("zzz", [f"choice {number}" for number in range(13)]) == ""
    assert did_you_mean("zzz", []) == ""


def test_order_of_batch_sizes() -> None:
    assert sorted(["all", 16, "4", 1, "32"], key=batch_size_order) == [1, "4", 16, "32", "all"]
    with pytest.raises(ValueError, match="some"):
        batch_size_order("some")


@given(st.integers(0, 60), st.integers(-1, 70))
def test_evenly_spaced_choice(n_items: int, count: int) -> None:
    items = list(range(n_items))
    found = evenly_spaced(items, count)
    assert found == sorted(set(found))
    assert len(found) == max(0, min(n_items, count))
    if len(found) > 1:
        assert (found[0], found[-1]) == (0, n_items - 1)
        steps = [second - first for first, second in pairwise(found)]
        assert max(steps) - min(steps) <= 2

"""``docs/methods.md`` names tests that exist and the tolerances that they assert."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from zsad_bench.engine.method_card import MethodCard, bundled_presets
from zsad_bench.results.rows import PARITY

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "methods.md").read_text("utf-8")
CONFIGS = bundled_presets().keys()


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table after a heading."""
    table = re.search(r"^\|.*?(?=\n\n)", PAGE.partition(heading)[2], re.DOTALL | re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


PROOFS = rows("## What proves it")


def functions_of(module: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}


def numbers_of(test: ast.FunctionDef, module: ast.Module) -> set[float]:
    """Numbers written in a test and in the functions of its module that it calls, and constants that they name."""
    functions = functions_of(module)
    named = [node.id for node in ast.walk(test) if isinstance(node, ast.Name)]
    nodes = [node for name in [*named, test.name] if name in functions for node in ast.walk(functions[name])]
    constants = {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = {node.value for node in nodes if isinstance(node, ast.Constant)}
    found |= {constants[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in constants}
    return {float(value) for value in found if isinstance(value, float)}


@pytest.mark.parametrize("row", PROOFS, ids=lambda row: row[3].strip("`"))
def test_a_proof_exists_and_asserts_its_tolerance(row: list[str]) -> None:
    method, _, _, test, tolerances = row
    assert method in ("all", "metrics") or method.strip("`") in CONFIGS
    file, _, name = test.strip("`").partition("::")
    module = ast.parse((TESTS / file).read_text("utf-8"))
    assert name.startswith("test_")
    function = functions_of(module)[name]
    asserted = numbers_of(function, module)
    for tolerance in tolerances.split(", "):
        if tolerance == "equal":
            assert "equal" in ast.unparse(function)
        else:
            assert float(tolerance) in asserted


def test_every_method_with_public_code_has_a_proof() -> None:
    proven = {row[0].strip("`") for row in PROOFS}
    for names, *_ in rows("# Methods"):
        first = re.findall(r"`(\w+)`", names)[0]
        assert (first in proven) == (MethodCard.of(bundled_presets()[first]).level == PARITY)


def test_every_reader_of_the_recordings_is_on_the_page() -> None:
    """A test file that reads a recorded set without a line on the page would prove something nobody finds."""
    readers = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if re.search(r"golden_(winclip|clipad)\b", path.read_text()) and path != Path(__file__)
    }
    assert readers <= {row[3].strip("`").partition("::")[0] for row in PROOFS}

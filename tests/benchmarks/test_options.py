"""Every benchmark can be called: its options are consistent and what it imports exists."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert left.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_code_that_the_sweep_runs_elsewhere_can_be_imported() -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        programs = runpy.run_path(str(FOLDER / "sweep.py"))
    finally:
        sys.path.remove(str(FOLDER))
    for name in ("ENCODE_ONLY", "READ_ONLY"):
        imports = [line for line in programs[name].splitlines() if line.startswith(("from ", "import "))]
        assert imports
        exec("\n".join(imports), {})

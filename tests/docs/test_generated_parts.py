"""What scripts write into ``docs`` is what they would write now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize("script", ["dataset_docs.py", "method_docs.py", "architecture.py"])
def test_it_is_up_to_date(script: str) -> None:
    if script == "architecture.py":
        pytest.importorskip("grimp")
    done = subprocess.run([sys.executable, str(TOOLS / script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run python tools/{script}: {done.stdout}{done.stderr}"

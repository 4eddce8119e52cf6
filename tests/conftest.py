"""Shared fixtures: reference arrays beside the project (absent on users' machines) and the tiny CLIP models in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ZSAD_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _folder(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference data absent: {'/'.join(parts)} (set ZSAD_SHARED to the folder that holds it)")
    return path


@pytest.fixture(scope="session")
def golden_winclip() -> Path:
    """Outputs of four WinCLIP codes, MuSc and the field's metric codes."""
    return _folder("golden", "b_winclip_musc_metrics")


@pytest.fixture(scope="session")
def golden_clipad() -> Path:
    """Outputs of the official CLIP-AD and AnoVL codes."""
    return _folder("golden", "a_clipad_anoclip")


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Real inspection photos in MVTec layout."""
    return _folder("data")

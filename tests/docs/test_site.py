"""The site is built without a broken link, and its pages ask nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]*)|<link\b[^>]*\bhref=\"([^\"]*)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("material", "mkdocstrings"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(program, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text("utf-8")
        loaded = ["".join(found) for found in LOADED.findall(text)]
        assert loaded
        assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)], page
        assert 'class="mermaid"' not in text  # the theme fetches its program from a server


def test_the_reference_links_what_docstrings_name(site: Path) -> None:
    contract = (site / "reference" / "contract.html").read_text("utf-8")
    assert re.search(r'<a class="autorefs[^>]*href="#zsad_bench\.contract\.Method\.prepare"', contract)
    for page in (site / "reference").glob("*.html"):
        assert not re.search(r":(?:func|class|meth|mod|attr|data|exc):", page.read_text("utf-8")), page

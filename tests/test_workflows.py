"""Workflows and issue templates: they can be parsed, and what they name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def jobs_of(path: Path) -> dict[str, dict]:
    return yaml.safe_load(path.read_text("utf-8"))["jobs"]


def commands_of(path: Path) -> list[str]:
    return [step["run"] for job in jobs_of(path).values() for step in job["steps"] if "run" in step]


def test_all_workflows_are_there() -> None:
    assert {path.stem for path in WORKFLOWS} == {"test", "lint", "lowest", "docs", "release"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_complete(path: Path) -> None:
    content = yaml.safe_load(path.read_text("utf-8"))
    assert True in content, "the key `on`, which YAML reads as true"
    assert content["permissions"] == {"contents": "read"}, "jobs ask for more where they need it"
    for name, job in jobs_of(path).items():
        assert job["runs-on"]
        assert set(job.get("needs", "").split()) <= set(jobs_of(path)) - {name}
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", step["uses"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_targets_of_make_exist(path: Path) -> None:
    named = {target for command in commands_of(path) for target in re.findall(r"\bmake ([\w-]+)", command)}
    assert named <= TARGETS


def test_every_supported_python_is_tested() -> None:
    tested = jobs_of(ROOT / ".github" / "workflows" / "test.yml")["suite"]["strategy"]["matrix"]["python"]
    stated = [text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", text)]
    assert tested == stated
    assert PROJECT["requires-python"] == f">={tested[0]}"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_complete(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    assert form["name"]
    assert form["description"]
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names))
    assert {field["type"] for field in form["body"]} <= {"textarea", "input", "dropdown", "checkboxes"}

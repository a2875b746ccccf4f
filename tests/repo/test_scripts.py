"""What a newcomer types: scripts, CI, and the version that is said in three places."""

import os
import re
import subprocess
import tomllib

import pytest
from tests.repo.tree import ROOT, shown

from stepbase.sdk import version

SCRIPTS = sorted((ROOT / "scripts").iterdir())
MOST_LINES = 30


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.is_file()], ids=shown)
def test_a_script_is_short_and_can_be_run(script: os.PathLike[str]) -> None:
    with open(script, encoding="utf-8") as file:
        lines = file.read().splitlines()

    assert len(lines) <= MOST_LINES
    if str(script).endswith(".py"):
        return  # called by another script, with the Python of .venv
    assert os.access(script, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# "), "the second line says what it does"
    assert "set -euo pipefail" in lines
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_the_four_everybody_uses_are_there() -> None:
    assert {"setup", "demo", "test", "check", "bench"} <= {path.name for path in SCRIPTS}


def test_ci_calls_the_same_scripts_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()

    called = [line for line in lines if line.startswith("scripts/")]
    assert called == ["scripts/check", "scripts/test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_check_runs_every_tool() -> None:
    text = (ROOT / "scripts" / "check").read_text("utf-8")

    assert all(
        tool in text
        for tool in ("ruff format --check", "ruff check", "mypy", "lint-imports", "gen rpc --check")
    )


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")

    assert project["version"] == version.VERSION
    headings = re.findall(r"^## \[?([^\]\s]+)", changes, re.MULTILINE)
    released = [each for each in headings if each != "Unreleased"]
    assert headings, "the changelog has no heading"
    assert not released or released[0] == version.VERSION
    assert released or headings == ["Unreleased"]


def test_the_licence_is_what_pyproject_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert project["license"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text("utf-8")

"""The replay modules have no branch that the random programs and their unit tests leave out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.repo.tree import ROOT

MODULES = ("replay", "turns", "sync_turns", "branches", "sync_branches", "tasks")
TESTS = (
    "tests/properties/test_replay.py",
    "tests/unit/sdk",
    "tests/unit/testing",
    "tests/cases/test_edited_inputs.py",
    "tests/cases/test_wait_for_event.py",
)


@pytest.mark.timeout(600)
def test_every_branch_of_replay_is_taken(tmp_path: Path) -> None:
    modules = ",".join(f"*/stepbase/sdk/{name}.py" for name in MODULES)
    settings = tmp_path / "coverage.ini"
    settings.write_text(
        f"[run]\nbranch = true\ninclude = {modules}\ndata_file = {tmp_path / 'data'}\n"
    )
    coverage = (sys.executable, "-P", "-m", "coverage")
    chosen = "not uvloop and not memory"  # one loop is enough; memory is its own measurement
    command = (*coverage, "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-k", chosen, *TESTS)

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    report = (*coverage, "report", f"--rcfile={settings}", "-m", "--fail-under=100")
    shown = subprocess.run(report, cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout[-3000:]
    assert shown.returncode == 0, shown.stdout

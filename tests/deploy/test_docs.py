"""docs/deploy.md: its commands on a fresh clone, but for those that need an account; and deploy.sh itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.repo.pages import blocks
from tests.repo.tree import ROOT, assert_none
from tests.support import debian

from stepbase.deploy import lock

PAGE = ROOT / "docs" / "deploy.md"

NEEDS_AN_ACCOUNT = (
    "./deploy.sh --target",
    "gcloud services enable",
    "gcloud projects",
    "gcloud run services delete",
    "SUPABASE_EXPERIMENTAL_COMPUTE=1 supabase compute delete",
    "docker compose --project-name",
)

FRESH = [f"./deploy.sh --dry-run --target {name}" for name in ("compute", "cloudrun", "docker")]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a fresh clone has of what a deploy reads, already set up."""
    for name in ("functions", "shared", "supabase"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "deploy.sh", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    setup = tmp_path / "scripts" / "setup"
    setup.parent.mkdir()
    setup.write_text("#!/bin/sh\n")
    setup.chmod(0o755)
    return tmp_path


def run(clone: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as somebody without settings would."""
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    environment = {
        **kept,
        "HOME": str(clone),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(clone / "shared"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        ["bash", "-euc", command],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_commands_of_the_page(clone: Path) -> None:
    typed = [
        line
        for block in blocks(PAGE)
        if block.language == "bash"
        for line in block.text.strip().splitlines()
    ]
    ran = [command for command in typed if not command.startswith(NEEDS_AN_ACCOUNT)]
    assert set(FRESH) <= set(ran) and len(ran) >= 5 and len(typed) > len(ran)

    for command in ran:
        if command not in FRESH:
            done = run(clone, command)
            assert done.returncode == 0, command + done.stdout + done.stderr


@pytest.mark.parametrize("command", FRESH)
def test_a_fresh_clone_explains_itself(clone: Path, command: str) -> None:
    target = command.rpartition(" ")[2]
    before = sorted(clone.rglob("*"))

    done = run(clone, command)

    assert done.returncode == 1  # there are no keys yet
    stages = ("stage: ", "database: ", "functions: ", "answer: ", "sync: ", "verify: ")
    assert_none(stage for stage in stages if f" {stage}" not in done.stdout)
    missing = ("INNGEST_SIGNING_KEY", "DATABASE_URL", "SUPABASE_PROJECT_REF", "INNGEST_EVENT_KEY")
    google = (*missing[:2], "GOOGLE_CLOUD_PROJECT_NUMBER", "SUPABASE_SECRET_KEY")
    docker = (*missing[:2], "STEPBASE_PUBLIC_ORIGIN")
    wanted = {"compute": missing, "cloudrun": google, "docker": docker}[target]
    assert_none(name for name in wanted if f"problem  {name}: " not in done.stdout)
    assert "not ready to run" in done.stdout and done.stderr == ""
    assert [each for each in sorted(clone.rglob("*")) if each not in before] == []


def test_deploy_sh_is_thin_and_clean(tmp_path: Path) -> None:
    lines = (ROOT / "deploy.sh").read_text().splitlines()
    assert len(lines) <= 12 and "set -euo pipefail" in lines
    program = shutil.which("shellcheck")
    if program is None:
        files = debian.fetched(tmp_path, "shellcheck")
        program = str(files / "usr" / "bin" / "shellcheck") if files else None
    assert program, "install shellcheck: apt-get install shellcheck"

    done = subprocess.run([program, ROOT / "deploy.sh"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_the_lock_of_this_project_pins_every_folder() -> None:
    pins = lock.parse((ROOT / lock.FILE).read_text())

    for file in ROOT.glob("functions/*/requirements.txt"):
        wanted = lock.requirements(file.read_text(), str(file))
        assert lock.unpinned(wanted, pins) == []

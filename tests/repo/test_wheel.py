"""What is installed elsewhere: the wheel has everything that is not Python, too."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.repo.tree import MIGRATIONS, PACKAGES, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this checkout."""
    folder: Path = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_it_holds_every_migration(wheel: zipfile.ZipFile) -> None:
    packed = {name.rpartition("/")[2] for name in wheel.namelist() if "/_migrations/" in name}

    assert packed == {path.name for path in MIGRATIONS.glob("*.sql")}


def test_it_holds_what_the_dashboard_gets(wheel: zipfile.ZipFile) -> None:
    for kind in ("notebooks", "snippets"):
        packed = {name.rpartition("/")[2] for name in wheel.namelist() if f"/_{kind}/" in name}
        assert packed == {path.name for path in (ROOT / "supabase" / kind).iterdir()} != set()


def test_it_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    wanted = {
        path.relative_to(ROOT / "shared").as_posix()
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert wanted - packed == set()
    assert {
        "stepbase/py.typed",
        "rewards/py.typed",
        "stepbase/local/prelude.sql",
        "stepbase/demo/data/cdnow_sample.txt",
    } <= packed


def test_it_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    roots = {name.partition("/")[0] for name in wheel.namelist()}

    assert {root for root in roots if not root.endswith(".dist-info")} == {"stepbase", "rewards"}


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    [entry] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]

    assert "stepbase = stepbase.cli.main:main" in wheel.read(entry).decode()

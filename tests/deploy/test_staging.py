"""The staged folder: the same bytes every time, everything it needs, nothing it must not have."""

import os
import re
import shutil
from pathlib import Path

import pytest
from tests.repo.tree import ROOT
from tests.support.platform import command_of, files_of, variables

from stepbase.deploy import lock, staging
from stepbase.deploy.errors import DeployError
from stepbase.deploy.plan import Files
from stepbase.deploy.staging import Staged

PLACE = {
    "INNGEST_SERVE_ORIGIN": "https://x.supabase.co",
    "INNGEST_SERVE_PATH": "/compute/v1/currency",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with the folder "currency"."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        ROOT / "functions" / "currency", tmp_path / "functions" / "currency", ignore=ignored
    )
    shutil.copytree(ROOT / "shared" / "rewards", tmp_path / "shared" / "rewards", ignore=ignored)
    return tmp_path


def stage(root: Path, *, has_app: bool = True, base: str = staging.BASE_IMAGE) -> Staged:
    pins = lock.parse((ROOT / lock.FILE).read_text())
    path = root / "functions" / "currency"
    return staging.stage(root, path, pins, surroundings=PLACE, has_app=has_app, base=base)


def test_two_stagings_are_the_same_bytes(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "shop"
    shutil.copytree(root, elsewhere)
    for file in elsewhere.rglob("*.py"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (elsewhere / "functions" / "currency" / "__pycache__").mkdir()
    (elsewhere / "functions" / "currency" / "__pycache__" / "main.cpython-311.pyc").write_bytes(
        b"x"
    )

    staging.write(root, stage(root))
    staging.write(elsewhere, stage(elsewhere))
    staging.write(elsewhere, stage(elsewhere))

    one, other = root / "build" / "currency", elsewhere / "build" / "currency"
    assert files_of(one) == files_of(other)
    stats = [
        [(p.stat().st_mtime, p.stat().st_mode) for p in sorted(each.rglob("*.py"))]
        for each in (one, other)
    ]
    assert stats[0] == stats[1]


def test_an_image_s_user_may_read_it_whoever_staged_it(root: Path) -> None:
    """A strict umask would make folders that user 10001 cannot enter."""
    (root / "functions" / "currency" / "data").mkdir()
    (root / "functions" / "currency" / "data" / "rates.json").touch(0o600)
    found = []
    for umask in (0o077, 0o000):
        old = os.umask(umask)
        try:
            staging.write(root, stage(root))
        finally:
            os.umask(old)
        built = root / "build" / "currency"
        entries = sorted([built, *built.rglob("*")])
        found.append([(p, p.stat().st_mode & 0o777, p.stat().st_mtime) for p in entries])

    assert found[0] == found[1]
    assert all(mode == (0o755 if path.is_dir() else 0o644) for path, mode, _ in found[0])
    assert {time for _, _, time in found[0]} == {0}


def test_what_stays_at_home_is_told(root: Path) -> None:
    (root / "functions" / "currency" / "server.pem").write_text("x")
    (root / "functions" / "currency" / "Dockerfile").write_text("FROM mine")
    (root / "shared" / "rewards" / "prod.env").write_text("x")

    staged = stage(root)

    assert staged.left_out == ("Dockerfile", "rewards/prod.env", "server.pem")
    assert staged.digest in staged.files["Dockerfile"].decode()
    assert "left out, for no image may have them" in Files(staged).lines()[-1]


def test_a_build_folder_that_cannot_be_written_is_named(root: Path) -> None:
    (root / "build").write_text("no folder")

    with pytest.raises(DeployError, match="build/currency cannot be written"):
        staging.write(root, stage(root))


def test_a_link_is_replaced_and_what_it_leads_to_is_not(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (root / "build").mkdir()
    (root / "build" / "currency").symlink_to(tmp_path / "elsewhere")

    staging.write(root, stage(root))

    assert (tmp_path / "elsewhere" / "kept").exists()
    assert (root / "build" / "currency" / "main.py").is_file()


def test_what_was_there_before_is_gone(root: Path) -> None:
    old = root / "build" / "currency" / "old.py"
    old.parent.mkdir(parents=True)
    old.touch()

    staging.write(root, stage(root))

    assert not old.exists()
    assert list((root / "build").iterdir()) == [root / "build" / "currency"]


@pytest.mark.parametrize("change", ["code", "place", "base", "server"])
def test_every_change_has_a_digest_of_its_own(root: Path, change: str) -> None:
    before = stage(root).digest

    match change:
        case "code":
            (root / "functions" / "currency" / "main.py").write_text("main = 1\n")
            after = stage(root).digest
        case "place":
            pins = lock.parse((ROOT / lock.FILE).read_text())
            path = root / "functions" / "currency"
            after = staging.stage(root, path, pins, surroundings={}, has_app=True).digest
        case "base":
            after = stage(root, base="python@sha256:1").digest
        case _:
            after = stage(root, has_app=False).digest

    assert after != before


def test_secrets_stay_at_home(root: Path) -> None:
    folder = root / "functions" / "currency"
    secret = [
        ".env",
        ".env.staging",
        "signing.key",
        "server.pem",
        ".git/config",
        str(Path("tests", "it.py")),
    ]
    for name in (*secret, "data/rates.json", "helpers/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")

    staged = stage(root).files

    assert {"data/rates.json", "helpers/__init__.py", "main.py"} <= staged.keys()
    assert not set(secret) & staged.keys()


def test_it_holds_the_function_side_alone(root: Path) -> None:
    files = stage(root).files

    packages = {
        name.split("/")[1] for name in files if name.startswith("stepbase/") and name.count("/") > 1
    }
    assert packages == {"hosts", "middleware", "protocol", "sdk", "supabase"}
    assert "rewards/py.typed" in files and "stepbase/config.py" in files


def test_its_requirements_are_pins_of_all_it_needs(root: Path) -> None:
    lines = stage(root).files["requirements.txt"].decode().splitlines()

    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert {"functions-framework", "gunicorn", "uvicorn", "httpx", "h11"} <= {
        line.partition("==")[0] for line in lines
    }


def test_its_dockerfile_is_pinned_and_without_rights(root: Path) -> None:
    staged = stage(root)
    dockerfile = staged.files["Dockerfile"].decode()
    lines = dockerfile.splitlines()

    [base] = [line for line in lines if line.startswith("FROM ")]
    assert re.fullmatch(r"FROM python:3\.13-slim@sha256:[0-9a-f]{64}", base)
    assert lines.index("USER 10001") < lines.index("EXPOSE 8080")
    assert command_of(dockerfile)[0] == "functions-framework" and "--asgi" in command_of(dockerfile)
    assert "--asgi" not in command_of(stage(root, has_app=False).files["Dockerfile"].decode())
    assert variables(dockerfile) == {
        **PLACE,
        "PORT": "8080",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "STEPBASE_DEPLOYMENT": staged.digest,
    }
    assert "/health" in dockerfile and "HEALTHCHECK" in dockerfile


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ("nothing-pins-this\n", "nothing-pins-this is not pinned"),
        ("httpx>=99\n", "does not allow the pinned httpx"),
        ("-r other.txt\n", "no requirement"),
        ("httpx @ https://example.com/httpx.whl\n", "an address"),
        (None, "no requirements.txt"),
    ],
)
def test_what_is_not_pinned_is_not_staged(
    root: Path, requirements: str | None, message: str
) -> None:
    file = root / "functions" / "currency" / "requirements.txt"
    file.write_text(requirements) if requirements is not None else file.unlink()

    with pytest.raises(DeployError, match=re.escape(message)):
        stage(root)


def test_a_package_of_the_same_name_is_refused(root: Path) -> None:
    (root / "functions" / "currency" / "rewards.py").touch()

    with pytest.raises(DeployError, match="has a 'rewards' of its own"):
        stage(root)


def test_a_lock_is_read_with_its_reasons() -> None:
    pins = lock.parse(
        "# head\nHttpX==0.28.1  # via requirements.txt\nh11==0.16.0  # via httpx\nlone==1\n"
    )

    assert (
        lock.pins_for(lock.requirements("httpx>=0.27\n", "x"), pins)
        == "h11==0.16.0\nHttpX==0.28.1\n"
    )
    with pytest.raises(DeployError, match=r"lock:1: .* is no pin"):
        lock.parse("httpx>=1\n", "lock")


def test_a_shared_package_needs_no_init_file(root: Path) -> None:
    """Here it is imported without one; left out, the image would be the first to say so."""
    for file in ("shop/rpc.py", "notes/text.md"):
        (root / "shared" / file).parent.mkdir()
        (root / "shared" / file).write_text("")

    files = stage(root).files

    assert "shop/rpc.py" in files and "rewards/award.py" in files
    assert not any(file.startswith("notes") for file in files)

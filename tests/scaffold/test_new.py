"""`stepbase new`: what it makes passes its own test and every checker, and it overwrites nothing."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.repo.tree import ROOT
from tests.support import supabase_cli

from stepbase.cli.main import main
from stepbase.hosts import front_door
from stepbase.testing import load_app

_EVENTS = (None, "shop/order.paid", "app/event", "class", "Order_Paid", "1/2-3")
_CRONS = (None, "0 9 * * 1-5")
_KNOWN = ("--config", 'lint.isort.known-third-party=["stepbase"]')


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this repository's config.toml."""
    (tmp_path / "supabase").mkdir()
    (tmp_path / "supabase" / "config.toml").write_text(config())
    return tmp_path


def config() -> str:
    return (ROOT / "supabase" / "config.toml").read_text("utf-8")


def new(project: Path, *words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(main, ["new", "--project", str(project), *words])
    return answer.exit_code, answer.output


def made(project: Path) -> list[str]:
    return sorted(p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file())


def checked(project: Path, *command: str) -> None:
    """Run a tool over what was made; it must have nothing to say."""
    paths = [str(ROOT / "shared"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MYPYPATH": str(ROOT / "shared")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variant_passes_its_test_and_every_checker(project: Path) -> None:
    for i, (event, cron, sync) in enumerate(product(_EVENTS, _CRONS, (False, True))):
        options = [*(["--event", event] if event else []), *(["--cron", cron] if cron else [])]
        code, output = new(project, f"app-{i}", *options, *(["--sync"] if sync else []))
        assert code == 0, output
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")

    checked(
        project, "pytest", "-q", "-p", "no:randomly", "-p", "no:asyncio", "-p", "no:cacheprovider"
    )
    ruff = ("--isolated", "--line-length", "88")
    checked(project, "ruff", "format", "--check", *ruff, ".")
    checked(project, "ruff", "check", *ruff, "--select", "E,F,B,UP,I", *_KNOWN, ".")
    # Each main.py is a module `main`, so mypy takes one at a time; one of each kind is enough.
    mypy = ("mypy", "--strict", "--cache-dir", str(project / ".mypy_cache"))
    checked(project, *mypy, "tests")
    for i in (0, 7):
        checked(project, *mypy, f"functions/app-{i}/main.py")


def test_an_app_has_its_folder_test_and_tables(project: Path) -> None:
    code, output = new(project, "shop-mail", "--front-door")

    assert code == 0
    assert made(project) == [
        "functions/shop-mail/main.py",
        "functions/shop-mail/requirements.txt",
        "supabase/config.toml",
        "supabase/functions/shop-mail/index.ts",
        "tests/test_shop_mail.py",
    ]
    assert output.splitlines()[-3:] == [
        "  pytest tests/test_shop_mail.py",
        "  stepbase dev",
        "  stepbase deploy shop-mail --dry-run",
    ]
    door = project / "supabase" / "functions" / "shop-mail" / "index.ts"
    assert door.read_text("utf-8") == front_door.source("shop-mail")
    text = (project / "supabase" / "config.toml").read_text("utf-8")
    assert text.startswith(config())
    assert "\n[compute.shop-mail]\n" in text
    assert text.endswith("\n[functions.shop-mail]\nverify_jwt = false\n")
    app = load_app(project / "functions" / "shop-mail")
    assert list(app.functions) == ["shop-mail-requested"]


def test_an_installed_stepbase_makes_an_app_that_its_deploy_takes(
    project: Path, installed: Path
) -> None:
    def stepbase(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "stepbase.cli", *words], cwd=project, text=True, timeout=60,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}, capture_output=True,
        )  # fmt: skip

    made = stepbase("new", "shop", "--event", "shop/order.paid", "--cron", "0 9 * * 1-5")
    shutil.copy(ROOT / "functions" / "requirements.lock", project / "functions")
    (project / ".env").write_text(
        "SUPABASE_URL=https://example.supabase.co\nSUPABASE_SECRET_KEY=sb_secret_x\n"
        f"INNGEST_SIGNING_KEY=signkey-prod-{'ab' * 16}\nINNGEST_EVENT_KEY=key\n"
        "STEPBASE_PUBLIC_ORIGIN=https://functions.example.com\n"
    )
    planned = stepbase("deploy", "shop", "--target", "docker", "--skip-db", "--dry-run", "--json")

    assert made.returncode == 0, made.stderr

    def needed(folder: Path) -> list[str]:
        lines = (folder / "requirements.txt").read_text("utf-8").splitlines()
        return [line for line in lines if not line.startswith("#")]

    assert needed(project / "functions" / "shop") == needed(ROOT / "functions" / "currency")
    # What is missing is a program of this machine, nothing of the app.
    plan = json.loads(planned.stdout)
    staged = plan["stages"][0]["actions"][0]["files"]
    assert {"main.py", "Dockerfile", "stepbase/__init__.py"} <= set(staged)
    assert {problem["where"] for problem in plan["problems"]} <= {"docker"}


def test_the_supabase_cli_takes_the_table(project: Path) -> None:
    new(project, "shop")

    done = supabase_cli.run(
        "compute", "push", "shop", f"--remote={'a' * 20}", "--yes", cwd=project,
        environment={
            "SUPABASE_EXPERIMENTAL_COMPUTE": "1",
            "SUPABASE_ACCESS_TOKEN": "sbp_" + "0" * 40,
        },
    )  # fmt: skip

    # It has read the table and looks for the folder that deploy stages.
    assert done.returncode == 1
    assert "build/shop" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("shop_mail", "shop-mail"),
        ("Shop", "shop"),
        ("shop-", "shop"),
        ("2shop", "shop"),
        ("shop.mail", "shop-mail"),
        ("a" * 64, "a" * 63),
    ],
)
def test_a_name_that_no_host_can_have_is_refused_with_one_that_would_do(
    project: Path, name: str, better: str
) -> None:
    code, output = new(project, name)

    assert code == 1
    assert f'"{better}" would do' in output
    assert new(project, better)[0] == 0


@pytest.mark.parametrize("name", ["shop_mail", "Shop", "shop-", "a" * 64])
def test_supabase_compute_refuses_these_names_too(project: Path, name: str) -> None:
    done = supabase_cli.run(
        "compute", "new", name, cwd=project, environment={"SUPABASE_EXPERIMENTAL_COMPUTE": "1"}
    )

    assert done.returncode == 1
    assert "not a valid compute name" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "taken", ["functions/shop", "tests/test_shop.py", "supabase/functions/shop"]
)
def test_what_is_there_is_not_overwritten(project: Path, taken: str) -> None:
    (project / taken).mkdir(parents=True)

    code, output = new(project, "shop", "--front-door")

    assert code == 1
    assert f"{taken} exists already" in output
    assert made(project) == ["supabase/config.toml"]
    assert (project / "supabase" / "config.toml").read_text("utf-8") == config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--event", "shop/*"], 'no "*"'),
        (["--event", "inngest/function.failed"], "not beginning with"),
        (["--event", 'a"b'], "letters, digits"),
        (["--event", ""], "event name is text"),
        (["--cron", "every day"], "five fields"),
        (["--cron", "TZ=Asia/Bangkok 0 9 * * *"], "zone is said in main.py"),
    ],
)
def test_what_cannot_start_a_function_is_refused(
    project: Path, options: list[str], message: str
) -> None:
    code, output = new(project, "shop", *options)

    assert code == 1
    assert message in output
    assert made(project) == ["supabase/config.toml"]


def test_a_dry_run_lists_and_writes_nothing(project: Path) -> None:
    code, output = new(project, "shop", "--dry-run")

    assert code == 0
    assert [line.split() for line in output.splitlines()] == [
        ["new", "functions/shop/main.py"],
        ["new", "functions/shop/requirements.txt"],
        ["new", "tests/test_shop.py"],
        ["changed", "supabase/config.toml"],
    ]
    assert made(project) == ["supabase/config.toml"]


def test_without_a_supabase_project_the_table_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    code, output = new(tmp_path, "shop")

    assert code == 0
    assert "supabase/config.toml is not there" in output
    assert not (tmp_path / "supabase").exists()

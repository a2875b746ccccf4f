"""A project to deploy, the tools it is deployed with, and the platform that runs what was deployed.

A deploy is run as typed, in a process of its own. gcloud and docker are stubs that record; the Supabase CLI
is the real one behind a recording wrapper, before a stand-in of the Management API, or a stub as well.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
from tests.repo.tree import ROOT
from tests.support import supabase_cli
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.management_api import REF, TOKEN, ManagementApi, management_api
from tests.support.platform import Found, Platform, environment_of_tests, files_of, platform

from stepbase.deploy import dotenv

STUB = Path(__file__).parent / "stubs" / "stub.py"
SIGNING_KEY = "signkey-prod-" + "5e" * 32
EVENT_KEY = "event-key-of-the-shop"
API_KEY = "sk-inn-api-0123456789"
SECRET_KEY = "sb_secret_of_the_shop"
DATABASE_PASSWORD = "pass$'w@rd"
MAIL_KEY = 'mail#key $1\nits "second" line=`$2`\n'
SECRETS = (SIGNING_KEY, EVENT_KEY, API_KEY, SECRET_KEY, DATABASE_PASSWORD, TOKEN, MAIL_KEY)

SECRET_NAMES = (
    "DATABASE_URL",
    "INNGEST_API_KEY",
    "INNGEST_EVENT_KEY",
    "INNGEST_SIGNING_KEY",
    "PGPASSWORD",
    "SHOP_MAIL_KEY",
    "SUPABASE_ACCESS_TOKEN",
    "SUPABASE_SECRET_KEY",
)

_DOOR = '''"""A folder without an app."""

from typing import Any

from stepbase.hosts import health


def main(request: Any) -> Any:
    """Answer any request."""
    return health.body(), 200, health.HEADERS
'''

_NOTEBOOK = {
    "name": "runs",
    "description": "Runs",
    "content": {"cells": [{"type": "markdown", "text": "Runs"}]},
}


@dataclass
class Shop:
    """A project on disk, and what deploys of it have done.

    Attributes:
        root: The project.
        state: What the stubs keep, `calls.jsonl` among it.
        platform: What runs the deployed folders.
        inngest: The server that apps register with.
    """

    root: Path
    state: Path
    tools: Path
    platform: Platform
    inngest: FakeApi
    environment: dict[str, str] = field(default_factory=dict)

    def set(self, env: str = "", **variables: str | None) -> None:
        """Change variables of the environment's file; None takes one out."""
        file = self.root / (f".env.{env}" if env else ".env")
        old = dotenv.parse(file.read_text(), file.name) if file.exists() else {}
        new = {name: value for name, value in {**old, **variables}.items() if value is not None}
        file.write_text(dotenv.write(new))

    def deploy(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `stepbase deploy` to its end."""
        process = self.start(*words, **environment)
        printed, complaints = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, printed, complaints)

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        """Start `stepbase deploy`."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "stepbase.cli", "deploy", *words],
            cwd=self.root,
            env={
                **environment_of_tests(),
                "PATH": f"{self.tools}:/usr/bin:/bin",
                "HOME": str(self.state),
                "STUB_STATE": str(self.state),
                **self.environment,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_as_from_a_terminal,
        )

    @property
    def calls(self) -> list[list[str]]:
        """Every command that was run, as its words."""
        return [call["argv"] for call in self.recorded]

    @property
    def recorded(self) -> list[dict[str, list[str]]]:
        """Every command that was run, with the names of the secrets in its environment."""
        file = self.state / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def syncs(self) -> list[Received]:
        """The registrations that the server of runs got."""
        return [each for each in self.inngest.received if each.path.startswith("/fn/register")]

    def use_stub(self, name: str) -> None:
        """Put the stub of a tool on the PATH."""
        write_program(self.tools / name, f'exec "{sys.executable}" -S -E "{STUB}" {name} "$@"')


def write_program(path: Path, line: str) -> None:
    """Write a program of one line of shell."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A project with the app "currency", a folder without an app, two migrations and a notebook."""
    root, state, tools = tmp_path / "shop", tmp_path / "state", tmp_path / "tools"
    for folder in (root / "functions" / "door", root / "supabase" / "notebooks", state, tools):
        folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        ROOT / "functions" / "currency", root / "functions" / "currency", ignore=ignored
    )
    shutil.copytree(ROOT / "shared" / "rewards", root / "shared" / "rewards", ignore=ignored)
    front = "supabase/functions/currency"
    shutil.copytree(ROOT / front, root / front)
    shutil.copy(ROOT / "functions" / "requirements.lock", root / "functions")
    (root / "functions" / "door" / "main.py").write_text(_DOOR)
    (root / "functions" / "door" / "requirements.txt").write_text("functions-framework>=3.9,<4\n")
    (root / "supabase" / "notebooks" / "runs.json").write_text(json.dumps(_NOTEBOOK))
    migrations = root / "supabase" / "migrations"
    migrations.mkdir()
    (migrations / "20260101000000_goods.sql").write_text(
        "create table public.goods (id int primary key);\n"
        "alter table public.goods enable row level security;\n"
    )
    (migrations / "20260102000000_more.sql").write_text("insert into public.goods values (1);\n")
    blocks = "".join(_compute(name) for name in ("currency", "door"))
    door = "[functions.currency]\nverify_jwt = false\n"
    (root / "supabase" / "config.toml").write_text(f'project_id = "shop"\n{blocks}{door}')
    with platform(tmp_path / "platform") as running, fake_api(_registered) as inngest:
        made = Shop(root, state, tools, running, inngest)
        made.set(
            SUPABASE_PROJECT_REF=REF,
            SUPABASE_ACCESS_TOKEN=TOKEN,
            DATABASE_URL=database_url("postgresql://postgres@127.0.0.1:5432/postgres"),
            INNGEST_SIGNING_KEY=SIGNING_KEY,
            INNGEST_EVENT_KEY=EVENT_KEY,
            INNGEST_BASE_URL=inngest.url,
            STEPBASE_PUBLIC_ORIGIN=running.url,
            SHOP_MAIL_KEY=MAIL_KEY,
        )
        for name in ("gcloud", "docker", "supabase"):
            made.use_stub(name)
        running.find = lambda name: _running(made, name)
        running.has_edge = lambda name: (state / "edge" / name).is_dir()
        yield made


@pytest.fixture
def supabase(shop: Shop) -> Iterator[ManagementApi]:
    """The Management API, asked by the real CLI, which takes the stub's place in `shop`."""
    with management_api() as api:
        shop.environment["SUPABASE_PROFILE"] = str(api.write_profile(shop.state))
        shop.environment["SUPABASE_TELEMETRY_DISABLED"] = "1"
        note = f'"{sys.executable}" -S -E "{STUB}" note supabase "$@" < /dev/null'
        write_program(shop.tools / "supabase", f'{note}\nexec "{supabase_cli.program()}" "$@"')

        def find(name: str) -> Found | None:
            files = api.built.get(name)
            return None if files is None else (files, api.secrets)

        shop.platform.find = find
        shop.platform.has_edge = lambda name: name in api.functions
        yield api


Change = Callable[[Shop], object]


def database_url(dsn: str) -> str:
    """Return a connection string with the password in it, as the dashboard shows it."""
    parts = urlsplit(dsn)
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(DATABASE_PASSWORD, safe='')}@{place}"))


def _compute(name: str) -> str:
    return (
        f'[compute.{name}]\nruntime = "dockerfile"\nsize = "2gb"\nexposure = "public"\ninstances = 1\n'
        f'source = "build/{name}"\n'
    )


def _registered(request: Received) -> tuple[int, object]:
    is_known = request.path.startswith(("/fn/register", "/v2/apps/", "/health"))
    return (200, {"ok": True, "status": 200}) if is_known else (404, {})


def _running(shop: Shop, name: str) -> Found | None:
    """Return what the stubs have brought to where it runs, with the variables it was given."""
    folder = shop.state / "running" / name
    if not folder.is_dir():
        return None
    secrets: dict[str, str] = {}
    if (shop.state / "project.env").exists():
        secrets |= dotenv.parse((shop.state / "project.env").read_text(), "project.env")
    if (shop.state / "compose.env").exists():
        secrets |= json.loads((shop.state / "compose.env").read_text())
    for each in (shop.state / "secrets").glob("*"):
        versions = sorted(each.glob("v*"))
        if versions:
            secrets[each.name.removeprefix("stepbase-")] = versions[-1].read_text()
    return files_of(folder), secrets


assert os.sep == "/", "the stubs are programs of a shell"


def _as_from_a_terminal() -> None:
    """Listen to Ctrl-C, which a shell has what it starts in the background ignore, and to SIGHUP (nohup)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

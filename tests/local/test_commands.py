"""`stepbase db` and `stepbase gateway`, as typed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest
from click.testing import CliRunner
from tests.support.server import Server

from stepbase.cli.main import main
from stepbase.local.gateway.auth import Authenticator, Keys
from stepbase.local.serving import listen
from stepbase.supabase.auth import Verifier


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a migration of its own."""
    folder = tmp_path / "supabase" / "migrations"
    folder.mkdir(parents=True)
    (folder / "20990101000000_mine.sql").write_text("create table public.mine (n int);")
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(main, list(words))
    return answer.exit_code, answer.output


async def test_db_apply_and_status(cluster: Server, project: Path) -> None:
    name = await cluster.create()
    options = ("--database-url", cluster.dsn(name), "--project", str(project))
    try:
        before = await asyncio.to_thread(run, "db", "status", *options)
        applied = await asyncio.to_thread(run, "db", "apply", *options)
        again = await asyncio.to_thread(run, "db", "apply", *options)
        after = await asyncio.to_thread(run, "db", "status", "--json", *options)
    finally:
        await cluster.drop(name)

    assert before[0] == 1 and "missing      20990101000000_mine" in before[1]
    assert applied[0] == 0 and "applied 20990101000000_mine.sql" in applied[1]
    assert again == (0, "up to date\n")
    assert after[0] == 0
    assert all(standing["applied"] for standing in json.loads(after[1]))


@pytest.mark.parametrize("verb", ["apply", "status"])
def test_db_says_when_there_is_no_database(tmp_path: Path, verb: str) -> None:
    code, output = run("db", verb, "--database-url", f"postgresql://x@/x?host={tmp_path}")

    assert code == 1
    assert output.startswith("Error: ")


async def test_db_apply_names_the_line(cluster: Server, project: Path) -> None:
    (project / "supabase" / "migrations" / "20990101000001_bad.sql").write_text("select 1;\nselct;")
    name = await cluster.create()
    try:
        code, output = await asyncio.to_thread(
            run, "db", "apply", "--database-url", cluster.dsn(name), "--project", str(project)
        )
    finally:
        await cluster.drop(name)

    assert code == 1
    assert "20990101000001_bad.sql:2: syntax error" in output


def test_gateway_command_serves(gateway_database: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    command = [sys.executable, "-P", "-c", "from stepbase.cli.main import main; main()"]
    options = ["--port", "0", "--keys", str(keys), "--database-url", gateway_database]
    with subprocess.Popen(
        [*command, "gateway", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        url = f"http://127.0.0.1:{ready['port']}/rest/v1/rpc/add"
        answer = httpx.post(url, json={"a": 1}, headers={"apikey": Keys.load(keys).publishable})
        process.terminate()

    assert ready["ready"] == "gateway"
    assert answer.json() == 11


async def test_gateway_can_die_between_commit_and_answer(
    gateway_database: str, things: None, tmp_path: Path
) -> None:
    hits = tmp_path / "hits"
    environment = {
        **os.environ,
        "STEPBASE_FAILPOINTS": "rpc.after_commit=1",
        "STEPBASE_FAILPOINT_LOG": str(hits),
    }
    command = [sys.executable, "-P", "-c", "from stepbase.cli.main import main; main()"]
    keys = tmp_path / "keys.json"
    options = ["--port", "0", "--keys", str(keys), "--database-url", gateway_database]
    with subprocess.Popen(
        [*command, "gateway", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with httpx.Client(
            base_url=f"http://127.0.0.1:{ready['port']}/rest/v1",
            headers={"apikey": Keys.load(keys).secret},
        ) as client:
            # What only reads is no effect: nothing could be done twice.
            assert client.post("/rpc/add", json={"a": 1}).json() == 11
            with pytest.raises(httpx.TransportError):
                client.post("/rpc/add_thing", json={"name": "committed"})
        assert process.wait(10) == -signal.SIGKILL

    connection = await asyncpg.connect(gateway_database)
    found = await connection.fetchval("select count(*) from public.things where name = 'committed'")
    await connection.close()
    assert found == 1
    assert hits.read_text() == "rpc.after_commit\n"


def test_gateway_command_names_a_taken_port(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        code, output = run(
            "gateway", "--port", port, "--database-url", "x", "--keys", str(tmp_path / "k.json")
        )

    assert code == 1
    assert f"port {port}" in output and "--port" in output


_USER = "7b1c0000-0000-4000-8000-000000000001"


def test_commands_need_a_database() -> None:
    for words in (("db", "apply"), ("db", "status"), ("gateway",)):
        code, output = run(*words)
        assert code == 2
        assert "--database-url" in output


def test_db_says_where_a_database_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("apply", "status"):
        _, output = run("db", verb)
        assert "set DATABASE_URL" in output
        assert ".stepbase/env" in output


def test_db_says_what_to_do_about_a_database_that_is_away() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for verb in ("apply", "status"):
            code, output = run("db", verb, "--database-url", f"postgresql://x@127.0.0.1:{port}/x")
            assert code == 1
            assert str(port) in output
            assert "Is DATABASE_URL (or --database-url) right, and does it run?" in output


def test_a_token_is_for_an_id_that_postgres_can_cast(tmp_path: Path) -> None:
    Keys.load(tmp_path / "keys.json")
    code, output = run("token", "u-1", "--data", str(tmp_path))
    assert code == 2
    assert "USER_ID is a UUID" in output
    assert "'u-1'" in output


def test_a_token_is_one_of_the_local_projects_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run("token", _USER, "--data", str(tmp_path))
    assert (code, "start `stepbase dev` once" in output) == (1, True)

    keys = Keys.load(tmp_path / "keys.json")
    code, output = run("token", _USER, "--data", str(tmp_path), "--email", "a@b.c", "--anonymous",
                       "--url", "http://127.0.0.1:1234/")  # fmt: skip
    assert code == 0
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:1234")
    monkeypatch.setenv("SUPABASE_JWT_SECRET", keys.jwt_secret)
    user = Verifier(allow_anonymous=True).verify(output.strip())

    assert (user.id, user.role, user.is_anonymous) == (_USER, "authenticated", True)
    assert user.claims["email"] == "a@b.c"
    assert Authenticator(keys).verify(output.strip()).role == "authenticated"

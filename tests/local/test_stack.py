"""The whole local stack: started, killed piece by piece, stopped; and `stepbase dev` on top of it."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from supabase import ClientOptions, create_client
from tests.support.gateway import running_gateway
from tests.support.server import Server

from stepbase.config import SupabaseConfig
from stepbase.local.errors import (
    ApiAwayError,
    ChildError,
    DatabaseAwayError,
    LocalError,
    PortTakenError,
)
from stepbase.local.serving import listen
from stepbase.local.stack import Plan, Stack

MAIN = """
from stepbase import App, Step, serve

app = App("greeting")

@app.function("greet", on="greeting/asked")
async def greet(event, step: Step):
    return await step.run("hello", lambda: "hello " + event.data["name"])

main = serve(app)
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A folder with one function folder."""
    (tmp_path / "functions" / "greeting").mkdir(parents=True)
    (tmp_path / "functions" / "greeting" / "main.py").write_text(MAIN)
    return tmp_path / "functions"


async def greet(engine_url: str, name: str) -> Any:
    """Send an event and return its run's output."""
    async with httpx.AsyncClient(base_url=engine_url) as client:
        event = {"name": "greeting/asked", "data": {"name": name}}
        sent = await client.post("/e/key", json=event)
        async with asyncio.timeout(30):
            while True:
                runs = await client.get(f"/v1/events/{sent.json()['ids'][0]}/runs")
                if runs.json()["data"] and runs.json()["data"][0]["status"] == "Completed":
                    return runs.json()["data"][0]["output"]
                await asyncio.sleep(0.02)


async def test_everything_works_and_comes_back(functions: Path) -> None:
    lines: list[str] = []
    plan = Plan(functions=functions, durable=False, project=functions)
    async with Stack(plan, lambda name, line: lines.append(f"{name}: {line}")) as stack:
        assert stack.apps == ["greeting"]
        assert await greet(stack.engine_url, "one") == "hello one"
        addresses = (stack.engine_url, stack.host_url, stack.gateway_url, stack.database_url)

        for name in ("engine", "host", "gateway"):
            await stack.kill(name)
        await stack.restart_postgres(immediate=True)
        await stack.wait_ready()
        assert await greet(stack.engine_url, "two") == "hello two"

        await stack.restart("host")
        assert await greet(stack.engine_url, "three") == "hello three"
        assert addresses == (
            stack.engine_url,
            stack.host_url,
            stack.gateway_url,
            stack.database_url,
        )
        with httpx.Client() as http:
            client = create_client(
                stack.gateway_url, stack.keys.secret, ClientOptions(httpx_client=http)
            )
            ledger = client.rpc("stepbase_call", {"p_function": "nothing"})
            with pytest.raises(Exception, match="nothing"):
                ledger.execute()
        home = stack.cluster.home if stack.cluster else None
    assert home is not None and not home.exists()
    assert "sync: greeting" in lines


async def test_events_of_the_seed_find_the_functions(functions: Path, tmp_path: Path) -> None:
    """It was loaded before the apps were synced, so what its rows told started nothing."""
    seed = tmp_path / "seed.sql"
    seed.write_text("""select stepbase.emit('greeting/asked', '{"name": "seed"}', id => 'seed');""")
    plan = Plan(
        functions=functions, durable=False, project=functions, seed=seed, data=tmp_path / "data"
    )
    main = functions / "greeting" / "main.py"
    main.write_text("1 / 0\n")
    with pytest.raises(ChildError):
        async with Stack(plan):
            pass
    main.write_text(MAIN)

    for _ in range(2):
        async with Stack(plan) as stack:
            db = await asyncpg.connect(stack.database_url)
            try:
                async with asyncio.timeout(30):
                    while await db.fetchval("select max(ended_at) from stepbase.runs") is None:
                        await asyncio.sleep(0.02)
                assert await db.fetchval("select array_agg(output::text) from stepbase.runs") == [
                    '"hello seed"'
                ]
                assert await db.fetchval("select count(*) from stepbase.outbox") == 0
            finally:
                await db.close()
    remove_data(tmp_path, "data")


async def test_our_server_comes_back_when_it_dies(functions: Path) -> None:
    plan = Plan(functions=functions, durable=False, project=functions)
    async with Stack(plan) as stack:
        assert stack.cluster is not None
        os.kill(stack.cluster.pid, signal.SIGQUIT)

        assert await greet(stack.engine_url, "again") == "hello again"


async def test_a_given_database_is_used_and_left_alone(functions: Path, database: str) -> None:
    plan = Plan(functions=functions, database_url=database, project=functions)
    async with Stack(plan) as stack:
        assert stack.database_url == database
        assert await greet(stack.engine_url, "you") == "hello you"
        with pytest.raises(LocalError, match="not ours"):
            await stack.restart_postgres()


async def test_a_failure_to_start_leaves_nothing(functions: Path) -> None:
    (functions / "greeting" / "main.py").write_text("1 / 0\n")
    stack = Stack(Plan(functions=functions, durable=False, project=functions))

    with pytest.raises(ChildError, match="ZeroDivisionError"):
        async with stack:
            pass

    assert stack.cluster is None
    assert not any(piece.running for piece in stack.pieces.values())


async def test_a_stack_that_was_not_started_says_so(functions: Path) -> None:
    stack = Stack(Plan(functions=functions))

    for attribute in ("database_url", "keys", "engine_url"):
        with pytest.raises(LocalError, match="start"):
            getattr(stack, attribute)


async def test_a_taken_port_is_named_before_anything_starts(functions: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"{port} .* --gateway-port.*`supabase start`"):
            await Stack(Plan(functions=functions, gateway_port=port)).start()
        with pytest.raises(PortTakenError, match=rf"{port} .* --database-port.*`supabase start`"):
            await Stack(Plan(functions=functions, database_port=port)).start()
        with pytest.raises(PortTakenError, match=rf"{port} .* --host-port$"):
            await Stack(Plan(functions=functions, host_port=port)).start()


# -- beside `supabase start` -----------------------------------------------------------------------

# What a function is told of the project it is to use.
SAYS_WHERE = """
import os

from stepbase import App, Step, serve

app = App("greeting")

@app.function("greet", on="greeting/asked")
async def greet(event, step: Step):
    called = await step.rpc("where_am_i", {}, returns=str)
    return [called, os.environ["SUPABASE_URL"], os.environ.get("SUPABASE_JWT_SECRET")]

main = serve(app)
"""

WHERE = """
create function public.where_am_i() returns text
  language sql stable set search_path = '' as $$ select pg_catalog.current_database()::text $$;
grant execute on function public.where_am_i() to service_role;
"""


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()


def test_dev_uses_the_database_and_the_api_that_are_there(functions: Path, database: str) -> None:
    (functions / "greeting" / "main.py").write_text(SAYS_WHERE)
    asyncio.run(execute(database, WHERE))
    with running_gateway(database) as api:
        given = {
            "DATABASE_URL": database, "SUPABASE_URL": api.url, "SUPABASE_SECRET_KEY": api.keys.secret,
            "SUPABASE_ACCESS_TOKEN": "sbp_of_the_cli",
        }  # fmt: skip
        # A second time too: what it wrote into .stepbase/env is not taken for its own.
        for _ in range(2):
            with running_dev(functions.parent, **given) as (process, mark):
                out = read_until(process, "ready;")
                engine = next(line for line in out.splitlines() if "engine" in line).split()[-1]
                [name, url, secret] = asyncio.run(greet(engine, "you"))
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=20)
            wait_gone(mark)

            assert f"not started: SUPABASE_URL is {api.url}" in out
            assert "postgres │" not in out
            assert name in database and (url, secret) == (api.url, None)
            env = (functions.parent / ".stepbase" / "env").read_text()
            assert f"SUPABASE_URL={api.url}\n" in env and "sbp_of_the_cli" not in env


@pytest.mark.parametrize("wrong", ["key", "database", "address"])
async def test_an_api_that_is_not_the_databases_is_refused(
    functions: Path, database: str, cluster: Server, template: str, wrong: str
) -> None:
    other = await cluster.create(template)
    try:
        with running_gateway(cluster.dsn(other) if wrong == "database" else database) as api:
            url = "http://127.0.0.1:1" if wrong == "address" else api.url
            key = "sb_secret_wrong" if wrong == "key" else api.keys.secret
            plan = Plan(
                functions=functions, database_url=database, project=functions,
                api=SupabaseConfig(url, key),
            )  # fmt: skip
            said = {
                "key": "does not take the key",
                "database": "another database",
                "address": "does not answer",
            }
            with pytest.raises(ApiAwayError, match=said[wrong]):
                async with Stack(plan):
                    pytest.fail("it started")
    finally:
        await cluster.drop(other)

    left = await asyncpg.connect(database)
    assert await left.fetchval("select to_regprocedure('public.dev_probe_of_stepbase()')") is None
    await left.close()


def test_without_a_database_of_theirs_our_own_gateway_is_used(functions: Path) -> None:
    elsewhere = {
        "SUPABASE_URL": "https://production.supabase.co",
        "SUPABASE_SECRET_KEY": "sb_secret_x",
    }
    with running_dev(functions.parent, "--temporary", **elsewhere) as (process, mark):
        out = read_until(process, "ready;")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        wait_gone(mark)

    assert "gateway │ ready at http://127.0.0.1:" in out and "production" not in out


def test_a_url_without_its_key_is_said(functions: Path, database: str) -> None:
    given = {"DATABASE_URL": database, "SUPABASE_URL": "http://127.0.0.1:54321"}
    with running_dev(functions.parent, **given) as (process, _):
        out, _ = process.communicate(timeout=20)

    assert process.returncode == 1
    assert "SUPABASE_SECRET_KEY" in out


# -- stepbase dev --------------------------------------------------------------------------------


@contextmanager
def running_dev(
    project: Path, *options: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `stepbase dev` in `project`; yields it and a mark all its processes carry."""
    mark = secrets.token_hex(8)
    command = "from stepbase.cli.main import main; main()"
    ports = [f"--{name}-port=0" for name in ("gateway", "engine", "host", "database")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", command, "dev", *ports, *options],
        cwd=project,
        env={**os.environ, **variables, "DEV_TEST_MARK": mark, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process, mark
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return what is printed up to the line with `text`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


def marked(mark: str) -> list[str]:
    """Return the processes that carry the mark and are no zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait_gone(mark: str) -> None:
    deadline = time.monotonic() + 15
    while marked(mark):
        assert time.monotonic() < deadline, marked(mark)
        time.sleep(0.05)


def test_dev_stops_on_ctrl_c_and_keeps_its_data(functions: Path) -> None:
    project = functions.parent
    with running_dev(project) as (process, mark):
        out = read_until(process, "ready;")
        assert len(marked(mark)) >= 5
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read() if process.stdout else ""
        assert process.wait(20) == 0
        wait_gone(mark)

    assert "stopping" in rest
    names = [line.split("│")[0].strip() for line in out.splitlines() if "│" in line]
    assert list(dict.fromkeys(names))[:2] == ["postgres", "migrations"]
    assert {"gateway", "engine", "host", "sync"} <= set(names)
    assert sorted(p.name for p in (project / ".stepbase").iterdir()) == [
        "env",
        "keys.json",
        "postgres",
    ]
    assert (project / ".stepbase" / "env").stat().st_mode & 0o077 == 0

    # The shell that sourced the addresses still has that of the stopped database.
    written = (project / ".stepbase" / "env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in written if not line.startswith("#"))
    with running_dev(project, "--reset", **variables) as (process, mark):
        assert "0 already there" in read_until(process, "ready;")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    remove_data(project)


def test_dev_keeps_nothing_when_temporary(functions: Path, tmp_path: Path) -> None:
    with running_dev(functions.parent, "--temporary") as (process, mark):
        out = read_until(process, "ready;")
        home = Path(out.split(" in ")[1].split()[0])
        assert home.exists()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        wait_gone(mark)

    assert not home.exists()
    assert not (functions.parent / ".stepbase").exists()


def test_dev_leaves_nothing_when_it_is_killed(functions: Path) -> None:
    with running_dev(functions.parent, "--temporary") as (process, mark):
        home = Path(read_until(process, "ready;").split(" in ")[1].split()[0])
        process.kill()
        process.wait(10)
        wait_gone(mark)

    assert not home.exists()


def test_dev_ends_though_a_piece_hangs(functions: Path) -> None:
    with running_dev(functions.parent, "--temporary") as (process, mark):
        read_until(process, "ready;")
        hung = [
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if is_piece(folder, mark, "engine")
        ]
        assert len(hung) == 1
        os.kill(hung[0], signal.SIGSTOP)

        process.send_signal(signal.SIGINT)
        read_until(process, "stopping")
        # Once is patient, twice is not.
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
        assert process.returncode == 0
        wait_gone(mark)


def test_dev_stopped_while_starting_leaves_nothing(functions: Path) -> None:
    with running_dev(functions.parent, "--temporary") as (process, mark):
        read_until(process, "postgres")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
        wait_gone(mark)


def test_dev_names_a_taken_port(functions: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with running_dev(functions.parent, f"--engine-port={port}") as (process, _):
            out, _ = process.communicate(timeout=20)

    assert process.returncode == 1
    assert f"port {port}" in out and "--engine-port" in out


def test_dev_runs_new_code_after_a_change(functions: Path) -> None:
    with running_dev(functions.parent, "--temporary") as (process, mark):
        out = read_until(process, "ready;")
        engine = next(line for line in out.splitlines() if "engine" in line).split()[-1]
        assert asyncio.run(greet(engine, "you")) == "hello you"

        (functions / "greeting" / "main.py").write_text(MAIN.replace('"hello "', '"good day "'))
        read_until(process, "greeting")

        assert asyncio.run(greet(engine, "you")) == "good day you"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        wait_gone(mark)


def is_piece(folder: Path, mark: str, name: str) -> bool:
    try:
        words = (folder / "cmdline").read_text().split("\0")
        return name in words and mark.encode() in (folder / "environ").read_bytes()
    except OSError:
        return False


def remove_data(project: Path, folder: str = ".stepbase") -> None:
    """Remove a cluster that root's server keeps outside of the project."""
    shutil.rmtree((project / folder / "postgres").resolve(), ignore_errors=True)


async def test_a_database_that_is_not_there_is_said_in_words(functions: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://postgres:x@127.0.0.1:{port}/postgres"
    plan = Plan(functions=functions, database_url=url, project=functions)

    with pytest.raises(DatabaseAwayError, match="Is DATABASE_URL"):
        async with Stack(plan, lambda *_: None):
            pytest.fail("the stack started without a database")


async def test_an_app_that_cannot_be_synced_keeps_none_of_the_others_away(functions: Path) -> None:
    """Somebody begins a new app while `stepbase dev` runs: that is no reason for it to end."""
    begun = "from stepbase import App, serve\napp = App('begun')\nmain = serve(app)\n"
    for name in ("begun", "zest"):
        (functions / name).mkdir()
    (functions / "begun" / "main.py").write_text(begun)
    (functions / "zest" / "main.py").write_text(MAIN.replace("greeting", "zest"))
    lines: list[str] = []
    plan = Plan(functions=functions, durable=False, project=functions, reload=True)

    async with Stack(plan, lambda name, line: lines.append(f"{name}: {line}")) as stack:
        assert await greet(stack.engine_url, "you") == "hello you"

    assert [each for each in lines if each.startswith("sync: ")] == [
        "sync: greeting",
        "sync: zest",
        "sync: begun cannot be synced: app 'begun' has no functions to sync: define one with "
        "@app.function(…)",
    ]


async def test_a_database_made_by_other_files_is_told_of(functions: Path, tmp_path: Path) -> None:
    """After an update of the clone nothing fits, and the reason is in nobody's error."""
    file = tmp_path / "supabase" / "migrations" / "20270101000000_own.sql"
    file.parent.mkdir(parents=True)
    lines: list[str] = []
    plan = Plan(functions=functions, durable=False, project=tmp_path, data=tmp_path / "data")
    for text in ("create table public.own (id int);", "create table public.own (id bigint);"):
        file.write_text(text)
        stack = Stack(plan, lambda name, line: lines.append(f"{name}: {line}"))
        try:
            await stack.start_database()
        finally:
            await stack.stop()
    remove_data(tmp_path, "data")

    told = [each for each in lines if "another text" in each]
    assert told == [
        "migrations: 20270101000000_own.sql had another text when applied here; "
        "`stepbase dev --reset` begins with an empty database"
    ]

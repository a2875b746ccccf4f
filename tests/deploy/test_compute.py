"""A whole deploy to Supabase Compute: the real CLI, an API that records, a real Postgres, real hosts."""

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.deploy.conftest import (
    API_KEY,
    DATABASE_PASSWORD,
    EVENT_KEY,
    MAIL_KEY,
    SECRET_NAMES,
    SECRETS,
    SIGNING_KEY,
    Shop,
    database_url,
)
from tests.support.fake_api import Received
from tests.support.management_api import REF, ManagementApi
from tests.support.platform import files_of
from tests.support.server import Server

from stepbase.local.postgres import Cluster


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a port: the CLI does not speak over a socket file."""
    with Cluster(durable=False, port=0) as cluster:
        asyncio.run(_set_password(cluster.dsn()))
        yield Server(database_url(_without_password(cluster.dsn())))


@pytest.fixture
def bare(server: Server) -> Iterator[str]:
    """An empty database with Supabase's roles."""
    name = asyncio.run(server.create())
    yield server.dsn(name)
    asyncio.run(server.drop(name))


async def _set_password(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    quoted = DATABASE_PASSWORD.replace("'", "''")
    await connection.execute(f"alter role postgres password '{quoted}'")
    await connection.close()


def _without_password(dsn: str) -> str:
    parts = urlsplit(dsn)
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{place}"))


async def goods(dsn: str) -> tuple[int, int]:
    """Return how many rows the migrations made, and how many of them are noted."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetchval("select count(*) from public.goods")
        noted = await connection.fetchval(
            "select count(*) from supabase_migrations.schema_migrations"
        )
    finally:
        await connection.close()
    return rows, noted


def test_everything_reaches_the_project(shop: Shop, supabase: ManagementApi, bare: str) -> None:
    asyncio.run(_make_roles(bare))
    shop.set(DATABASE_URL=bare)
    planned = shop.deploy("--dry-run", "--front-door")
    assert supabase.asked == [] and not (shop.root / "build").exists()

    done = shop.deploy("--yes", "--front-door")

    assert done.returncode == 0, done.stdout + done.stderr
    assert asyncio.run(goods(bare)) == (1, 2)
    assert supabase.secrets == {
        "INNGEST_BASE_URL": shop.inngest.url,
        "INNGEST_EVENT_KEY": EVENT_KEY,
        "INNGEST_SIGNING_KEY": SIGNING_KEY,
        "SHOP_MAIL_KEY": MAIL_KEY,
        "STEPBASE_ORIGIN_CURRENCY": f"{shop.platform.url}/compute/v1/currency",
    }
    assert sorted(supabase.built) == ["currency", "door"]
    assert supabase.functions["currency"]["verify_jwt"] is False
    assert list(supabase.notebooks) == ["runs"]
    v1, v2 = f"/v1/projects/{REF}", f"/v2/projects/{REF}"
    assert [each for each in supabase.asked if each != f"GET {v1}"] == [
        f"POST {v1}/secrets",
        f"POST {v2}/compute/currency/uploads",
        "PUT /context/currency",
        f"POST {v2}/compute/currency/deploy",
        f"GET {v2}/compute/currency",
        f"POST {v2}/compute/door/uploads",
        "PUT /context/door",
        f"POST {v2}/compute/door/deploy",
        f"GET {v2}/compute/door",
        f"POST {v1}/functions/deploy?slug=currency",
        f"GET {v2}/notebooks?page%5Bsize%5D=100&sort=name",
        f"POST {v2}/notebooks",
    ]
    assert shop.platform.asked == [
        "GET /compute/v1/currency/health",
        "GET /functions/v1/currency",
        "GET /compute/v1/door/health",
        "PUT /functions/v1/currency",
        "GET /functions/v1/currency",
    ]
    [sync] = shop.syncs
    assert (sync.body["appname"], sync.body["url"]) == (
        "currency",
        f"{shop.platform.url}/functions/v1/currency",
    )
    assert {"currency-award", "currency-reverse"} <= {each["id"] for each in sync.body["functions"]}

    assert f"Target: project shop ({REF})" in done.stdout

    # What was executed is what the dry run had printed, to the byte.
    commands = [
        line.strip()[2:] for line in planned.stdout.splitlines() if line.strip()[:2] == "$ "
    ]
    assert [_without_settings(command) for command in commands] == [
        shlex.join(argv) for argv in shop.calls
    ]
    stages = planned.stdout.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert [line for line in done.stdout.splitlines() if line in stages] == stages

    # Nothing secret was printed, put on a command line, or left on disk outside the file it came from.
    assert_kept_secret(shop, planned.stdout, planned.stderr, done.stdout, done.stderr)
    given = [set(call["given"]) & {*SECRET_NAMES} for call in shop.recorded]
    assert given == [{"PGPASSWORD"}] * 2 + [{"SUPABASE_ACCESS_TOKEN"}] * 5


def _without_settings(command: str) -> str:
    """Return a printed command without the variables before it."""
    return command.removeprefix("SUPABASE_EXPERIMENTAL_COMPUTE=1 ")


def assert_kept_secret(shop: Shop, *printed: str) -> None:
    """Fail if a secret is in what was printed, on a command line, or in the build folder."""
    words = [word for argv in shop.calls for word in argv]
    files = [each for each in (shop.root / "build").rglob("*") if each.is_file()]
    assert any("stepbase" in each.parts for each in files)
    for secret in SECRETS:
        assert not [text for text in (*printed, *words) if secret in text]
        assert not [each for each in files if secret.encode() in each.read_bytes()]


async def _make_roles(dsn: str) -> None:
    """Make the roles that the advisors look for."""
    connection = await asyncpg.connect(dsn)
    try:
        for role in ("anon", "authenticated"):
            await connection.execute(
                f"do $$ begin create role {role}; exception when duplicate_object then null; end $$"
            )
    finally:
        await connection.close()


def test_a_second_deploy_changes_nothing_but_what_is_new(shop: Shop) -> None:
    first = shop.deploy("--yes", "--skip-db")
    running = files_of(shop.state / "running")
    (shop.root / "functions" / "door" / "more.py").write_text("x = 1\n")

    second = shop.deploy("--yes", "--skip-db")

    assert (first.returncode, second.returncode) == (0, 0), second.stdout + second.stderr
    changed = {
        name
        for name, content in files_of(shop.state / "running").items()
        if running.get(name) != content
    }
    assert changed == {"door/more.py", "door/Dockerfile"}
    assert len(shop.syncs) == 2


def test_the_v2_api_syncs_when_there_is_a_key(shop: Shop) -> None:
    shop.set(INNGEST_API_KEY=API_KEY)

    done = shop.deploy("--yes", "--skip-db", "currency")

    assert done.returncode == 0, done.stdout + done.stderr
    [request] = [each for each in shop.inngest.received if each.path.startswith("/v2/")]
    assert (request.method, request.path) == ("POST", "/v2/apps/currency/syncs")
    assert request.headers["authorization"] == f"Bearer {API_KEY}"
    assert request.body == {"url": f"{shop.platform.url}/compute/v1/currency"}
    assert API_KEY not in done.stdout


def test_an_app_that_inngest_does_not_know_yet_is_synced_by_itself(shop: Shop) -> None:
    shop.set(INNGEST_API_KEY=API_KEY)
    usual = shop.inngest.answer

    def answer(request: Received) -> tuple[int, object]:
        return (404, {"error": "no app"}) if request.path.startswith("/v2/") else usual(request)

    shop.inngest.answer = answer

    done = shop.deploy("--yes", "--skip-db", "currency")

    assert done.returncode == 0, done.stdout + done.stderr
    paths = [each.path for each in shop.inngest.received if each.method == "POST"]
    assert paths[0] == "/v2/apps/currency/syncs" and paths[1].startswith("/fn/register")
    assert f"not known yet: PUT {shop.platform.url}/compute/v1/currency" in done.stdout


def test_a_build_that_fails_stops_the_deploy_and_says_how_to_go_on(
    shop: Shop, supabase: ManagementApi
) -> None:
    supabase.build_state = "failed"

    shutil.rmtree(shop.root / "supabase" / "notebooks")
    failed = shop.deploy("--yes", "--skip-db", "currency")

    assert failed.returncode == 1
    assert "stage functions failed" in failed.stderr and "pip install failed" in failed.stderr
    assert "whole stages: stage, secrets" in failed.stderr
    assert "The same command goes on from here" in failed.stderr
    assert shop.syncs == []
    supabase.build_state = "active"
    again = shop.deploy("--yes", "--skip-db", "currency")
    assert again.returncode == 0
    assert "going on with an interrupted deploy" in again.stdout


def test_a_deploy_killed_while_the_real_cli_uploads_is_resumed(
    shop: Shop, supabase: ManagementApi
) -> None:
    shutil.rmtree(shop.root / "supabase" / "notebooks")
    process = shop.start("--yes", "--skip-db", "currency")

    def kill(request: Received) -> None:
        if request.path.startswith("/context/"):
            process.kill()

    supabase.on_request = kill
    process.communicate(timeout=60)
    supabase.on_request = lambda _: None
    assert process.returncode == -signal.SIGKILL and shop.syncs == []

    again = shop.deploy("--yes", "--skip-db", "currency")

    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with an interrupted deploy" in again.stdout
    assert list(supabase.built) == ["currency"] and len(shop.syncs) == 1


KILLS = (
    "/v1/projects/{ref}/secrets",
    "/context/currency",
    "/v2/projects/{ref}/compute/door/deploy",
    "/v1/projects/{ref}/functions/deploy",
    "/v2/projects/{ref}/notebooks",
)


def test_killed_at_each_request_of_the_real_cli_it_ends_the_same(
    shop: Shop, supabase: ManagementApi, bare: str
) -> None:
    """Killed once at each, one try after another; the last one gets to the end."""
    asyncio.run(_make_roles(bare))
    shop.set(DATABASE_URL=bare)
    words = ("--yes", "--front-door")
    killed = []
    for path in (each.format(ref=REF) for each in KILLS):
        process = shop.start(*words)

        def kill(request: Received, path: str = path, pid: int = process.pid) -> None:
            if request.path.startswith(path) and request.method != "GET":
                os.kill(pid, signal.SIGKILL)

        supabase.on_request = kill
        process.communicate(timeout=60)
        killed.append(process.returncode)
        assert shop.syncs == []
    supabase.on_request = lambda _: None

    last = shop.deploy(*words)

    assert killed == [-signal.SIGKILL] * len(KILLS)
    assert last.returncode == 0, last.stdout + last.stderr
    assert asyncio.run(goods(bare)) == (1, 2)
    assert supabase.secrets["INNGEST_SIGNING_KEY"] == SIGNING_KEY and len(supabase.secrets) == 5
    for name in ("currency", "door"):
        assert supabase.built[name] == files_of(shop.root / "build" / name)
    assert list(supabase.functions) == ["currency"] and list(supabase.notebooks) == ["runs"]
    assert len(shop.syncs) == 1
    done = [argv[1:3] for argv in shop.calls]
    assert done.count(["db", "push"]) == 1  # noted as done, and not done again
    assert not list((shop.root / "build" / ".deploy").glob("*.json"))


def test_a_password_in_the_url_is_what_the_cli_connects_with(shop: Shop) -> None:
    planned = shop.deploy("--dry-run", "--only", "database")

    assert "--remote=postgresql://postgres@127.0.0.1:5432/postgres" in planned.stdout
    assert "secrets in its environment: PGPASSWORD" in planned.stdout
    assert DATABASE_PASSWORD not in planned.stdout

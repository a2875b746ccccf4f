"""An engine on a copy of a database: it refuses, and a disarmed copy does nothing of the original's."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.engine.conftest import StartEngine
from tests.support.server import Server
from tests.support.sql import refused
from tests.support.stub_host import Answer, StubHost, ops

from stepbase import config
from stepbase.engine.app import running
from stepbase.engine.settings import Settings
from stepbase.errors import StoreError

NAP = {"op": "Sleep", "id": "nap", "displayName": "nap", "name": "300ms", "opts": {}}
LIVE = "select count(*) from stepbase.runs where ended_at is null"


@pytest.fixture
async def copy(
    database: str, cluster: Server, start_engine: StartEngine, host: StubHost
) -> AsyncIterator[str]:
    """A copy of a database with a run asleep, an app with a schedule, and an event that has not left."""
    for name in ("app-f", "app-minutely"):
        host.handlers[name] = lambda call: Answer(200, 1) if call["steps"] else ops(NAP)
    original = await asyncpg.connect(database)
    async with start_engine(project="original") as (client, _):
        minutely = host.function("app-minutely", triggers=[{"cron": "* * * * *"}])
        await client.register(host.registration(host.function("app-f"), minutely))
        await client.send({"name": "app/f"})
        async with asyncio.timeout(20):
            while not await original.fetchval("select exists (select from stepbase.queue)"):
                await asyncio.sleep(0.01)
    await original.execute(
        "select stepbase.emit('app/f', '{}');"
        # What is due when the copy is looked at, a while after it was made.
        "update stepbase.crons set next_at = now() - interval '1 minute'"
    )
    await original.close()
    name = await _copied(cluster, database)
    host.calls.clear()
    yield cluster.dsn(name)
    await cluster.drop(name)


async def _copied(cluster: Server, database: str) -> str:
    name = database.partition("?")[0].rsplit("/", 1)[-1]
    async with asyncio.timeout(20):
        while True:
            try:
                return await cluster.create(name)
            except asyncpg.ObjectInUseError:  # the engine's sessions are just ending
                await asyncio.sleep(0.05)


def settings(dsn: str, project: str, *, take_over: bool = False) -> Settings:
    return Settings(
        database_url=dsn, port=0, project=project, take_over=take_over, sweep_seconds=0.2
    )


async def test_an_engine_of_another_project_refuses_and_calls_nobody(
    copy: str, host: StubHost
) -> None:
    with pytest.raises(
        StoreError, match='belongs to project "original", not to "branch".*disarm'
    ) as no:
        async with running(settings(copy, "branch")):
            pass
    assert (no.value.sqlstate, host.calls) == ("SB013", [])
    async with running(settings(copy, "original")):
        pass  # restored in place, it is the same project


async def test_taken_over_it_goes_on_where_the_original_was(copy: str, host: StubHost) -> None:
    async with running(settings(copy, "branch", take_over=True)):
        async with asyncio.timeout(20):
            while not {"app/f", "inngest/scheduled.timer"} <= {
                each["event"]["name"] for each in host.calls
            }:
                await asyncio.sleep(0.02)
            db = await asyncpg.connect(copy)
            while await db.fetchval("select count(*) from stepbase.outbox"):
                await asyncio.sleep(0.02)
            await db.close()
    async with running(settings(copy, "branch")):
        pass  # once is enough


async def test_a_disarmed_copy_does_nothing_of_the_originals(copy: str, host: StubHost) -> None:
    db = await asyncpg.connect(copy)
    row = await db.fetchrow("select * from stepbase.disarm_copy('branch', 'original')")
    assert row is not None and tuple(row) == (1, 1, 1)

    async with running(settings(copy, "branch")) as engine:
        await asyncio.sleep(1.0)  # the sleep and the schedule are long due
        assert host.calls == [] and await db.fetchval(LIVE) == 0
        assert await db.fetchval("select count(*) from stepbase.outbox") == 0
        assert not [
            each for each in engine.registry.functions.by_id.values() if not each.is_archived
        ]
    assert await db.fetchval("select status from stepbase.runs") == "Cancelled", "the history stays"
    await db.close()


async def test_a_local_stack_refuses_a_copy_of_a_hosted_project_and_claims_none(
    copy: str, host: StubHost
) -> None:
    db = await asyncpg.connect(copy)
    with pytest.raises(StoreError, match='belongs to project "original", not to "local"'):
        async with running(settings(copy, "local")):
            pass
    await db.execute("select stepbase.disarm_copy('local', 'original')")
    for owner in ("local", "127.0.0.1:54321", "localhost:1", None):
        await db.execute("update stepbase.relay_state set project = $1", owner)
        async with running(settings(copy, "local")):
            assert await db.fetchval("select project from stepbase.relay_state") == owner
    await db.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'original', 'original'", "is no copy"),
        ("'', 'original'", "which project"),
        ("null, 'original'", "which project"),
        ("'branch', 'another'", 'belongs to project "original", not to "another"'),
        ("'branch', null", 'belongs to project "original", not to nobody'),
    ],
)
async def test_a_database_that_is_not_the_one_meant_is_not_disarmed(
    copy: str, arguments: str, said: str
) -> None:
    db = await asyncpg.connect(copy)
    assert said in str(await refused(db, "22023", f"select stepbase.disarm_copy({arguments})"))
    assert await db.fetchval(LIVE) == 1
    await db.close()


async def test_a_database_of_nobodys_is_disarmed_by_whoever_says_so(copy: str) -> None:
    db = await asyncpg.connect(copy)
    await db.execute("update stepbase.relay_state set project = null")
    said = str(await refused(db, "22023", "select stepbase.disarm_copy('branch', 'original')"))
    assert 'belongs to nobody, not to "original"' in said
    row = await db.fetchrow("select * from stepbase.disarm_copy('branch', null)")
    assert row is not None and tuple(row) == (1, 1, 1)
    await db.close()


async def test_the_original_is_not_disarmed_while_an_engine_works_on_it(copy: str) -> None:
    db = await asyncpg.connect(copy)
    disarm = "select stepbase.disarm_copy('branch', 'original')"
    async with running(settings(copy, "original")):
        said = str(await refused(db, "SB015", disarm))
        assert "is read by an engine (session " in said
        assert await db.fetchval("select count(*) from stepbase.apps where archived_at is null")
    relay = await asyncpg.connect(copy)
    await relay.execute("select stepbase.outbox_read_as('relay')")
    assert "stepbase relay" in str(await refused(db, "SB015", disarm))
    await relay.close()
    await db.close()


async def test_more_runs_than_one_part_takes_are_ended(copy: str) -> None:
    db = await asyncpg.connect(copy)
    await db.execute(
        "insert into stepbase.runs select (jsonb_populate_record(r, jsonb_build_object("
        "    'run_id', 'A' || lpad(n::text, 25, '0')))).*"
        "  from stepbase.runs as r, generate_series(1, 2500) as n where r.ended_at is null;"
        "insert into stepbase.queue select (jsonb_populate_record(q, jsonb_build_object("
        "    'run_id', 'A' || lpad(n::text, 25, '0')))).*"
        "  from stepbase.queue as q, generate_series(1, 2500) as n"
    )
    row = await db.fetchrow("select * from stepbase.disarm_copy('branch', 'original')")
    assert row is not None and row["runs"] == 2501 and await db.fetchval(LIVE) == 0
    await db.close()


@pytest.mark.parametrize(
    ("url", "project"),
    [
        ("https://abcdefghijklmnopqrst.supabase.co", "abcdefghijklmnopqrst"),
        ("https://api.example.com", "api.example.com"),
        ("http://127.0.0.1:54321", "local"),  # a local stack's port may change
        ("http://localhost:54321", "local"),
        ("", None),
    ],
)
def test_which_project_an_engine_works_for(
    monkeypatch: pytest.MonkeyPatch, url: str, project: str | None
) -> None:
    monkeypatch.setenv("SUPABASE_URL", url)
    assert config.engine_project() == project

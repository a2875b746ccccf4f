"""The search for runs: in parts of bounded work, complete, and the same for console and command line."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner
from tests.conftest import Connect

from stepbase.cli.main import main
from stepbase.history import reads, search
from stepbase.history.search import Wanted

# 60 runs a second apart, every seventh failed, every tenth live: those of an engine, with an item in the
# queue, and of the second function reported ones, without.
_FILL = """
insert into stepbase.apps (app_id, name, url, sdk, framework, checksum, synced_at)
  values (md5('app')::uuid, 'shop', 'http://x', 'py', 'x', '', now());
insert into stepbase.functions (function_id, app_id, slug, name, config)
  select md5(s)::uuid, md5('app')::uuid, s, s, '{}' from unnest(array['shop-a', 'shop-b']) as s;
insert into stepbase.events (id, name, payload, ts, received_at)
  values ('E', 'a/b', '{"data": {"who": "50%_off"}}', now(), now());
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, created_at, ended_at, recorded_at)
  select stepbase.ulid_floor(at) || lpad(n::text, 16, '0'), md5('shop-' || f)::uuid, 1, 'E', status, at,
         case when status <> 'Running' then at end, case when f = 'b' then at end
    from (
      select n, timestamptz '2026-11-24 12:00Z' + n * interval '1 second' as at,
             case when n % 10 = 0 then 'Running' when n % 7 = 0 then 'Failed' else 'Completed' end as status,
             case when n % 20 = 0 then 'b' else 'a' end as f
        from generate_series(1, 60) as n
    ) as r;
insert into stepbase.queue (run_id, job, kind, ready, score)
  select run_id, 'main', 'edge', true, created_at
    from stepbase.runs where ended_at is null and recorded_at is null
"""
START = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that look at seven runs."""
    monkeypatch.setattr(search, "LOOKED_AT", 7)


@pytest.fixture
async def stored(db: asyncpg.Connection) -> asyncpg.Connection:
    await db.execute(_FILL)
    return db


async def numbers(db: asyncpg.Connection, wanted: Wanted, limit: int = 3) -> list[int]:
    """Walk through all parts; return which runs were found, in order."""
    found: list[int] = []
    for _ in range(40):
        hits = await search.find(db.fetch, wanted, limit)
        found += [int(each[10:]) for each in hits.ids]
        if hits.older is None:
            return found
        wanted = Wanted(
            wanted.status, wanted.function, wanted.event, wanted.text, wanted.since, hits.older
        )
    raise AssertionError("the search has no end")


async def function(db: asyncpg.Connection, slug: str) -> UUID:
    found: UUID = await db.fetchval(
        "select function_id from stepbase.functions where slug = $1", slug
    )
    return found


async def test_part_after_part_finds_all(stored: asyncpg.Connection, small: None) -> None:
    failed = [n for n in range(60, 0, -1) if n % 7 == 0 and n % 10]
    assert await numbers(stored, Wanted(status="Failed")) == failed
    assert await numbers(stored, Wanted()) == list(range(60, 0, -1))
    assert await numbers(stored, Wanted(event="a/b", status="Failed")) == failed
    assert await numbers(stored, Wanted(event="a/c")) == []


async def test_live_runs_are_those_of_engines_and_those_reported(
    stored: asyncpg.Connection, small: None
) -> None:
    live = [60, 50, 40, 30, 20, 10]
    assert await numbers(stored, Wanted(status="live")) == live
    assert await numbers(stored, Wanted(status="Running")) == live
    for slug, expected in (("shop-a", [50, 30, 10]), ("shop-b", [60, 40, 20])):
        wanted = Wanted(status="Running", function=await function(stored, slug))
        assert await numbers(stored, wanted, limit=1) == expected


async def test_live_runs_of_one_function_are_found_behind_many_of_another(
    stored: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LOOKED_AT", 2)
    wanted = Wanted(status="live", function=await function(stored, "shop-b"))
    assert await numbers(stored, wanted) == [60, 40, 20]


async def test_a_search_since_a_moment_looks_no_further_back(
    stored: asyncpg.Connection, small: None
) -> None:
    since = START + timedelta(seconds=50)
    assert await numbers(stored, Wanted(since=since)) == list(range(60, 49, -1))
    late = Wanted(status="Cancelled", since=START + timedelta(seconds=130))
    hits = await search.find(stored.fetch, late, 3)
    assert (hits.ids, hits.older) == ([], None), "nothing is that new, and older is not asked for"


async def test_texts_are_found_as_they_are(stored: asyncpg.Connection) -> None:
    assert len(await numbers(stored, Wanted(text="50%_OFF"), limit=100)) == 60
    assert await numbers(stored, Wanted(text="50_%off")) == []


async def test_an_id_of_another_form_does_not_end_the_search(
    stored: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LOOKED_AT", 1)
    await stored.execute(
        "insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at,"
        " recorded_at) values ('run-of-elsewhere', gen_random_uuid(), 1, 'E', 'Running', now(), now())"
    )
    hits = await search.find(stored.fetch, Wanted(status="Failed"), 3)
    assert (hits.ids, hits.older, hits.until) == ([], "run-of-elsewhere", None)


async def test_the_command_says_how_far_it_looked(
    connect: Connect, database: str, monkeypatch: pytest.MonkeyPatch, small: None
) -> None:
    db = await connect()
    await db.execute(_FILL)
    monkeypatch.setattr(reads.list_runs, "__defaults__", (0.0,))
    words = ["runs", "--status", "failed", "--database-url", database, "--limit", "5"]

    said = await asyncio.to_thread(CliRunner().invoke, main, words)

    assert "looked back to 2026-11-24 12:00 UTC: narrow it" in said.stderr, said.stderr
    assert said.exit_code == 0 and len(said.stdout.splitlines()) == 2, (
        "the one among the first seven"
    )
    older = said.stderr.split("--before ")[1].split()[0]
    monkeypatch.setattr(reads.list_runs, "__defaults__", (10.0,))
    more = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--before", older])
    assert len(more.stdout.splitlines()) == 6 and "looked" not in more.stderr


async def test_what_is_read_is_of_one_moment(database: str, connect: Connect) -> None:
    count = "select count(*) from stepbase.outbox"
    writer = await connect()
    async with reads.reading(database) as reading:
        before = await reading.fetchval(count)
        await writer.execute("select stepbase.emit('a/b', '{}')")
        assert await writer.fetchval(count) == before + 1
        assert await reading.fetchval(count) == before

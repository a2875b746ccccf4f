"""Nothing committed is lost, whatever dies in between; relays, the database and the receiver are killed."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from tests.conftest import migration_files
from tests.relay.conftest import emit, until
from tests.relay.moods import Moody
from tests.support.engine_client import EngineClient
from tests.support.event_receiver import Answer, EventReceiver, Post
from tests.support.relays import RelayProcess, relays
from tests.support.server import Server
from tests.support.stub_host import Answer as HostAnswer
from tests.support.stub_host import StubHost

from stepbase.demo.books import Connection
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings as EngineSettings
from stepbase.local import migrate
from stepbase.local.postgres import Cluster

EVENTS = 10_000
QUICK = ("--lease", "3", "--timeout", "1", "--log-level", "WARNING")


@pytest.fixture
async def crashing(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A server of the test's own that may be crashed, migrated."""
    with Cluster(port=0, durable=False, settings={"max_wal_size": "256MB"}) as cluster:
        await migrate.apply_files(cluster.dsn(), migration_files())
        yield cluster


async def insert_committed(writer: Connection, number: int, count: int) -> None:
    """Commit events together with the rows they tell of; repeated if the database goes away."""
    await writer.run(
        (
            "insert into public.facts select n from generate_series($1::int, $2::int) as n"
            " on conflict do nothing",
            number,
            number + count - 1,
        ),
        (
            "select stepbase.emit('fact/told', jsonb_build_object('n', n), id => 'fact-' || n)"
            " from generate_series($1::int, $2::int) as n",
            number,
            number + count - 1,
        ),
    )


@pytest.mark.timeout(240)
async def test_ten_thousand_events_in_a_storm_all_arrive(
    crashing: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = EventReceiver()
    moody = Moody(seed=7)
    receiver.decide = moody
    log = tmp_path / "relay.log"
    async with receiver, Connection(crashing.dsn()) as writer:
        await writer.run(("create table public.facts (n int primary key)",))
        options = (*QUICK, "--batch", "100")
        pair = [RelayProcess(crashing.dsn(), receiver.url, log, *options) for _ in range(2)]
        with relays(*pair):
            killed, crashes = 0, 0
            for number in range(1, EVENTS, 500):
                await insert_committed(writer, number, 500)
                if number // 500 % 3 == 1:
                    victim = pair[killed % 2]
                    victim.kill()
                    victim.start()
                    killed += 1
                if number // 500 in (5, 14):
                    await asyncio.to_thread(crashing.restart, immediate=True)
                    crashes += 1
                if number // 500 == 10:
                    await receiver.stop()
                    await asyncio.sleep(0.3)
                    await receiver.start()
            await until(lambda: min(moody.moods.values()) >= 2)
            moody.behaves = True
            await until(lambda: all_told(writer), seconds=90)
            assert all(relay.is_running for relay in pair), log.read_text()
        [[facts]] = await writer.run(("select count(*) from public.facts",))
        left = await writer.run(("select id, error from stepbase.outbox",))

    twice = sum(1 for count in receiver.accepted.values() if count > 1)
    with capsys.disabled():
        sys.stdout.write(
            f"\n  {facts} committed, {len(receiver.accepted)} arrived, {twice} of them more than once;"
            f" {killed} relays killed, {crashes} crashes of Postgres, receiver: {moody.moods}\n"
        )
    assert facts == EVENTS
    assert set(receiver.accepted) == {f"fact-{n}" for n in range(1, EVENTS + 1)}
    assert left == [], "nothing is stuck and nothing was given up"


async def all_told(writer: Connection) -> bool:
    rows = await writer.run(("select exists (select from stepbase.outbox where dead_at is null)",))
    return not rows[0][0]


@pytest.fixture
async def receiving_engine(
    cluster: Server, template: str
) -> AsyncIterator[tuple[EngineClient, str]]:
    """An engine with a database of its own (and its DSN), and one function that events start."""
    name = await cluster.create(template)
    host = StubHost()
    await host.start()
    host.handlers["app-count"] = lambda _: HostAnswer(200, "done")
    settings = EngineSettings(database_url=cluster.dsn(name), port=0, lease=timedelta(seconds=5))
    async with serving(settings) as (_, port, _), aiohttp.ClientSession() as session:
        client = EngineClient(session, f"http://127.0.0.1:{port}")
        function = host.function("app-count", triggers=[{"event": "fact/told"}])
        await client.register(host.registration(function))
        yield client, cluster.dsn(name)
    await host.stop()
    await cluster.drop(name)


@pytest.mark.timeout(180)
async def test_each_event_starts_one_run_though_relays_are_killed(
    database: str, receiving_engine: tuple[EngineClient, str], tmp_path: Path
) -> None:
    engine, engines_database = receiving_engine
    db = await asyncpg.connect(database)
    other = await asyncpg.connect(engines_database)
    chance = random.Random(3)
    pair = [
        RelayProcess(database, engine.url, tmp_path / "log", *QUICK, "--batch", "200")
        for _ in range(2)
    ]
    with relays(*pair):
        for i in range(10):
            await emit(db, EVENTS // 10, name="fact/told")
            await asyncio.sleep(chance.random() * 0.05)
            if i % 2:
                pair[i // 2 % 2].kill()
                pair[i // 2 % 2].start()
        await until(
            lambda: db.fetchval("select not exists (select from stepbase.outbox)"), seconds=60
        )
    await until(
        lambda: other.fetchval(
            "select count(*) = $1 from stepbase.runs where status = 'Completed'", EVENTS
        ),
        seconds=60,
    )

    counts = await other.fetchrow(
        "select count(*) as runs, count(distinct e.event_id) as events"
        " from stepbase.runs as r join stepbase.events as e on e.id = r.event_id"
    )
    assert counts is not None and tuple(counts) == (EVENTS, EVENTS)
    await db.close()
    await other.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """What a relay says."""
    path = tmp_path / "relay.log"
    path.touch()
    yield path


async def test_a_relay_killed_between_acceptance_and_ack_delivers_again(
    database: str, db: asyncpg.Connection, receiver: EventReceiver, log: Path
) -> None:
    relay = RelayProcess(database, receiver.url, log, *QUICK)

    def decide(post: Post) -> Answer:
        if post.number == 1:
            relay.kill()
        return None

    receiver.decide = decide
    ids = await emit(db, 10)

    with relays(relay):
        await until(lambda: receiver.accepted)
        assert (
            await db.fetchval("select count(*) from stepbase.outbox where token is not null") == 10
        )
        relay.start()
        await until(lambda: db.fetchval("select not exists (select from stepbase.outbox)"))

    assert receiver.accepted == dict.fromkeys(ids, 2)


async def test_a_relay_stopped_by_sigterm_leaves_nothing_leased(
    database: str, db: asyncpg.Connection, receiver: EventReceiver, log: Path
) -> None:
    relay = RelayProcess(database, receiver.url, log)
    ids = await emit(db, 2000)

    with relays(relay):
        await until(lambda: receiver.accepted)
        code = await asyncio.to_thread(relay.stop)

    assert code == 0
    leased = await db.fetchval("select count(*) from stepbase.outbox where token is not null")
    left = await db.fetchval("select count(*) from stepbase.outbox")
    assert (leased, left) == (0, len(ids) - len(receiver.accepted))


async def test_a_relay_of_a_copy_says_why_it_does_not_start(
    database: str, db: asyncpg.Connection, receiver: EventReceiver, log: Path
) -> None:
    await db.execute("select stepbase.outbox_claim('production')")
    [event_id] = await emit(db)
    relay = RelayProcess(database, receiver.url, log)
    relay.launch()

    assert await asyncio.to_thread(relay.wait) == 1
    assert 'belongs to project "production", not to "test"' in log.read_text()
    assert receiver.posts == []

    with relays(RelayProcess(database, receiver.url, log, "--take-over")):
        await until(lambda: event_id in receiver.accepted)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DATABASE_URL": ""}, "set DATABASE_URL"),
        ({"SUPABASE_URL": ""}, "set SUPABASE_URL or give --project"),
        ({"INNGEST_EVENT_KEY": ""}, "set INNGEST_EVENT_KEY"),
    ],
)
async def test_a_relay_says_what_it_is_missing(
    database: str, receiver: EventReceiver, log: Path, variables: dict[str, str], message: str
) -> None:
    relay = RelayProcess(database, receiver.url, log, environment=variables)
    relay.launch()

    assert await asyncio.to_thread(relay.wait) == 2
    assert message in " ".join(log.read_text().split())

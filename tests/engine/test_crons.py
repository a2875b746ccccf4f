"""Schedules: kept in step with syncs, fired once across engines, and seen by our own SDK."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine, serving_app
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands
from tests.support.stub_host import Answer, StubHost

from stepbase import App, Cron, Event
from stepbase.engine.schedule import Due, Move, move
from stepbase.protocol.jsontext import dumps

MINUTE = timedelta(minutes=1)
NOON = sql.NOON
PAST = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def sync(hands: Hands, *functions: list[dict[str, str]]) -> bool:
    """Sync an app whose functions have these triggers; return whether anything changed."""
    rows = [
        (UUID(int=i), f"app-f{i}", f"f{i}", dumps({"triggers": triggers}), "{}")
        for i, triggers in enumerate(functions, 1)
    ]
    checksum = dumps(functions)
    _, modified = await hands.register_app(
        UUID(int=99), "app", "http://x", "stub", "stub", checksum, rows
    )
    return modified


async def stored(hands: Hands) -> list[tuple[int, int, str, datetime | None]]:
    """Return the schedules: function, n, spec and the next instant."""
    rows = await hands.connection.fetch("select * from stepbase.crons order by function_id, n")
    return [(r["function_id"].int, r["n"], r["spec"], r["scheduled_at"]) for r in rows]


async def due(hands: Hands) -> list[Move]:
    """Return what an engine makes of what is due."""
    return [move(Due(**row), sql.new_id()) for row in await hands.due_crons(100)]


async def fire(hands: Hands) -> list[str]:
    """Fire what is due; return the instants that were sent, as `slug instant`."""
    moves = await due(hands)
    assert await hands.fire_crons(moves) == len(moves)
    return [f"{m.function_id.int} {m.was:%H:%M}" for m in moves if m.event_id is not None]


def cron(spec: str, **more: str) -> dict[str, str]:
    return {"cron": spec, **more}


async def test_schedules_follow_syncs(hands: Hands) -> None:
    hourly, daily = cron("0 * * * *"), cron("0 6 * * *", jitter="5s")

    await sync(hands, [{"event": "a"}, hourly, daily], [hourly])
    assert await fire(hands) == []
    one, six = NOON + timedelta(hours=1), NOON + timedelta(hours=18)
    assert await stored(hands) == [
        (1, 1, "0 * * * *", one),
        (1, 2, "0 6 * * *", six),
        (2, 1, "0 * * * *", one),
    ]

    assert not await sync(hands, [{"event": "a"}, hourly, daily], [hourly])
    assert await sync(hands, [hourly, cron("30 6 * * *", jitter="5s")], [hourly], [daily])
    assert await stored(hands) == [
        (1, 1, "0 * * * *", one),
        (1, 2, "30 6 * * *", None),
        (2, 1, "0 * * * *", one),
        (3, 1, "0 6 * * *", None),
    ]
    await fire(hands)
    assert (await stored(hands))[1][3] == six + timedelta(minutes=30)

    await sync(hands, [hourly])  # two functions less, which are archived
    assert await stored(hands) == [(1, 1, "0 * * * *", one)]
    await sync(hands, [{"event": "a"}])
    assert await stored(hands) == []


async def test_a_schedule_fires_when_it_is_due_and_says_when_it_is_due_again(hands: Hands) -> None:
    await sync(hands, [cron("*/10 * * * *")])
    assert (await hands.tick(None)).cron_seconds == 0
    assert await fire(hands) == []
    assert (await hands.tick(None)).cron_seconds == 600

    await hands.at(599)
    assert await due(hands) == []
    await hands.at(601)
    assert await fire(hands) == ["1 12:10"]
    assert await hands.count("outbox", "name = 'inngest/scheduled.timer'") == 1
    assert (await hands.tick(None)).cron_seconds == 599

    await hands.at(86_400)  # no engine was there for a day
    assert await fire(hands) == ["1 12:20"]
    assert await due(hands) == []
    assert (await hands.tick(None)).cron_seconds == 600


async def test_of_two_that_fire_the_same_instant_the_second_changes_nothing(hands: Hands) -> None:
    await sync(hands, [cron("* * * * *")], [cron("* * * * *")])
    await fire(hands)
    await hands.at(60)
    mine, theirs = await due(hands), await due(hands)
    changed = await due(hands)

    assert await hands.fire_crons(mine) == 2
    assert await hands.of("B").fire_crons(theirs) == 0
    assert await hands.count("outbox") == 2

    await sync(hands, [cron("*/5 * * * *")], [cron("* * * * *")])
    assert await hands.fire_crons(changed) == 0


async def test_two_connections_fire_once_while_the_first_has_not_committed(
    connect: Connect,
) -> None:
    a, b = Hands(await connect()), Hands(await connect())
    await a.at(0)
    await sync(a, [cron("* * * * *")])
    await fire(a)
    await a.at(60)
    await b.at(60)
    moves = await due(b)

    async with a.connection.transaction():
        assert await a.fire_crons(await due(a)) == 1
        assert await b.fire_crons(moves) == 0  # does not wait either
    assert await b.fire_crons(moves) == 0
    assert await b.count("outbox") == 1


async def test_a_paused_function_lets_its_instants_pass(hands: Hands) -> None:
    await sync(hands, [cron("* * * * *")])
    await fire(hands)
    await hands.connection.execute("update stepbase.functions set paused_at = stepbase.now()")

    await hands.at(60)
    assert await fire(hands) == []
    await hands.connection.execute("update stepbase.functions set paused_at = null")
    assert await due(hands) == []
    await hands.at(120)
    assert await fire(hands) == ["1 12:02"]


async def test_a_schedule_without_an_end_is_never_looked_at_again(hands: Hands) -> None:
    await sync(hands, [cron("* * * * *")])
    [row] = await hands.due_crons(1)
    last = Move(row["function_id"], row["n"], row["spec"], None, None, None, None, None)

    assert await hands.fire_crons([last]) == 1
    assert (await hands.tick(None)).cron_seconds is None
    await hands.at(1e9)
    assert await due(hands) == []


async def make_due(connection: asyncpg.Connection, instant: datetime) -> None:
    """Make every schedule due, for an instant that is over."""
    async with asyncio.timeout(10):
        while await connection.fetchval(
            "select exists (select from stepbase.crons where scheduled_at is null)"
        ):
            await asyncio.sleep(0.01)
    await connection.execute("update stepbase.crons set scheduled_at = $1, next_at = $1", instant)
    await connection.execute("select pg_notify('stepbase', 'c')")


async def sent(connection: asyncpg.Connection, count: int) -> list[str]:
    """Wait until so many instants have become runs that ended; return their events' ids."""
    async with asyncio.timeout(20):
        while True:
            rows = await connection.fetch(
                "select e.event_id from stepbase.runs r join stepbase.events e on e.id = r.event_id"
                " where r.ended_at is not null order by e.event_id"
            )
            if len(rows) >= count:
                return [row["event_id"] for row in rows]
            await asyncio.sleep(0.01)


async def test_engines_fire_each_instant_once(
    start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = host.handlers["app-g"] = lambda _: Answer(200, None)
    connection = await connect()
    function = {"triggers": [cron("0 0 1 1 *")]}
    functions = [
        host.function("app-f", **function),
        host.function("app-g", triggers=[{"event": "*"}]),
    ]
    async with start_engine() as (client, _), start_engine(), start_engine():
        answer = await client.register(host.registration(*functions))
        for n in range(1, 9):
            await make_due(connection, PAST + n * MINUTE)
            await sent(connection, n)
        seen = await sent(connection, 8)

    assert seen == [f"2026-01-31T12:0{n}:00Z" for n in range(1, 9)]
    assert "message" not in answer
    assert [call["event"]["data"] for call in host.calls] == [
        {"cron": "0 0 1 1 *", "fireAt": each, "scheduledAt": each} for each in seen
    ]
    assert await connection.fetchval("select count(*) from stepbase.outbox") == 0


async def test_a_schedule_that_was_due_while_no_engine_ran_fires_when_one_starts(
    start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda _: Answer(200, None)
    connection = await connect()
    async with start_engine() as (client, _):
        await client.register(
            host.registration(host.function("app-f", triggers=[cron("0 0 1 1 *")]))
        )
    await make_due(connection, PAST)

    async with start_engine():
        assert await sent(connection, 1) == ["2026-01-31T12:00:00Z"]
        following = await connection.fetchval("select next_at from stepbase.crons")

    now = datetime.now(UTC)
    assert following == datetime(now.year + 1, 1, 1, tzinfo=UTC)


app = App("timed")
seen: list[Any] = []


@app.function("nightly", on=[Cron("0 3 * * *", tz="Asia/Bangkok", jitter="1m"), "timed/by-hand"])
async def nightly(event: Event[dict[str, Any]]) -> str:
    seen.append(event)
    return event.name


async def test_our_sdk_is_started_by_its_schedule(
    start_engine: StartEngine, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connect()
    async with serving_app(app, start_engine, monkeypatch):
        await make_due(connection, PAST)
        await sent(connection, 1)

    [event] = seen
    assert (event.name, event.id) == ("inngest/scheduled.timer", "2026-01-31T12:00:00Z")
    assert event.data["cron"] == "TZ=Asia/Bangkok 0 3 * * *"

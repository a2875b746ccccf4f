"""Singletons in SQL: of each key one run is going on, whoever starts and ends runs."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands, completed, singleton

from stepbase.engine.starts import Start

Mode = Literal["skip", "cancel"]


async def send(hands: Hands, mode: Mode, *keys: str) -> list[Start]:
    """Ingest one batch of events, one for each key; return the starts."""
    starts = [sql.start(i, rules=(singleton(key, mode),)) for i, key in enumerate(keys, 1)]
    await hands.take_in([sql.event() for _ in starts], starts)
    return starts


async def statuses(hands: Hands, starts: Sequence[Start]) -> list[str]:
    return [await hands.status(each) for each in starts]


async def test_while_a_run_is_going_on_others_of_its_key_are_skipped(hands: Hands) -> None:
    starts = await send(hands, "skip", "a", "a", "b")
    starts += await send(hands, "skip", "a", "b", "c")

    assert await statuses(hands, starts) == [
        "Scheduled", "Skipped", "Scheduled", "Skipped", "Skipped", "Scheduled",
    ]  # fmt: skip
    assert await hands.count("not_started", "reason = 'skipped'") == 3
    assert await hands.count("queue") == 3


async def test_when_it_has_ended_the_next_one_starts(hands: Hands) -> None:
    run = await hands.begin_leased(rules=(singleton("a"),))
    await hands.settle_one(run, 1, completed())

    [second] = await send(hands, "skip", "a")

    assert await statuses(hands, [run, second]) == ["Completed", "Scheduled"]


async def test_a_newer_run_cancels_the_one_that_is_going_on(hands: Hands) -> None:
    first = await send(hands, "cancel", "a", "b")
    second = await send(hands, "cancel", "a", "a")

    assert await statuses(hands, first + second) == [
        "Cancelled", "Scheduled", "Skipped", "Scheduled",
    ]  # fmt: skip
    assert "a newer run of its singleton" in (await hands.run(first[0]))["error"]


async def test_a_batch_sent_again_neither_cancels_nor_skips(hands: Hands) -> None:
    for mode in ("skip", "cancel"):
        events = [sql.event(), sql.event()]
        starts = [sql.start(i, rules=(singleton(mode, mode),)) for i in (1, 2)]
        await hands.take_in(events, starts)
        before = await statuses(hands, starts)

        await hands.take_in(events, starts)

        assert await statuses(hands, starts) == before


async def test_an_event_that_cancels_the_run_makes_room_for_the_next(hands: Hands) -> None:
    pause = sql.pause("app/stop", "data.id", 1)
    first = await hands.begin(rules=(singleton("a"),), pauses=(pause,))
    second = sql.start(rules=(singleton("a"),))

    await hands.take_in([sql.event("app/stop", {"id": 1})], [second])

    assert await statuses(hands, [first, second]) == ["Cancelled", "Scheduled"]


# --- against a model -----------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.sampled_from("ab"), min_size=1, max_size=4)),
        st.tuples(st.just("end"), st.sampled_from("ab")),
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(mode=st.sampled_from(["skip", "cancel"]), steps=STEPS)
def test_one_run_goes_on_as_in_the_model(
    shared_database: str, mode: Mode, steps: list[tuple[str, list[str] | str]]
) -> None:
    asyncio.run(_play(shared_database, mode, steps))


async def _play(dsn: str, mode: Mode, steps: list[tuple[str, list[str] | str]]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        hands = Hands(connection)
        await hands.at(0)
        going: dict[str, Start] = {}
        expected: dict[str, tuple[Start, str]] = {}
        for what, keys in steps:
            if what == "end":
                run = going.pop(str(keys), None)
                if run is not None:
                    await hands.cancel([run.run_id], "{}")
                    expected[run.run_id] = (run, "Cancelled")
                continue
            starts = await send(hands, mode, *keys)
            for key, start in zip(keys, starts, strict=True):
                _step(mode, key, start, starts, going, expected)
        for start, status in expected.values():
            assert await hands.status(start) == status
        await transaction.rollback()
    finally:
        await connection.close()


def _step(
    mode: Mode,
    key: str,
    start: Start,
    batch: list[Start],
    going: dict[str, Start],
    expected: dict[str, tuple[Start, str]],
) -> None:
    """What one start does; of one batch a run that is replaced at once has not started at all."""
    running = going.get(key)
    if running is not None and mode == "skip":
        expected[start.run_id] = (start, "Skipped")
        return
    if running is not None:
        expected[running.run_id] = (running, "Skipped" if running in batch else "Cancelled")
    going[key] = start
    expected[start.run_id] = (start, "Scheduled")


# --- at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["skip", "cancel"])
async def test_two_engines_keep_it_to_one_run_of_each_key(connect: Connect, mode: Mode) -> None:
    engines = [Hands(await connect(), owner) for owner in "ABC"]
    watch = Hands(await connect())

    async def sends(hands: Hands, keys: str) -> list[Start]:
        begun = []
        for _ in range(15):
            begun += await send(hands, mode, *keys)
        return begun

    async with asyncio.timeout(30):
        all_of_them = await asyncio.gather(
            *(
                sends(each, keys)
                for each, keys in zip(engines, ("abcd", "dcba", "cadb"), strict=True)
            )
        )

    counts = [await counted(watch, begun) for begun in all_of_them]
    assert sum(each.get("Scheduled", 0) for each in counts) == 4
    assert set().union(*counts) <= {"Scheduled", "Skipped", "Cancelled"}
    assert sum(sum(each.values()) for each in counts) == 3 * 15 * 4


async def counted(hands: Hands, starts: Sequence[Start]) -> dict[str, int]:
    rows = await hands.connection.fetch(
        "select status, count(*) as n from stepbase.runs where run_id = any ($1) group by status",
        [each.run_id for each in starts],
    )
    return {row["status"]: row["n"] for row in rows}


async def test_starts_of_one_key_wait_for_each_other_before_they_lock_any_run(
    connect: Connect,
) -> None:
    # At the index they would wait with runs locked, and in a circle: each for the one the other cancels.
    holder, waiter, watcher = Hands(await connect()), Hands(await connect()), await connect()
    [old] = await send(holder, "cancel", "a")
    transaction = holder.connection.transaction()
    await transaction.start()
    [newer] = await send(holder, "cancel", "a")
    waiting = asyncio.create_task(send(waiter, "cancel", "a"))
    held = await _held_while_waiting(watcher, waiter.connection.get_server_pid())
    await transaction.commit()
    [newest] = await waiting

    assert "RowShareLock" not in held
    assert await statuses(holder, [old, newer, newest]) == ["Cancelled", "Cancelled", "Scheduled"]


async def _held_while_waiting(watcher: asyncpg.Connection, pid: int) -> set[str]:
    """Wait until a session waits for an advisory lock; return the modes of its locks on runs."""
    async with asyncio.timeout(10):
        while not await watcher.fetchval(
            "select exists (select from pg_locks where pid = $1 and not granted"
            " and locktype = 'advisory')",
            pid,
        ):
            await asyncio.sleep(0.005)
    rows = await watcher.fetch(
        "select mode from pg_locks where pid = $1 and relation = 'stepbase.runs'::regclass", pid
    )
    return {row["mode"] for row in rows}

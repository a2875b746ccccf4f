"""Who waits for a signal: one run at a time, whoever comes first or takes it over, on any engine."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support.engine_sql import Hands, settling

from stepbase.engine.effects import NewItem, NewPause, Settlement, StepRow, Verdict
from stepbase.engine.match import ALWAYS
from stepbase.engine.starts import Start


def waits(*signals: str, replaces: bool = False, seconds: float = 60.0) -> Settlement:
    """A reply that waits for signals, each in a step of its own."""
    hashes = [f"w{n}" for n in range(len(signals))]
    return Settlement(
        Verdict.PARK,
        steps=tuple(StepRow(h, h, "WaitForSignal", "waiting", "null") for h in hashes),
        items=tuple(NewItem(h, "wait", delay=seconds) for h in hashes),
        pauses=tuple(
            NewPause(h, "signal", name, ALWAYS, seconds, replaces=replaces)
            for h, name in zip(hashes, signals, strict=True)
        ),
    )


@pytest.fixture
async def two(connect: Connect) -> tuple[Hands, Hands]:
    """Two engines, each with a connection of its own."""
    return Hands(await connect()), Hands(await connect(), "B")


async def blocked(hands: Hands, task: "asyncio.Task[object]") -> None:
    """Return when a task waits for a lock."""
    async with asyncio.timeout(10):
        while not await hands.connection.fetchval(
            "select count(*) from pg_locks where not granted"
        ):
            assert not task.done()
            await asyncio.sleep(0.001)


async def is_over(hands: Hands, run: Start) -> list[str]:
    return [memo for _, status, memo in await hands.steps(run) if status == "done"]


async def test_a_signal_that_was_taken_over_wakes_the_later_run(hands: Hands) -> None:
    first, second = await hands.begin_leased(), await hands.begin_leased()
    await hands.settle_one(first, 1, waits("go"))
    await hands.settle_one(second, 1, waits("go", replaces=True))

    assert await hands.signal("go", "1") == second.run_id
    assert await hands.signal("go", "1") is None
    assert await is_over(hands, first) == []
    item = await hands.item(first, "w0")
    assert item is not None and item["kind"] == "wait", "its time ends the first run's wait"


async def test_the_second_to_wait_is_refused_with_the_first_ones_id(hands: Hands) -> None:
    first, second = await hands.begin_leased(), await hands.begin_leased()
    await hands.settle_one(first, 1, waits("go"))

    with pytest.raises(asyncpg.PostgresError) as raised:
        await hands.settle_one(second, 1, waits("go"))

    assert raised.value.sqlstate == "SB102"
    assert str(raised.value) == f'run {first.run_id} waits for the signal "go" already'


@pytest.mark.parametrize("replaces", [False, True])
async def test_one_reply_cannot_wait_twice_for_a_signal(hands: Hands, replaces: bool) -> None:
    run = await hands.begin_leased()

    with pytest.raises(asyncpg.PostgresError, match="two steps of this run wait") as raised:
        await hands.settle_one(run, 1, waits("go", "go", replaces=replaces))

    assert raised.value.sqlstate == "SB102"


async def test_a_wait_whose_time_is_over_is_in_nobodys_way(hands: Hands) -> None:
    first, second = await hands.begin_leased(), await hands.begin_leased()
    await hands.settle_one(first, 1, waits("go", seconds=5))
    await hands.at(5)

    await hands.settle_one(second, 1, waits("go"))

    assert await hands.signal("go", "1") == second.run_id


async def test_a_settle_that_is_sent_twice_takes_over_once(hands: Hands) -> None:
    first, second = await hands.begin_leased(), await hands.begin_leased()
    await hands.settle_one(first, 1, waits("go"))
    taking = settling(second, 1, waits("go", replaces=True))
    await hands.settle([taking])

    [again] = await hands.settle([taking])

    assert again.outcome == "lost"
    assert await hands.signal("go", "1") == second.run_id


@pytest.mark.parametrize("replaces", [False, True])
async def test_who_comes_second_waits_until_the_first_is_stored(
    two: tuple[Hands, Hands], connect: Connect, replaces: bool
) -> None:
    one, other = two
    first, second = await one.begin_leased(), await other.begin_leased()
    async with one.connection.transaction():
        await one.settle_one(first, 1, waits("go"))
        later = asyncio.create_task(other.settle_one(second, 1, waits("go", replaces=replaces)))
        await blocked(one, later)

    if replaces:
        assert (await later).outcome == "applied"
    else:
        with pytest.raises(asyncpg.PostgresError, match=f"run {first.run_id} waits"):
            await later
    woken = await other.signal("go", "1")
    assert woken == (second if replaces else first).run_id


async def test_a_signal_reaches_whoever_takes_the_wait_over_at_that_moment(
    two: tuple[Hands, Hands],
) -> None:
    one, other = two
    first, second = await one.begin_leased(), await one.begin_leased()
    await one.settle_one(first, 1, waits("go"))
    async with one.connection.transaction():
        await one.settle_one(second, 1, waits("go", replaces=True))
        signalling = asyncio.create_task(other.signal("go", "1"))
        await blocked(one, signalling)

    assert await signalling == second.run_id


@pytest.mark.parametrize("end", ["signal", "cancel"])
async def test_a_wait_that_is_ending_is_not_taken_over(
    two: tuple[Hands, Hands], connect: Connect, end: str
) -> None:
    one, other = two
    first, second = await one.begin_leased(), await other.begin_leased()
    await one.settle_one(first, 1, waits("go"))
    async with one.connection.transaction():
        if end == "signal":
            assert await one.signal("go", "1") == first.run_id
        else:
            await one.cancel([first.run_id], "{}")
        later = asyncio.create_task(other.settle_one(second, 1, waits("go")))
        await blocked(one, later)

    assert (await later).outcome == "applied", "nobody waited for it any more"
    assert len(await is_over(one, first)) == (end == "signal")
    assert await other.signal("go", "2") == second.run_id


async def test_two_that_wait_for_the_same_signals_in_any_order_do_not_deadlock(
    two: tuple[Hands, Hands],
) -> None:
    one, other = two
    names = [f"go-{n}" for n in range(8)]
    turns = {id(one): names, id(other): names[::-1]}

    async def take_turns(hands: Hands) -> None:
        for _ in range(20):
            run = await hands.begin_leased()
            settled = await hands.settle_one(
                run, 1, replace(waits(*turns[id(hands)], replaces=True), planning=1)
            )
            assert settled.outcome == "applied"

    await asyncio.gather(take_turns(one), take_turns(other))

    assert await one.count("pauses") == len(names)

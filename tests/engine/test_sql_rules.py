"""Start rules in SQL: what a rate limit and an idempotency key let through, against a model."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands, once, rate

from stepbase.engine.rules import Rule

DAY = 86_400


async def send(hands: Hands, *rules: Sequence[Rule]) -> list[bool]:
    """Ingest one batch of events, each with these rules; return which of them started a run."""
    starts = [sql.start(i, rules=tuple(each)) for i, each in enumerate(rules, 1)]
    rows = await hands.take_in([sql.event() for _ in starts], starts)
    begun = {row["start"] for row in rows}
    return [place in begun for place in range(1, len(starts) + 1)]


async def reasons(hands: Hands) -> list[str]:
    """Return why events started nothing, sorted."""
    rows = await hands.connection.fetch("select reason from stepbase.not_started order by reason")
    return [row["reason"] for row in rows]


async def test_ten_a_minute_are_two_at_once_and_then_one_every_six_seconds(hands: Hands) -> None:
    rule = rate(10, 60)

    assert sum(await send(hands, *[[rule]] * 20)) == 2
    await hands.at(5.999999)
    assert await send(hands, [rule]) == [False]
    await hands.at(6)
    assert await send(hands, [rule], [rule]) == [True, False]
    await hands.at(18)
    assert await send(hands, [rule], [rule], [rule]) == [True, True, False]
    assert await reasons(hands) == ["rate_limited"] * 21


async def test_keys_and_functions_have_rates_of_their_own(hands: Hands) -> None:
    assert await send(hands, [rate(1, 60, "a")], [rate(1, 60, "b")], [rate(1, 60, "a")]) == [
        True, True, False,
    ]  # fmt: skip


async def test_a_key_starts_once_in_a_day(hands: Hands) -> None:
    assert await send(hands, [once("a")], [once("a")], [once("b")]) == [True, False, True]
    await hands.at(DAY - 0.000001)
    assert await send(hands, [once("a")]) == [False]
    await hands.at(DAY)
    assert await send(hands, [once("a")]) == [True]
    assert await reasons(hands) == ["idempotent"] * 2


async def test_what_one_rule_drops_takes_nothing_from_the_other(hands: Hands) -> None:
    slow = rate(1, 60)
    assert await send(hands, [once("a")]) == [True]

    assert await send(hands, [once("a"), slow], [once("b"), slow], [once("c"), slow]) == [
        False, True, False,
    ]  # fmt: skip
    await hands.at(60)
    assert await send(hands, [once("c"), slow]) == [True]


async def test_a_batch_sent_again_takes_no_second_permit(hands: Hands) -> None:
    events = [sql.event() for _ in range(3)]
    starts = [sql.start(i, rules=(rate(1, 60),)) for i in (1, 2, 3)]

    first = await hands.take_in(events, starts)
    again = await hands.take_in(events, starts)

    assert [row["run_id"] for row in first] == [row["run_id"] for row in again]
    assert [row["start"] for row in first] == [1]
    await hands.at(60)
    assert await send(hands, [rate(1, 60)]) == [True]


async def test_an_event_id_sent_twice_takes_no_permit_and_is_noted(hands: Hands) -> None:
    rule = rate(10, 60)
    for _ in range(3):
        await hands.take_in([sql.event(event_id="e")], [sql.start(key="e", rules=(rule,))])

    assert await send(hands, [rule], [rule]) == [True, False]
    assert await reasons(hands) == ["duplicate", "duplicate", "rate_limited"]


async def test_the_step_that_invoked_a_dropped_start_is_told(hands: Hands) -> None:
    parent = await hands.begin()
    await send(hands, [once("a")])
    invoked = sql.start(parent=f"{parent.run_id}.h1", rules=(once("a"),))

    await hands.take_in([sql.event()], [invoked])

    item = await hands.item(parent, "refused:idempotent:h1")
    assert item is not None and (item["kind"], item["step"], item["ready"]) == (
        "invoke",
        "h1",
        True,
    )


async def test_idle_gates_and_old_reasons_are_swept(hands: Hands) -> None:
    await send(hands, [rate(1, 60)], [rate(1, 60)])
    await hands.at(61)
    year = timedelta(days=365)

    await hands.sweep(year, year, timedelta(seconds=60), 10)

    assert (await hands.count("gates"), await hands.count("not_started")) == (0, 0)


# --- against a model -----------------------------------------------------------------------------

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 40_000_000), st.sampled_from("ab")), min_size=1, max_size=25
)


def model(limit: int, period: int, arrivals: list[tuple[int, str]]) -> list[bool]:
    """GCRA over microseconds: a start costs period/limit, limit//10 may be ahead."""
    emission = max(period // limit, 1)
    tat: dict[str, int] = {}
    let_in = []
    for at, key in arrivals:
        due = max(tat.get(key, 0), at)
        let_in.append(due - at <= limit // 10 * emission)
        if let_in[-1]:
            tat[key] = due + emission
    return let_in


async def _play(dsn: str, limit: int, seconds: int, arrivals: list[tuple[int, str]]) -> list[bool]:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(20):
            transaction = connection.transaction()
            await transaction.start()
            hands = Hands(connection)
            begun: list[bool] = []
            for at, group in groupby(arrivals, key=lambda each: each[0]):
                await hands.at(at / 1_000_000)
                begun += await send(hands, *([rate(limit, seconds, key)] for _, key in group))
            await transaction.rollback()
            return begun
    finally:
        await connection.close()


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 45), seconds=st.integers(1, 30), arrivals=ARRIVALS)
def test_rate_limits_are_the_model_to_the_event(
    shared_database: str, limit: int, seconds: int, arrivals: list[tuple[int, str]]
) -> None:
    arrivals = sorted(arrivals, key=lambda each: each[0])

    begun = asyncio.run(_play(shared_database, limit, seconds, arrivals))

    assert begun == model(limit, seconds * 1_000_000, arrivals)


# --- at once -------------------------------------------------------------------------------------


async def test_two_engines_share_a_rate(connect: Connect) -> None:
    engines = [Hands(await connect(), owner) for owner in "AB"]
    for each in engines:
        await each.at(0)

    async def sends(hands: Hands, keys: str) -> int:
        begun = 0
        for _ in range(10):
            begun += sum(await send(hands, *([rate(50, 3600, key)] for key in keys)))
        return begun

    counts = await asyncio.gather(sends(engines[0], "abc"), sends(engines[1], "cba"))

    assert sum(counts) == 3 * 6
    assert await engines[0].count("runs") == 18


async def test_two_engines_start_a_key_once(connect: Connect) -> None:
    engines = [Hands(await connect(), owner) for owner in "AB"]

    async def sends(hands: Hands, keys: range) -> int:
        return sum([sum(await send(hands, [once(f"{k}")], [once(f"{k + 1}")])) for k in keys])

    counts = await asyncio.gather(sends(engines[0], range(20)), sends(engines[1], range(20)))

    assert sum(counts) == 21

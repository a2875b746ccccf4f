"""Events that end runs: exactly through the index, or by a condition an engine checks."""

import json

import asyncpg
import pytest
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands, completed

from stepbase.engine.effects import Settlement, Verdict

BY_ID = sql.pause("app/stop", "data.id", "p1")


async def statuses(hands: Hands, *runs: object) -> list[str]:
    return [await hands.status(run) for run in runs]  # type: ignore[arg-type]  # starts, all


# --- exact -------------------------------------------------------------------------------------


async def test_an_event_with_the_value_cancels_the_run_that_waits_for_it(hands: Hands) -> None:
    hit, other = await hands.begin(pauses=(BY_ID,)), await hands.begin(
        pauses=(sql.pause("app/stop", "data.id", "p2"),)
    )  # fmt: skip

    await hands.take_in([sql.event("app/stop", {"id": "p1"})])

    assert await statuses(hands, hit, other) == ["Cancelled", "Scheduled"]
    row = await hands.run(hit)
    assert json.loads(row["error"]) == {
        "name": "Cancelled",
        "message": "an event matched cancel_on",
    }
    assert await hands.count("queue") == await hands.count("pauses") == 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("app/other", {"id": "p1"}),
        ("app/stop", {"id": "p2"}),
        ("app/stop", {"id": ["p1"]}),
        ("app/stop", {"id": {"id": "p1"}}),
        ("app/stop", {"id": None}),
        ("app/stop", {"other": "p1"}),
        ("app/stop", {}),
    ],
)
async def test_any_other_event_leaves_it_alone(
    hands: Hands, name: str, data: dict[str, object]
) -> None:
    run = await hands.begin(pauses=(BY_ID,))

    await hands.take_in([sql.event(name, data)])

    assert await hands.status(run) == "Scheduled"


@pytest.mark.parametrize(
    ("path", "value", "data"),
    [
        ("data.n", 5, {"n": 5.0}),
        ("data.n", 12.5, {"n": 12.5}),
        ("data.n", 2**70, {"n": 2**70}),
        ("data.n", 0, {"n": -0.0}),
        ("data.ok", True, {"ok": True}),
        ("data.deep.er.id", "x", {"deep": {"er": {"id": "x"}}}),
        ("data.items.0", "x", {"items": ["x", "y"]}),
        ("data.a b", "x", {"a b": "x"}),
        ("data.id", 'ä "quoted" \\ 😀', {"id": 'ä "quoted" \\ 😀'}),
        ("data.id", "x" * 5000, {"id": "x" * 5000}),
        ("data.id", "", {"id": ""}),
        ("name", "app/stop", {}),
    ],
)
async def test_scalars_of_every_kind_are_found(
    hands: Hands, path: str, value: object, data: dict[str, object]
) -> None:
    run = await hands.begin(pauses=(sql.pause("app/stop", path, value),))

    await hands.take_in([sql.event("app/stop", data)])

    assert await hands.status(run) == "Cancelled"


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("5", 5),
        (5, "5"),
        (True, "true"),
        (1, True),
        (0, None),
        ("null", None),
        ("x" * 99, "x" * 98),
    ],
)
async def test_values_of_different_kinds_are_different(
    hands: Hands, value: object, other: object
) -> None:
    run = await hands.begin(pauses=(sql.pause("app/stop", "data.v", value),))

    await hands.take_in([sql.event("app/stop", {"v": other})])

    assert await hands.status(run) == "Scheduled"


async def test_one_event_ends_all_runs_that_wait_for_it(hands: Hands) -> None:
    paths = [BY_ID, sql.pause("app/stop", "data.ref", 7), sql.pause("app/stop", "name", "app/stop")]
    runs = [await hands.begin(pauses=(each,)) for each in paths * 2]

    await hands.take_in([sql.event("app/stop", {"id": "p1", "ref": 7})])

    assert set(await statuses(hands, *runs)) == {"Cancelled"}


async def test_a_run_is_cancelled_by_the_first_of_its_events(hands: Hands) -> None:
    run = await hands.begin(pauses=(BY_ID, sql.pause("app/gone", "data.id", "p1")))

    await hands.take_in([sql.event("app/gone", {"id": "p1"}), sql.event("app/stop", {"id": "p1"})])

    assert await hands.status(run) == "Cancelled"
    assert await hands.count("pauses") == 0


async def test_a_run_that_has_ended_stays_as_it_is(hands: Hands) -> None:
    run = await hands.begin_leased(pauses=(BY_ID,))
    await hands.settle_one(run, 1, completed("done"))

    await hands.take_in([sql.event("app/stop", {"id": "p1"})])

    row = await hands.run(run)
    assert (row["status"], row["output"]) == ("Completed", '"done"')


async def test_a_pause_expires(hands: Hands) -> None:
    run = await hands.begin(pauses=(sql.pause("app/stop", "data.id", "p1", expires=60.0),))
    await hands.at(60)

    await hands.take_in([sql.event("app/stop", {"id": "p1"})])

    assert await hands.status(run) == "Scheduled"


async def test_a_duplicate_start_is_not_cancelled_instead_of_the_first(hands: Hands) -> None:
    first = sql.start(key="mine", pauses=(BY_ID,))
    await hands.take_in([sql.event(event_id="mine")], [first])
    await hands.take_in([sql.event(event_id="mine")], [sql.start(key="mine", pauses=(BY_ID,))])

    await hands.take_in([sql.event("app/stop", {"id": "p1"})])

    assert await statuses(hands, first) == ["Cancelled"]
    assert await hands.count("runs") == 1


# --- the event itself, and the batch it came in ----------------------------------------------------


async def test_an_event_never_cancels_the_runs_it_starts(hands: Hands) -> None:
    run = sql.start(
        pauses=(sql.pause("app/f", "data.id", "p1"), sql.pause("app/f", residual="true"))
    )
    again = sql.start(pauses=(sql.pause("app/f", "data.id", "p1"),))
    event = sql.event("app/f", {"id": "p1"})

    await hands.take_in([event], [run])
    assert await hands.status(run) == "Scheduled"
    assert await hands.count("queue", "kind = 'match'") == 0

    await hands.take_in([sql.event("app/f", {"id": "p1"})], [again])
    assert await statuses(hands, run, again) == ["Cancelled", "Scheduled"]


async def test_a_later_event_of_the_batch_cancels_what_an_earlier_one_started(
    hands: Hands,
) -> None:
    stop = sql.event("app/stop", {"id": "p1"})
    cancelled, kept = sql.start(1, pauses=(BY_ID,)), sql.start(3, pauses=(BY_ID,))
    checked = sql.start(
        1, function=sql.function(2), pauses=(sql.pause("app/stop", residual="true"),)
    )

    rows = await hands.take_in([sql.event(), stop, sql.event()], [cancelled, kept, checked])

    assert await statuses(hands, cancelled, kept, checked) == [
        "Cancelled", "Scheduled", "Scheduled",
    ]  # fmt: skip
    assert {row["run_id"]: row["is_leased"] for row in rows}[cancelled.run_id] is False
    match = f"match:{stop.id}:{checked.pauses[0].hash}"
    assert await hands.item(checked, match) is not None
    assert await hands.count("queue", "kind = 'match'") == 1


# --- conditions -----------------------------------------------------------------------------------


async def test_what_the_index_cannot_decide_is_given_to_an_engine(hands: Hands) -> None:
    run = await hands.begin_leased(
        pauses=(sql.pause("app/stop", "data.id", "p1", residual="async.data.n > 5"),)
    )
    stop = sql.event("app/stop", {"id": "p1", "n": 9})

    await hands.take_in([stop, sql.event("app/stop", {"id": "p2", "n": 9})])
    [row] = await hands.lease(10)

    assert (row["kind"], row["run_id"], row["residual"]) == (
        "match",
        run.run_id,
        "async.data.n > 5",
    )
    assert row["other_event"] == stop.payload
    assert json.loads(row["event"])["name"] == "app/f"
    assert await hands.status(run) == "Scheduled"

    cancelled = Settlement(
        Verdict.END, status="Cancelled", error='{"name":"Cancelled"}', was_called=False
    )
    await hands.settle_one(run, row["gen"], cancelled, job=row["job"], called=None)
    assert await hands.status(run) == "Cancelled"
    assert (await hands.settle_one(run, 1, completed())).outcome == "lost"


async def test_a_condition_that_does_not_hold_leaves_the_run_as_it_was(hands: Hands) -> None:
    run = await hands.begin_leased(pauses=(sql.pause("app/stop", residual="async.data.n > 5"),))
    await hands.take_in([sql.event("app/stop", {"n": 1})])
    [row] = await hands.lease(10)
    before = await hands.item(run)

    await hands.settle_one(
        run, row["gen"], Settlement(Verdict.DONE, was_called=False), job=row["job"], called=None
    )

    assert await hands.item(run) == before
    assert (await hands.count("queue"), await hands.count("pauses")) == (1, 1)


async def test_each_event_is_checked_by_itself(hands: Hands) -> None:
    await hands.begin(pauses=(sql.pause("app/stop", residual="async.data.n > 5"),))

    await hands.take_in([sql.event("app/stop", {"n": n}) for n in range(3)])

    assert await hands.count("queue", "kind = 'match'") == 3


async def test_a_check_that_finds_its_run_ended_is_given_away(hands: Hands) -> None:
    """An event and the end of a run may pass each other: the check is then left without a pause."""
    run = await hands.begin_leased(pauses=(sql.pause("app/stop", residual="true"),))
    await hands.settle_one(run, 1, completed())
    await hands.connection.execute(
        "select stepbase._check_later(array['01E'], array[$1], array['h'], stepbase.now())",
        run.run_id,
    )

    [row] = await hands.lease(10)
    assert (row["residual"], row["other_event"]) == (None, None)
    await hands.settle_one(
        run, row["gen"], Settlement(Verdict.DONE, was_called=False), job=row["job"], called=None
    )

    assert await hands.count("queue") == 0
    assert await hands.status(run) == "Completed"


# --- cancel ----------------------------------------------------------------------------------------


async def test_cancelling_ends_live_runs_once_and_says_which(hands: Hands) -> None:
    live, done = await hands.begin(), await hands.begin_leased()
    await hands.settle_one(done, 1, completed())
    cause = '{"name":"Cancelled","message":"why"}'

    assert await hands.cancel([done.run_id, live.run_id, "unknown"], cause) == [live.run_id]
    assert await hands.cancel([live.run_id], cause) == []

    row = await hands.run(live)
    assert (row["status"], row["error"], row["output"]) == ("Cancelled", cause, None)
    assert await hands.count("queue") == 0


# --- canon -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"a"', '"a"'),
        ('""', '""'),
        ('"\\u0041\\n"', '"A\\n"'),
        ("5", "5"),
        ("5.0", "5"),
        ("5.10", "5.1"),
        ("1e2", "100"),
        ("-0", "0"),
        ("1e-3", "0.001"),
        ("12345678901234567890.5", "12345678901234567890.5"),
        ("true", "true"),
        ("false", "false"),
        ("null", None),
        ("[]", None),
        ('{"a":1}', None),
    ],
)
async def test_a_scalar_has_one_spelling(
    db: asyncpg.Connection, value: str, text: str | None
) -> None:
    assert await db.fetchval("select stepbase.canon($1::text::jsonb)", value) == text


async def test_long_values_are_hashed_and_short_ones_readable(db: asyncpg.Connection) -> None:
    short, long, other = "x" * 62, "x" * 63, "x" * 62 + "y"

    texts = [
        await db.fetchval("select stepbase.canon(to_jsonb($1::text))", text)
        for text in (short, long, other)
    ]

    assert texts[0] == f'"{short}"'
    assert len(texts[1]) == len(texts[2]) == 64 and texts[1] != texts[2]

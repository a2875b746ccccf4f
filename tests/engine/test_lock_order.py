"""Any two of the SQL functions at once, on the same runs: they may wait for each other, never for ever."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import combinations_with_replacement

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands, completed, settling, step, went_on
from tests.support.server import Server

from stepbase.engine import looking
from stepbase.engine.effects import NewItem, NewPause, Settlement, StepRow, Verdict
from stepbase.engine.lanes import NO_LANE, Lane
from stepbase.engine.match import ALWAYS, Wait
from stepbase.engine.starts import Event, Rerun, Start
from stepbase.engine.store import STALE

RUNS = 24
ROUNDS = 3
TURNS = 5

# Two lanes that share a key, one of them throttled.
LANES = (Lane("1 a b", ("a", "b")), Lane("1 b\x1ft", ("b", None)))

Operation = Callable[[Hands, list[Start], random.Random], Awaitable[object]]


async def settle(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Settle what this engine holds, in any order and with any verdict."""
    held = await hands.connection.fetch(
        "select run_id, job, gen from stepbase.queue where owner = $1 and kind = 'edge'",
        hands.owner,
    )
    verdicts = [
        went_on(step(sql.new_id())),
        Settlement(Verdict.READY),
        Settlement(Verdict.TIMER, delay=0.0, attempt=1, failed=sql.failed_attempt()),
        completed(),
    ]
    batch = [settling(r["run_id"], r["gen"], chance.choice(verdicts), r["job"]) for r in held]
    chance.shuffle(batch)
    await hands.settle(batch)


async def cancel(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Cancel some runs, named in any order."""
    await hands.cancel([run.run_id for run in chance.sample(runs, RUNS // 2)], "{}")


async def refund(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Send events that cancel some runs and have others checked, and that start new ones."""
    values = [chance.randrange(RUNS) for _ in range(RUNS // 2)]
    events = [sql.event("app/stop", {"id": v}, event_id=f"refund-{v}") for v in values]
    starts = [sql.start(i + 1, key=f"refund-{v}") for i, v in enumerate(values)]
    await take_in(hands, events, starts)


async def take_in(hands: Hands, events: list[Event], starts: Sequence[Start] = ()) -> None:
    """Ingest as an engine does: again if the functions have changed meanwhile."""
    while True:
        try:
            await hands.take_in(events, starts)
            return
        except asyncpg.PostgresError as error:
            if error.sqlstate != STALE:
                raise


async def limited(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Send events whose runs share rates and keys, named in any order, and that cancel some runs."""
    keys = [chance.randrange(6) for _ in range(8)]
    events = [sql.event("app/stop", {"id": chance.randrange(RUNS)}) for _ in keys]
    starts = [
        sql.start(i, rules=(sql.rate(50, 0.5, f"{key}"), sql.once(f"{chance.random():.2f}")))
        for i, key in enumerate(keys, 1)
    ]
    await take_in(hands, events, starts)


async def alone(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Send events whose runs cancel others of their singleton, and that cancel some runs."""
    keys = [chance.randrange(6) for _ in range(8)]
    events = [sql.event("app/stop", {"id": chance.randrange(RUNS)}) for _ in keys]
    starts = [
        sql.start(i, rules=(sql.singleton(f"{key}", "cancel" if key % 2 else "skip"),))
        for i, key in enumerate(keys, 1)
    ]
    await take_in(hands, events, starts)


async def gather(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Send events that wait, named in any order, and that cancel some runs; start what is due."""
    keys = [chance.randrange(6) for _ in range(8)]
    events = [sql.event("app/stop", {"id": chance.randrange(RUNS)}) for _ in keys]
    rules = (sql.batch(3, 0.001, "k"), sql.debounce(0.001, key="k"))
    starts = [
        sql.start(i, rules=(replace(rules[key % 2], key=f"{key}"),))
        for i, key in enumerate(keys, 1)
    ]
    await take_in(hands, events, starts)
    try:
        await hands.fire()
    except asyncpg.PostgresError as error:
        if error.sqlstate != STALE:
            raise  # else they are taken again when their lease has ended


async def wake(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Send events and signals that end waits of some runs."""
    chosen = chance.sample(runs, RUNS // 2)
    await take_in(hands, [sql.event("app/go", {"run": run.run_id}) for run in chosen])
    await hands.signal(chosen[0].run_id, "1")


async def look(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Look at what came before the waits of some runs; end those that it fits."""
    for run in chance.sample(runs, RUNS // 4):
        effects = await looking.look("l", "{}", hands.look_back(run.run_id, "l"))
        row = await hands.item(run, "l")
        if row is not None:
            await hands.settle([settling(run, row["gen"], effects, "l")])


async def lease(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Lease some items."""
    await hands.lease(chance.randrange(1, RUNS))


async def extend(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Prolong all leases, in any order."""
    held = await hands.connection.fetch(
        "select run_id, job, gen from stepbase.queue where owner = $1", hands.owner
    )
    await hands.extend(chance.sample([tuple(row) for row in held], len(held)))


async def sweep(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Delete all that has ended."""
    now = timedelta(0)
    await hands.sweep(now, now, now, 5)


async def rerun(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Make runs again, of which most have not ended."""
    for run in chance.sample(runs, 3):
        await hands.rerun(
            Rerun(
                run.run_id, sql.new_id(), 1, 60.0, [], None, (sql.pause("app/stop", "data.id", 1),)
            )
        )


async def pause(hands: Hands, runs: list[Start], chance: random.Random) -> None:
    """Pause the runs' function or let it go on, and lease what that has moved."""
    await hands.pause_function("app-f1", is_paused=chance.random() < 0.5)
    await hands.lease(5)


OPERATIONS: dict[str, Operation] = {
    each.__name__: each
    for each in (
        settle,
        cancel,
        refund,
        limited,
        alone,
        gather,
        wake,
        look,
        lease,
        extend,
        sweep,
        rerun,
        pause,
    )
}


async def begin(hands: Hands) -> list[Start]:
    """Start runs: a third waits for the next third to end, half of the rest is leased.

    Those that wait do so for an event and a signal too. Each run has a pause by value or one to be checked.
    """
    runs = [
        sql.start(
            i + 1,
            is_direct=i < RUNS // 3 or i % 4 != 3,
            rules=(sql.singleton(f"{i - 2 * RUNS // 3}"),) if i >= 2 * RUNS // 3 else (),
            lane=NO_LANE if i % 3 else LANES[i % 2],
            pauses=(
                sql.pause("app/stop", "data.id", i),
                sql.pause("app/stop", residual="async.data.id > 5"),
            )[: 1 + i % 2],
        )
        for i in range(RUNS)
    ]
    parents = [run for run in runs[: RUNS // 3] if run.lane is NO_LANE]
    for parent, child in zip(parents, runs[RUNS // 3 :], strict=False):
        child.parent = f"{parent.run_id}.i"
    await take_in(hands, [sql.event() for _ in runs], runs)
    await hands.settle([settling(parent, 1, _waiting(parent.run_id)) for parent in parents])
    return runs


def _waiting(run_id: str) -> Settlement:
    by_id = Wait("data.run", f'"{run_id}"', None)
    return Settlement(
        Verdict.PARK,
        steps=tuple(StepRow(h, h, "WaitForEvent", "waiting", "null") for h in "iwsl"),
        items=(*(NewItem(h, "wait", delay=60.0) for h in "iws"), NewItem("l", "look")),
        pauses=(
            NewPause("l", "event", "app/go", by_id, 60.0, 60.0),
            NewPause("w", "event", "app/go", by_id, 60.0),
            NewPause("s", "signal", run_id, ALWAYS, 60.0),
        ),
    )


async def take_turns(
    name: str, turns: int, hands: Hands, runs: list[Start], chance: random.Random
) -> None:
    """Do an operation again and again; a deadlock says who waited for whom, and where."""
    for _ in range(turns):
        try:
            await OPERATIONS[name](hands, runs, chance)
        except asyncpg.DeadlockDetectedError as error:
            pid = hands.connection.get_server_pid()
            error.add_note(
                f"{name}, process {pid}: {error.detail}\n{error.as_dict().get('context')}"
            )
            raise


@pytest.fixture(scope="module")
def database(cluster: Server, template: str) -> Iterator[str]:
    """One database for all pairs."""
    name = asyncio.run(cluster.create(template))
    yield cluster.dsn(name)
    asyncio.run(cluster.drop(name))


@pytest.fixture(autouse=True)
async def _emptied(connect: Connect) -> None:
    connection = await connect()
    await connection.execute(
        "truncate stepbase.events, stepbase.runs, stepbase.steps, stepbase.attempts, stepbase.queue,"
        " stepbase.pauses, stepbase.dedupe, stepbase.outbox, stepbase.gates, stepbase.not_started,"
        " stepbase.buffers, stepbase.functions, stepbase.apps"
    )
    flow = '{"limits":[4,6],"every":1000,"slack":3000}'
    function = (sql.FUNCTION_ID, "app-f1", "f", "{}", flow)
    await Hands(connection).register_app(sql.FUNCTION_ID, "app", "http://x", "", "", "", [function])


@pytest.mark.parametrize("pair", list(combinations_with_replacement(OPERATIONS, 2)), ids="+".join)
async def test_no_two_functions_deadlock(connect: Connect, pair: tuple[str, str]) -> None:
    # Each side twice: a function must not deadlock with itself either, while the other is going on.
    hands = [Hands(await connect(), "A", timedelta(milliseconds=5)) for _ in pair * 2]
    for each in hands:
        # A deadlock is reported as an error; sooner than after the usual second.
        await each.connection.execute("set deadlock_timeout = '50ms'")
    chance = random.Random(str(pair))

    async with asyncio.timeout(60):
        for _ in range(ROUNDS):
            runs = await begin(hands[0])
            await asyncio.gather(
                *(
                    take_turns(name, TURNS, h, runs, chance)
                    for h, name in zip(hands, pair * 2, strict=True)
                )
            )

    await _is_sound(hands[0])


async def test_all_functions_at_once_do_not_deadlock(connect: Connect) -> None:
    hands = {name: Hands(await connect(), "A", timedelta(milliseconds=5)) for name in OPERATIONS}
    for each in hands.values():
        await each.connection.execute("set deadlock_timeout = '50ms'")
    chance = random.Random(7)

    async with asyncio.timeout(60):
        for _ in range(2 * ROUNDS):
            runs = await begin(hands["lease"])
            await asyncio.gather(
                *(take_turns(name, 2 * TURNS, hands[name], runs, chance) for name in OPERATIONS)
            )

    await _is_sound(hands["lease"])


async def _is_sound(hands: Hands) -> None:
    """What holds whatever happened: nothing hangs, and what has ended leaves nothing to do.

    A check (kind match) may be left of a run that ended while its event came in: it is harmless, and
    gone when it is next leased.
    """
    assert (
        await hands.count(
            "runs r",
            "r.ended_at is null and not exists"
            " (select from stepbase.queue q where q.run_id = r.run_id and q.job = 'main')",
        )
        == 0
    )
    assert (
        await hands.count(
            "queue q",
            "q.kind <> 'match' and not exists (select from stepbase.runs r"
            " where r.run_id = q.run_id and r.ended_at is null)",
        )
        == 0
    )

"""Hot statements stay look-ups, also when they were planned while the tables were empty."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import asyncpg
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands, completed, step, went_on

from stepbase.engine import looking
from stepbase.engine.effects import NewItem, NewPause, Settlement, StepRow, Verdict
from stepbase.engine.lanes import Lane
from stepbase.engine.match import ALWAYS, Wait
from stepbase.engine.schedule import Move
from stepbase.engine.starts import Rerun, Start
from stepbase.engine.store import Checkpoint

RUNS = 50_000
BIG = (
    "events", "runs", "steps", "attempts", "queue", "pauses", "dedupe", "gates", "not_started",
    "crons", "buffers",
)  # fmt: skip

# Sleeping runs, each with two pauses of its own: 100,000 of one event name. Every tenth has ended.
_FILL = f"""
insert into stepbase.events (id, event_id, name, payload, ts, received_at)
  select 'E' || n, 'u' || n, 'app/f', '{{"data":{{}}}}', '{sql.NOON}', '{sql.NOON}'
    from generate_series(1, {RUNS}) n;
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, created_at, ended_at, singleton)
  select 'R' || n, '{sql.FUNCTION_ID}', 1, 'E' || n,
         case when n % 10 = 0 then 'Completed' else 'Running' end, '{sql.NOON}',
         case when n % 10 = 0 then timestamptz '{sql.NOON}' end, 'k' || n
    from generate_series(1, {RUNS}) n;
insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, started_at)
  select 'R' || n, 'h', 1, 's', 'StepRun', 'done', '{{}}', '{sql.NOON}'
    from generate_series(1, {RUNS}) n;
insert into stepbase.queue (run_id, job, kind, ready, score, due_at, place)
  select 'R' || n, 'main', 'sleep', false, '{sql.NOON}', timestamptz '{sql.NOON}' + interval '1 day',
         'p' || n % 2000
    from generate_series(1, {RUNS}) n;
insert into stepbase.pauses
    (run_id, hash, kind, event_name, path, value, own_events, expires_at)
  select 'R' || n, 'h' || p.path, 'cancel', 'app/stop', p.path, stepbase.canon(to_jsonb('v' || n)),
         array['E' || n], timestamptz '{sql.NOON}' + interval '1 year'
    from generate_series(1, {RUNS}) n, (values ('data.id'), ('data.ref')) as p (path);
insert into stepbase.gates (key, tat)
  select 'k' || n, timestamptz '{sql.NOON}' + interval '1 day' from generate_series(1, {RUNS}) n;
insert into stepbase.not_started (event_id, function_id, reason, at)
  select 'E' || n, '{sql.FUNCTION_ID}', 'rate_limited', '{sql.NOON}' from generate_series(1, {RUNS}) n;
insert into stepbase.buffers (id, function_id, kind, key, event_ids, bytes, first_at, last_ts, due_at)
  select 'B' || n, '{sql.FUNCTION_ID}', case n % 2 when 0 then 'batch' else 'debounce' end, 'b' || n,
         array['E' || n], 9, '{sql.NOON}', '{sql.NOON}', timestamptz '{sql.NOON}' + interval '1 day'
    from generate_series(1, {RUNS}) n;
insert into stepbase.dedupe (function_id, key, run_id, until)
  select '{sql.FUNCTION_ID}', 'u' || n, 'R' || n, timestamptz '{sql.NOON}' + interval '1 day'
    from generate_series(1, {RUNS}) n;
insert into stepbase.crons (function_id, n, spec, scheduled_at, next_at)
  select gen_random_uuid(), 1, '0 0 1 1 *', '{sql.NOON}', timestamptz '{sql.NOON}' + interval '1 day'
    from generate_series(1, {RUNS}) n;
"""

# What waits: 30,000 calls in 100 lanes, in each of which one call is in flight, which is all it may be.
_FILL_LANES = f"""
insert into stepbase.queue (run_id, job, kind, ready, score, due_at, owner, lane, key_1)
  select 'R' || n, 'w', 'step', n > 100, '{sql.NOON}',
         case when n <= 100 then timestamptz '{sql.NOON}' + interval '1 day' end,
         case when n <= 100 then 'B' end, 'k' || n % 100, 'k' || n % 100
    from generate_series(1, 30100) n;
"""


@dataclass
class Reads:
    """What one operation read of the big tables."""

    seq_scans: dict[str, int]
    rows: int


async def reads(hands: Hands, operation: Callable[[Hands], Awaitable[object]]) -> Reads:
    """Run an operation in a transaction of its own and count what it read."""
    async with hands.connection.transaction():
        before = await _counters(hands)
        await operation(hands)
        after = await _counters(hands)
    scans = {name: scans - before[name][0] for name, (scans, _) in after.items()}
    rows = sum(rows - before[name][1] for name, (_, rows) in after.items())
    return Reads({name: count for name, count in scans.items() if count}, rows)


async def _counters(hands: Hands) -> dict[str, tuple[int, int]]:
    rows = await hands.connection.fetch(
        "select relname, seq_scan, coalesce(idx_tup_fetch, 0) + seq_tup_read as read"
        " from pg_stat_xact_user_tables where schemaname = 'stepbase' and relname = any ($1)",
        list(BIG),
    )
    return {row["relname"]: (row["seq_scan"], row["read"]) for row in rows}


async def cycle(hands: Hands) -> Start:
    """One run from event to end, with everything the hot functions have branches for."""
    await hands.take_in([sql.event("app/stop", {"id": "v7", "ref": "none"})])
    run = await hands.begin_leased(
        key=sql.new_id(), deadline=9.0, pauses=(sql.pause("app/stop", "data.id", "mine"),)
    )
    await hands.extend([(run.run_id, "main", 1)])
    await hands.settle_one(run, 1, went_on(step("a", 1), step("b", 2)), finish=60.0)
    failed = Settlement(Verdict.TIMER, delay=0.0, attempt=1, failed=sql.failed_attempt())
    await hands.settle_one(run, 2, failed)
    [row] = await hands.lease(10)
    await hands.settle_one(run, row["gen"], completed())
    other = await hands.begin()
    await hands.cancel([other.run_id], "{}")
    await hands.tick(None)
    return run


async def limit(hands: Hands) -> None:
    """Starts with rules, let in and dropped."""
    for _ in range(2):
        alone = sql.singleton(sql.new_id(), "cancel")
        rules = (sql.rate(10, 60, sql.new_id()), sql.once(sql.new_id()), alone)
        starts = [sql.start(i, rules=rules, is_direct=True) for i in (1, 2, 3)]
        await hands.take_in([sql.event() for _ in starts], starts)


async def in_a_lane(hands: Hands) -> None:
    """A run with limits from event to end."""
    run = await hands.begin(lane=Lane("a mine\x1fthrottle\x1fp1", ("mine", "other")))
    [row] = await hands.lease(10)
    assert (row["run_id"], row["lane"]) == (run.run_id, "a mine")
    await hands.settle_one(run, 1, completed())


async def gather(hands: Hands) -> None:
    """Events that wait, and the runs they start."""
    key = sql.new_id()
    rules = [sql.batch(2, 60, key)] * 3 + [sql.debounce(0.000001, key=key)] * 2
    starts = [sql.start(i, rules=(rule,)) for i, rule in enumerate(rules, 1)]
    await hands.take_in([sql.event() for _ in starts], starts)
    begun = await hands.fire()
    for row in await hands.lease(10):
        await hands.cancel([row["run_id"]], "{}")
    assert len(begun) == 1
    await hands.next_buffer()


async def ask(hands: Hands) -> None:
    """Everything the API reads."""
    run = await hands.begin_leased()
    await hands.get_runs(run_id=run.run_id)
    await hands.get_runs(event_id="none")
    await hands.get_jobs(run.run_id)
    assert await hands.get_state(run.run_id) is not None
    invoked = StepRow("i", "i", "InvokeFunction", "done", "{}")
    wrote = replace(went_on(step("a", 1), invoked), failed=sql.failed_attempt())
    await hands.settle_one(run, 1, wrote)
    assert {row["hash"] for row in await hands.get_trace(run.run_id)} == {"a", "i"}
    [attempt] = await hands.get_attempts(run.run_id, 10)
    assert await hands.get_memo(run.run_id, step="a") is not None
    assert await hands.get_memo(run.run_id, attempt=attempt["id"]) is not None
    trigger = await hands.get_trigger(run.run_id)
    assert trigger is not None and len(trigger["payloads"]) == 1
    assert len(await hands.get_runs_of(["none", *trigger["ids"]], 10)) == 1
    await hands.get_event("none")
    await hands.get_not_started("none")
    await hands.list_events(20, None, None, None, None)
    await hands.list_events(20, "E5", "app/g", sql.NOON, None)


async def group(hands: Hands) -> Start:
    """One run that waits for several things at once, each ended in another way."""
    run = await hands.begin_leased()
    opened = Settlement(
        Verdict.PARK,
        planning=1,
        steps=tuple(StepRow(h, h, "StepPlanned", "planned", "null") for h in ("p", "w", "s", "z")),
        items=(
            NewItem("p", "step"),
            NewItem("w", "wait", delay=60.0),
            NewItem("s", "wait", delay=60.0),
            NewItem("z", "wait", delay=0.0),
        ),
        pauses=(
            NewPause("w", "event", "app/go", Wait("data.id", f'"{run.run_id}"', None), 60.0),
            NewPause("s", "signal", run.run_id, ALWAYS, 60.0),
        ),
    )
    await hands.settle_one(run, 1, opened)
    for row in await hands.lease(10):
        memo = step(row["step"], 1) if row["kind"] == "step" else step(row["step"])
        closed = Settlement(Verdict.DONE, was_called=row["kind"] == "step", steps=(memo,))
        await hands.settle_one(run, row["gen"], closed, job=row["job"])
    await hands.take_in([sql.event("app/go", {"id": run.run_id})])
    assert await hands.signal(run.run_id, "1") == run.run_id
    [row] = await hands.lease(10)
    assert (row["kind"], len(row["hashes"])) == ("edge", 4)
    await hands.checkpoint([Checkpoint(run.run_id, "main", row["gen"], (step("c", 1),))])
    await hands.settle_one(run, row["gen"], completed())
    return run


async def look_back(hands: Hands) -> None:
    """A wait that looks back, and what it finds."""
    run = await hands.begin_leased()
    opened = Settlement(
        Verdict.PARK,
        steps=(StepRow("w", "w", "WaitForEvent", "waiting", "null"),),
        items=(NewItem("w", "look"),),
        pauses=(NewPause("w", "event", "app/look", Wait("data.id", '"x"', None), 60.0, 60.0),),
    )
    names = ("app/look", "app/f")
    await hands.take_in([sql.event(n, {"id": "x"}, internal_id=sql.id_at(0)) for n in names])
    await hands.settle_one(run, 1, opened)
    [row] = await hands.lease(10)
    effects = await looking.look("w", "{}", hands.look_back(run.run_id, "w"))
    assert effects.steps
    await hands.settle_one(run, row["gen"], effects, job="w", called=None)
    await hands.cancel([run.run_id], "{}")


async def operate(hands: Hands) -> None:
    """What people ask of runs from outside."""
    run = await cycle(hands)
    again = Rerun(run.run_id, sql.new_id(), 1, None, [step("b").hash], None, ())
    assert await hands.rerun(again) == "started"
    [row] = await hands.lease(10)
    assert row["hashes"] == ["a"]
    runs, last = await hands.live_runs(sql.FUNCTION_ID, "", "~", 10)
    assert len(await hands.get_run_events(runs)) == len(runs)
    assert last is None or len(runs) <= 10
    await hands.cancel([again.run_id], "{}")
    await hands.measures(10)


async def alarm(hands: Hands) -> None:
    """A schedule that is due."""
    await hands.connection.execute(
        "insert into stepbase.functions (function_id, app_id, slug, name, config)"
        " values ($1, $1, 'app-alarm', 'alarm', '{}') on conflict do nothing",
        sql.FUNCTION_ID,
    )
    await hands.connection.execute(
        "insert into stepbase.crons (function_id, n, spec, next_at) values ($1, 1, 'x', '-infinity')"
        " on conflict (function_id, n) do update set scheduled_at = null, next_at = '-infinity'",
        sql.FUNCTION_ID,
    )
    [row] = await hands.due_crons(100)
    next_at = sql.NOON + timedelta(days=2)
    move = Move(sql.FUNCTION_ID, 1, row["spec"], None, next_at, next_at, sql.new_id(), "{}")
    assert await hands.fire_crons([move]) == 1
    await hands.tick(None)


async def sweep(hands: Hands) -> None:
    year = timedelta(days=365)
    await hands.sweep(year, year, year, 100)


async def test_a_refund_among_many_sleeping_runs_and_all_hot_functions_are_look_ups(
    connect: Connect,
) -> None:
    hands, other = Hands(await connect()), await connect()
    await hands.at(0)
    # Plans are kept from the sixth call on: made here, on empty tables with statistics that say so.
    await other.execute("analyze")
    flow = '{"limits":[1,1],"runs":100,"every":1,"slack":1000000}'
    function = (sql.FUNCTION_ID, "app-f1", "f", "{}", flow)
    await hands.register_app(sql.FUNCTION_ID, "app", "http://x", "", "", "", [function])
    for _ in range(7):
        await cycle(hands)
        await group(hands)
        await limit(hands)
        await in_a_lane(hands)
        await gather(hands)
        await ask(hands)
        await look_back(hands)
        await operate(hands)
        await alarm(hands)
        await sweep(hands)
    await other.execute(_FILL)

    run_cycle = await reads(hands, cycle)
    run_group = await reads(hands, group)
    limited = await reads(hands, limit)
    gathered = await reads(hands, gather)
    looked = await reads(hands, look_back)
    question = await reads(hands, ask)
    operations = await reads(hands, operate)
    idle_sweep = await reads(hands, sweep)
    fired = await reads(hands, alarm)
    assert run_cycle.seq_scans == run_group.seq_scans == {}
    assert question.seq_scans == idle_sweep.seq_scans == limited.seq_scans == {}
    assert gathered.seq_scans == looked.seq_scans == {}
    assert limited.rows < 100
    assert gathered.rows < 200
    assert looked.rows < 200
    assert run_cycle.rows < 200, "a run reads its own rows, whatever else is stored"
    assert run_group.rows < 400
    assert question.rows < 100
    assert operations.seq_scans == {} and operations.rows < 400
    assert fired.seq_scans == {}
    assert fired.rows < 20

    before = await _index_scans(other)
    refund = await reads(hands, lambda h: h.take_in([sql.event("app/stop", {"ref": "v4001"})]))
    assert await hands.status("R4001") == "Cancelled"
    assert refund.seq_scans == {}
    assert refund.rows < 20
    await hands.connection.execute("select pg_stat_force_next_flush()")
    assert await _index_scans(other) > before

    await other.execute(_FILL_LANES)
    full = await reads(hands, lambda h: h.lease(64))
    one = await reads(hands, in_a_lane)
    assert full.seq_scans == one.seq_scans == {}
    assert full.rows < 64 * 6, "a full lane costs its head, its run and a count"
    assert one.rows < 64 * 6 + 100


async def _index_scans(connection: asyncpg.Connection) -> int:
    await connection.execute("select pg_stat_clear_snapshot()")
    return int(
        await connection.fetchval(
            "select idx_scan from pg_stat_user_indexes where indexrelname = 'pauses_by_value'"
        )
    )

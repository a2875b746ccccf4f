"""Fills a database with what would take days of work: ended runs, or sleeping ones.

Rows are as large as the engine makes them: an event of 400 bytes, three steps of 110 each, an output
of 60. Ids rise with time, below those of new ULIDs; ended runs are up to 40 days old, one of a hundred
has failed.
"""

import hashlib

import asyncpg

STEPS = 3
_HASHES = (
    "fe05bcdcdc4928012781a5f1a2a77cbb5398e106",
    "ad782ecdac770fc6eb9a62e44f90873fb97fb26b",
    "b802f384302cb24fbab0a44997e820bf2e8507bb",
)
_ID = "'01HX' || lpad(upper(to_hex(n)), 10, '0') || upper(left(md5(n::text), 12))"
_DATA = (
    """{"id":' || n || ',"purchase_id":"' || md5(n::text) || '","merchant":"m' || n % 500 || '","cents":'"""
    """ || n % 9973 || ',"currency":"EUR","note":"' || repeat('x', 150) || '"}"""
)

_EVENTS = """
insert into stepbase.events (id, name, payload, ts, received_at)
  select {id}, '{name}', ('{{"data":{data},"id":"' || {id} ||
         '","name":"{name}","ts":1795000000000,"user":{{}}}}')::json, {at}, {at}
    from generate_series({first}, {last}) n
"""
_ENDED = """
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, req_version, step_count, state_bytes, output,
     error, created_at, started_at, ended_at)
  select {id}, f.function_id, 1, {id}, case when n % 100 = 0 then 'Failed' else 'Completed' end,
         2, cardinality(array{hashes}), 330, '{{"sum":6,"wallet":"01HXWALLET00000000000000","balance":1250}}',
         case when n % 100 = 0 then '{{"name":"Error","message":"it broke"}}'::json end,
         {at}, {at}, {at} + interval '1 second'
    from generate_series({first}, {last}) n, stepbase.functions f where f.name = '{function}'
"""
_DONE = """
insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, started_at, ended_at)
  select {id}, s.hash, s.pos, 'step-' || s.pos, 'StepRun', 'done',
         ('{{"data":{{"n":' || n || ',"text":"' || repeat('y', 80) || '"}}}}')::json, {at}, {at}
    from generate_series({first}, {last}) n, unnest(array{hashes}) with ordinality as s (hash, pos)
"""
_LIVE = """
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, req_version, step_count, created_at, started_at)
  select {id}, f.function_id, 1, {id}, 'Running', 2, 1, {at}, {at}
    from generate_series({first}, {last}) n, stepbase.functions f where f.name = '{function}'
"""
_ASLEEP = """
insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, started_at)
  select {id}, '{hash}', 1, 'nap', 'Sleep', 'sleeping', 'null', {at}
    from generate_series({first}, {last}) n
"""
_TIMERS = """
insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at, gen)
  select {id}, 'main', 'sleep', '{hash}', false, {at}, now() + interval '1 day' * (1 + n % 30), 2
    from generate_series({first}, {last}) n
"""
_REFUNDS = """
insert into stepbase.pauses (run_id, hash, kind, event_name, path, value, own_events, expires_at)
  select {id}, '{hash}', 'cancel', 'bench/refund', 'data.id', n::text, array[{id}],
         now() + interval '1 year'
    from generate_series({first}, {last}) n
"""


async def add_ended_runs(dsn: str, count: int, function: str = "three", steps: int = STEPS) -> None:
    """Store ended runs of some steps, for a function that is registered."""
    more = [hashlib.sha1(str(i).encode()).hexdigest() for i in range(steps - STEPS)]
    await _fill(dsn, (_EVENTS, _ENDED, _DONE), count, function, [*_HASHES, *more])


async def add_sleeping_runs(dsn: str, count: int, function: str = "sleeper") -> None:
    """Store runs that sleep for days, each with an event that would cancel it."""
    statements = (_EVENTS, _LIVE, _ASLEEP, _TIMERS, _REFUNDS)
    await _fill(dsn, statements, count, function, list(_HASHES))


async def _fill(
    dsn: str, statements: tuple[str, ...], count: int, function: str, hashes: list[str]
) -> None:
    values = {
        "id": _ID,
        "data": _DATA,
        "name": f"bench/{function}",
        "function": function,
        "hash": _HASHES[0],
        "hashes": hashes,
        "at": f"(now() - interval '40 days' * ({count} - n) / {count})",
        "first": 1,
        "last": count,
    }
    connection = await asyncpg.connect(dsn)
    # A bulk load of the benchmark's own: what it measures afterwards is durable.
    await connection.execute("set synchronous_commit = off")
    for statement in statements:
        await connection.execute(statement.format_map(values))
    await connection.execute("vacuum analyze")
    await connection.execute("checkpoint")
    await connection.close()

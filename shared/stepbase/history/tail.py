"""What happens, as it happens: events that arrive, runs that start and end, attempts that fail.

Looks again and again, a little further back each time: what commits late has an earlier time than what has
been seen. What was seen is remembered for as long, so nothing is said twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from stepbase import clock
from stepbase.database.dberrors import translated
from stepbase.errors import StoreError
from stepbase.history.reads import Row, connected
from stepbase.history.timeline import said
from stepbase.protocol.ids import ulid

LOOK_SECONDS = 0.5
_BACK = timedelta(seconds=10)
# Runs and events told of in ten seconds at most: nobody reads more, and `stepbase runs` has them all.
_MOST = 5000
_ENDS = {
    "Completed": "completed",
    "Failed": "failed",
    "Cancelled": "cancelled",
    "Skipped": "skipped",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to tell of.

    Attributes:
        since: From when on; None: from now on.
        seconds: For how long; None: until somebody stops it.
        event: Only events of this name, and runs started by them.
        function: Only runs of this function, by its id on the wire, and no events.
    """

    since: datetime | None = None
    seconds: float | None = None
    event: str | None = None
    function: str | None = None


@dataclass(slots=True)
class _Memory:
    """What has been told, and the runs that go on (at most `_MOST`, the newest)."""

    told: dict[tuple[str, str], datetime] = field(default_factory=dict)
    live: dict[str, None] = field(default_factory=dict)

    def is_new(self, what: str, key: str, at: datetime) -> bool:
        """Say whether this was not told, and remember it."""
        if (what, key) in self.told:
            return False
        self.told[what, key] = at
        return True

    def forget(self, before: datetime) -> None:
        """Forget what cannot be found again."""
        self.told = {
            key: at for key, at in self.told.items() if at >= before or key[1] in self.live
        }
        for run_id in list(self.live)[: max(0, len(self.live) - _MOST)]:
            del self.live[run_id]


async def follow(url: str, wanted: Wanted, tell_away: Callable[[str], None]) -> AsyncIterator[Row]:
    """Yield what happens: `at`, `what`, `name`, `id` and `text`.

    `what` is event, started, completed, failed, cancelled, skipped, or attempt (one that failed).

    Args:
        tell_away: Called with the reason when the database is away; it is asked again.

    Raises:
        StoreError: If it cannot be asked at all.
    """
    memory = _Memory()
    since = wanted.since
    ends = None if wanted.seconds is None else clock.monotonic() + wanted.seconds
    while True:
        try:
            async with connected(url) as connection:
                if since is None:
                    since = await connection.fetchval("select stepbase.now()")
                while True:
                    now = await connection.fetchval("select stepbase.now()")
                    for row in await _look(connection, wanted, memory, since):
                        yield row
                    since = max(since, now - _BACK)
                    memory.forget(since)
                    if ends is not None and clock.monotonic() >= ends:
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except StoreError as error:
            if since is None or not error.is_transient:
                raise
            tell_away(str(error))
            await asyncio.sleep(LOOK_SECONDS)


async def _look(
    connection: "asyncpg.Connection[asyncpg.Record]",
    wanted: Wanted,
    memory: _Memory,
    since: datetime,
) -> list[Row]:
    """Return what has happened since, in order, and was not told."""
    floor = ulid(max(0, int(since.timestamp() * 1000)), bytes(10))
    async with connection.transaction(readonly=True):
        events = await connection.fetch(_EVENTS, floor, wanted.event, _MOST)
        runs = await connection.fetch(
            _RUNS, floor, since, list(memory.live), wanted.event, wanted.function, _MOST
        )
        attempts = await connection.fetch(_ATTEMPTS, [row["run_id"] for row in runs], since)
    by_run = {row["run_id"]: row for row in runs}
    found: list[Row] = []

    def tell(what: str, key: str, at: datetime, name: str | None, shown: str, text: str) -> None:
        if at >= since and memory.is_new(what, key, at):
            found.append({"at": at, "what": what, "name": name, "id": shown, "text": text})

    for row in events if wanted.function is None else ():
        said_id = row["event_id"]
        text = f"sender's id {said_id}" if said_id and said_id != row["id"] else ""
        tell("event", row["id"], row["received_at"], row["name"], row["id"], text)
    for run_id, row in by_run.items():
        _note(memory, row)
        if row["started_at"] is not None:
            by = f"by {row['cause']} {row['event'] or '(event gone)'}"
            tell("started", run_id, row["started_at"], row["function"], run_id, by)
        if row["ended_at"] is not None:
            text = said(row["error"]) or f"after {round(row['age_ms'])} ms"
            what = _ENDS.get(row["status"], row["status"])
            tell(what, run_id, row["ended_at"], row["function"], run_id, text)
    for row in attempts:
        of, step = by_run[row["run_id"]], row["step"] or "the code between steps"
        text = f"attempt {row['attempt']} of {step}: {said(row['error'])}"
        key = f"{row['run_id']}/{row['id']}"
        tell("attempt", key, row["at"], of["function"], row["run_id"], text)
    return sorted(found, key=lambda row: row["at"])


def _note(memory: _Memory, row: Any) -> None:
    """Keep an eye on a run for as long as it goes on: it may start, fail and end long after it was made."""
    if row["ended_at"] is None:
        memory.live[row["run_id"]] = None
    else:
        memory.live.pop(row["run_id"], None)


async def check_can_tail(url: str) -> None:
    """Make sure that the database can be asked at all.

    Raises:
        StoreError: As `reads.reading`.
    """
    async with connected(url) as connection:
        with translated():
            await connection.fetchval("select stepbase.now()")


_EVENTS = """
select e.id, e.event_id, e.name, e.received_at
  from stepbase.events e
  where e.id >= $1 and ($2::text is null or e.name = $2) order by e.id limit $3
"""
# Runs that are new, that have ended since, and that go on: each found by an index.
_RUNS = """
select o.run_id, o.function, o.status, o.event, o.cause, o.started_at, o.ended_at, o.age_ms::float8,
       o.error::text
  from (
    (select x.run_id from stepbase.runs x where x.run_id >= $1 order by x.run_id limit $6)
    union
    (select x.run_id from stepbase.runs x where x.ended_at >= $2 and x.status <> 'Failed' limit $6)
    union
    (select x.run_id from stepbase.runs x where x.ended_at >= $2 and x.status = 'Failed' limit $6)
    union
    select u.id from unnest($3::text[]) as u (id)
  ) as r
  cross join lateral (select * from stepbase.run_overview y where y.run_id = r.run_id offset 0) as o
  where ($4::text is null or o.event = $4) and ($5::text is null or o.function = $5)
"""
_ATTEMPTS = """
select a.run_id, a.id, a.attempt, a.at, a.error::text, s.name as step
  from unnest($1::text[]) as u (id)
  cross join lateral (
    select * from stepbase.attempts x where x.run_id = u.id and x.at >= $2 order by x.id limit 100
  ) as a
  left join stepbase.steps as s on s.run_id = a.run_id and s.hash = a.hash
"""

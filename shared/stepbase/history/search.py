"""Runs by what people know of them: a walk back through time by key, in parts of bounded work.

A part looks at no more than `LOOKED_AT` runs, newest first, and says how far it got: a search without a
hit is continued where it stopped, not at the price of reading everything. The console shows a part as a
page; the command line goes on for some seconds. Live runs are found where the engine's work is, and among
those reported of other servers.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from stepbase.protocol.ids import ulid

LOOKED_AT = 20_000
# Payloads have to be unpacked to be searched.
_LOOKED_INTO = 5_000
# Behind every ULID.
_NEWEST = "~"
# An id's time is of the clock of who made the run, `created_at` is the database's.
_CLOCKS = timedelta(minutes=1)
_LIVE_STATUSES = frozenset({"live", "Running", "Scheduled"})

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Runs a statement with its arguments; returns rows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; None and "" mean any.

    Attributes:
        status: A run's status, or ``"live"`` for runs that have not ended.
        function: Its id.
        event: The name of the event.
        text: A part of the event's JSON text.
        since: Runs created from then on.
        before: The key of the last part.
    """

    status: str = ""
    function: UUID | None = None
    event: str = ""
    text: str = ""
    since: datetime | None = None
    before: str = ""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a part of a search found.

    Attributes:
        ids: Of runs, newest first.
        older: The key of the next part, or None if there is nothing further.
        until: How far back this part has looked, if it did not find all it may.
    """

    ids: Sequence[str]
    older: str | None
    until: datetime | None = None


async def find(fetch: Fetch, wanted: Wanted, limit: int) -> Hits:
    """Look at one part; return up to `limit` runs."""
    most = _LOOKED_INTO if wanted.text else LOOKED_AT
    walk, before = _walk(wanted), wanted.before or _NEWEST
    floor = "" if wanted.since is None else floor_of(wanted.since - _CLOCKS)
    hits = await fetch(
        _HITS.format(walk=walk),
        before, most, wanted.function, floor, wanted.status, wanted.event,
        f"%{escaped(wanted.text)}%" if wanted.text else "", wanted.since, limit,
    )  # fmt: skip
    ids = [row["run_id"] for row in hits]
    if len(ids) == limit:
        return Hits(ids, ids[-1])
    [walked] = await fetch(_WALKED.format(walk=walk), before, most, wanted.function, floor)
    if walked["looked_at"] < most:
        return Hits(ids, None)
    return Hits(ids, walked["last"], _when(walked["last"]))


async def find_on(fetch: Fetch, wanted: Wanted, limit: int, may_go_on: Callable[[], bool]) -> Hits:
    """Look at part after part until `limit` runs are found, nothing is left, or it may not go on."""
    ids: list[str] = []
    while True:
        part = await find(fetch, wanted, limit - len(ids))
        ids += part.ids
        if len(ids) == limit or part.older is None or not may_go_on():
            return Hits(ids, part.older, part.until)
        wanted = replace(wanted, before=part.older)


def floor_of(moment: datetime) -> str:
    """Return what ids of a moment begin with."""
    return ulid(max(0, int(moment.timestamp() * 1000)), bytes(10))


def escaped(text: str) -> str:
    """Return a text as `like` finds it, whatever signs are in it."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _walk(wanted: Wanted) -> str:
    """Return the walk that fits: each is ordered by run id and served by an index."""
    if wanted.status in _LIVE_STATUSES:
        return _LIVE
    return _OF_FUNCTION if wanted.function is not None else _ALL


def _when(run_id: str) -> datetime | None:
    """Return when a run was created, as its id says (ULID: 48 bits of milliseconds in base 32)."""
    value = 0
    for letter in run_id[:10]:
        place = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(letter)
        if place < 0:
            return None  # another server's own form
        value = value * 32 + place
    return datetime.fromtimestamp(value / 1000, UTC)


_ALL = """
  select r.* from stepbase.runs r
    where r.run_id < $1 and r.run_id >= $4 and $3::uuid is null order by r.run_id desc limit $2
"""
_OF_FUNCTION = """
  select r.* from stepbase.runs r
    where r.function_id = $3::uuid and r.run_id < $1 and r.run_id >= $4 order by r.run_id desc limit $2
"""
# Every live run of an engine has an item in the queue, which holds nothing else but a few deadlines; those of
# other servers have an index of their own.
_LIVE = """
  select r.* from (
    select u.run_id from (
      (select distinct q.run_id from stepbase.queue q
         where q.run_id < $1 and q.run_id >= $4 order by q.run_id desc limit $2)
      union all
      (select x.run_id from stepbase.runs x
         where x.recorded_at is not null and x.ended_at is null and x.run_id < $1 and x.run_id >= $4
         order by x.run_id desc limit $2)
    ) u order by u.run_id desc limit $2
  ) q cross join lateral (select * from stepbase.runs x where x.run_id = q.run_id offset 0) r
"""
_HITS = """
select w.run_id from ({walk}) w
  where $5 in ('', 'live', w.status) and ($5 <> 'live' or w.ended_at is null)
    and ($3::uuid is null or w.function_id = $3) and ($8::timestamptz is null or w.created_at >= $8)
    and (($6 = '' and $7 = '') or exists (
      select from stepbase.events e
        where e.id = w.event_id and $6 in ('', e.name) and ($7 = '' or e.payload::text ilike $7)
        offset 0))
  order by w.run_id desc limit $9
"""
_WALKED = """
select min(w.run_id) as last, count(*) as looked_at from ({walk}) w where $3::uuid is null or true
"""

"""Runs by what people know of them: pages that go back through time by key, each of bounded work.

A page looks at no more than `_LOOKED_AT` runs, newest first, and says how far it got: a search without a
hit is continued where it stopped, not at the price of reading everything. Live runs are found in the
queue, failed ones by the index of their ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from stepbase.console import words
from stepbase.console.reads import Reads, Row

PAGE = 50
_LOOKED_AT = 20_000
# Payloads have to be unpacked to be searched.
_LOOKED_INTO = 5_000
# Behind every ULID.
_NEWEST = "~"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; None and "" mean any.

    Attributes:
        status: A run's status, or ``"live"`` for runs that have not ended.
        function: Its id.
        event: The name of the event.
        text: A part of the event's JSON text, or the beginning of a run's id.
        since: Runs created from then on.
        before: The key of the last page.
    """

    status: str = ""
    function: UUID | None = None
    event: str = ""
    text: str = ""
    since: datetime | None = None
    before: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One page.

    Attributes:
        runs: Rows of `stepbase.run_overview`, newest first.
        older: The key of the next page, or None if there is nothing further.
        until: How far back this page has looked, if it is not full.
    """

    runs: Sequence[Row]
    older: str | None
    until: datetime | None = None


async def find_runs(reads: Reads, wanted: Wanted) -> Found:
    """Find a page of runs."""
    most = _LOOKED_INTO if wanted.text else _LOOKED_AT
    walk, before = _walk(wanted), wanted.before or _NEWEST
    hits = await reads.all(
        _HITS.format(walk=walk),
        before, most, wanted.function, wanted.status, wanted.event,
        f"%{escaped(wanted.text)}%" if wanted.text else "", wanted.since, PAGE,
    )  # fmt: skip
    ids = [row["run_id"] for row in hits]
    runs = await reads.all(OVERVIEW, ids) if ids else []
    if len(ids) == PAGE:
        return Found(runs, ids[-1])
    walked = await reads.one(_WALKED.format(walk=walk), before, most, wanted.function)
    if walked is None or walked["looked_at"] < most:
        return Found(runs, None)
    return Found(runs, walked["last"], _when(walked["last"]))


def _walk(wanted: Wanted) -> str:
    """Return the walk that fits: each is ordered by run id and served by an index."""
    if wanted.status == "live" or wanted.status in words.LIVE:
        return _LIVE
    return _OF_FUNCTION if wanted.function is not None else _ALL


def escaped(text: str) -> str:
    """Return a text as `like` finds it, whatever signs are in it."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _when(run_id: str) -> datetime:
    """Return when a run was created, as its id says (ULID: 48 bits of milliseconds in base 32)."""
    value = 0
    for letter in run_id[:10]:
        value = value * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(letter)
    return datetime.fromtimestamp(value / 1000, UTC)


def as_json(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row as the pages' JSON has it: instants in ISO 8601, UTC."""
    return {
        key: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for key, value in row.items()
    }


_ALL = """
  select r.* from stepbase.runs r
    where r.run_id < $1 and $3::uuid is null order by r.run_id desc limit $2
"""
_OF_FUNCTION = """
  select r.* from stepbase.runs r
    where r.function_id = $3::uuid and r.run_id < $1 order by r.run_id desc limit $2
"""
# Every live run has an item in the queue, and the queue holds nothing else but a few deadlines.
_LIVE = """
  select r.* from (
    select distinct q.run_id from stepbase.queue q where q.run_id < $1 order by q.run_id desc limit $2
  ) q cross join lateral (
    select * from stepbase.runs x where x.run_id = q.run_id and x.ended_at is null offset 0
  ) r where $3::uuid is null or r.function_id = $3
"""
_HITS = """
select w.run_id from ({walk}) w
  where $4 in ('', 'live', w.status) and ($7::timestamptz is null or w.created_at >= $7)
    and (($5 = '' and $6 = '') or exists (
      select from stepbase.events e
        where e.id = w.event_id and $5 in ('', e.name) and ($6 = '' or e.payload::text ilike $6)
        offset 0))
  order by w.run_id desc limit $8
"""
_WALKED = """
select min(w.run_id) as last, count(*) as looked_at from ({walk}) w
"""
OVERVIEW = """
select o.*, r.function_id, r.event_id as event_key from unnest($1::text[]) as u (id)
  cross join lateral (select * from stepbase.run_overview x where x.run_id = u.id offset 0) o
  cross join lateral (select x.function_id, x.event_id from stepbase.runs x where x.run_id = u.id offset 0) r
  order by o.run_id desc
"""

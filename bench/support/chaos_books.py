"""What the chaos benchmark asks the database: how things stand, what must hold, what became of each case."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from bench.support.chaos_functions import KEYED_LIMIT
from bench.support.chaos_shapes import Ran

from stepbase.demo.books import Connection

# What must hold at every commit: a name, and the rows that break it.
ALWAYS: Mapping[str, str] = {
    "live_has_future": """
        select r.run_id as subject, r.status as text from stepbase.runs r
          where r.ended_at is null
            and not exists (select from stepbase.queue q where q.run_id = r.run_id)
    """,
    "parked_has_open_step": """
        select q.run_id as subject, q.job as text from stepbase.queue q
          where q.due_at = 'infinity' and q.owner is null
            and not exists (
              select from stepbase.steps s where s.run_id = q.run_id
                and s.status in ('planned', 'sleeping', 'waiting', 'invoking')
            )
            and not exists (
              select from stepbase.queue a where a.run_id = q.run_id and a.job like 'after:%'
                and a.due_at is distinct from 'infinity'
            )
    """,
    "open_steps_have_items": """
        select s.run_id as subject, s.name || ' ' || s.status || ', items: ' || count(q.*) as text
          from stepbase.runs r
          join stepbase.steps s on s.run_id = r.run_id
           and s.status in ('planned', 'sleeping', 'waiting', 'invoking')
          left join stepbase.queue q on q.run_id = s.run_id
           and (q.job = s.hash or q.job = 'main' and q.kind = 'sleep' and q.step = s.hash)
          where r.ended_at is null
          group by s.run_id, s.hash, s.name, s.status
          having count(q.*) <> 1
    """,
    "ended_is_clean": """
        select r.run_id as subject, r.status || ' with ' || x.what as text
          from (
            select q.run_id, q.job as what from stepbase.queue q
              where q.kind <> 'match' and q.job not like 'refused:%'
            union all select p.run_id, 'pause ' || p.event_name from stepbase.pauses p
          ) x
          join stepbase.runs r on r.run_id = x.run_id
          where r.ended_at is not null
    """,
    "limits_hold": f"""
        select q.key_1 as subject, count(*) || ' calls at once' as text
          from stepbase.queue q where q.owner is not null and q.key_1 is not null
          group by q.key_1 having count(*) > {KEYED_LIMIT}
    """,
}

# What must hold when nothing is under way any more.
FINALLY: Mapping[str, str] = {
    "queue": "select run_id as subject, job || ' ' || kind as text from stepbase.queue",
    "pauses": "select run_id as subject, kind || ' ' || event_name as text from stepbase.pauses",
    "buffers": "select id as subject, kind || ' ' || key as text from stepbase.buffers",
    "outbox": "select id as subject, name || ' ' || coalesce(error, '') as text from stepbase.outbox",
    "open steps": """
        select run_id as subject, name || ' ' || status as text from stepbase.steps
          where status in ('planned', 'sleeping', 'waiting', 'invoking')
    """,
    "live runs": "select run_id as subject, status as text from stepbase.runs where ended_at is null",
    "steps without a run": """
        select s.run_id as subject, s.name as text from stepbase.steps s
          where not exists (select from stepbase.runs r where r.run_id = s.run_id)
    """,
}

_STANDING = """
select (select count(*) from stepbase.runs where ended_at is null) as live,
       (select count(*) from stepbase.runs) as runs,
       (select count(*) from stepbase.outbox) as outbox,
       (select count(*) from stepbase.buffers) as buffers,
       (select count(*) from stepbase.queue) as queue,
       (select coalesce(sum(gen), 0) from stepbase.queue) as moves,
       (select count(*) from public.chaos_effects) as effects
"""

_WAITING = """
select p.run_id, p.kind, p.event_name, e.payload #>> '{data,case}' as case_no
  from stepbase.pauses p
  join stepbase.runs r on r.run_id = p.run_id
  join stepbase.events e on e.id = r.event_id
  where p.kind <> 'cancel'
     or exists (select from stepbase.steps s where s.run_id = p.run_id and s.status = 'sleeping')
    and not exists (select from stepbase.steps s where s.run_id = p.run_id and s.status = 'planned')
"""

_RUNS = """
select r.run_id, f.slug, r.status, coalesce(r.output, r.error)::text as output,
       coalesce(e.payload #>> '{data,case}', e.payload #>> '{data,event,data,case}') as case_no,
       e.payload #>> '{data,part}' as part,
       coalesce(r.started_at < e.ts - interval '10 milliseconds', false) as is_early
  from stepbase.runs r
  join stepbase.functions f on f.function_id = r.function_id
  join stepbase.events e on e.id = r.event_id
"""

_EFFECTS = """
select case_no, name, count(*) as n from public.chaos_effects group by 1, 2
union all select case_no, name, count(*) from public.chaos_rows group by 1, 2
"""

# Lets schedules fire now, for an instant that never was before: none that is about to fire by itself. Each
# is noted in the same transaction, so that a repetition changes nothing.
_STRIKE_CLOCK = """
with struck as (
  update stepbase.crons c
    set scheduled_at = $1, next_at = stepbase.now()
    from stepbase.functions f
    where f.function_id = c.function_id and c.scheduled_at is not null
      and c.next_at > stepbase.now() + interval '1 minute'
      and not exists (
        select from public.chaos_strikes s where s.slug = f.slug and s.instant = $1
      )
    returning f.slug
)
insert into public.chaos_strikes (slug, instant) select struck.slug, $1 from struck
"""

_STRUCK = """
select slug || ' ' || to_char(instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as name
  from public.chaos_strikes
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits for something from outside: an event, a signal, or an event that cancels it."""

    run_id: str
    kind: str
    event_name: str
    case: int


class Books:
    """Questions to the database, asked again if it is away."""

    def __init__(self, database: Connection) -> None:
        self._database = database
        self._struck = 0

    async def standing(self) -> dict[str, int]:
        """Return how much of everything there is."""
        [row] = await self._database.run((_STANDING,))
        return dict(row)

    async def waiting(self) -> list[Waiting]:
        """Return what waits for something from outside."""
        rows = await self._database.run((_WAITING,))
        return [
            Waiting(row["run_id"], row["kind"], row["event_name"], int(row["case_no"]))
            for row in rows
            if row["case_no"] is not None
        ]

    async def broken(self, rules: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """Return what breaks a rule: (rule, subject, text)."""
        found = []
        for name, sql in rules.items():
            for row in await self._database.run((sql,)):
                found.append((name, str(row["subject"]), str(row["text"])))
        return found

    async def emit(self, name: str, data: Mapping[str, object], id_: str, ts_ms: int) -> None:
        """Put an event into the outbox."""
        await self._database.run(
            (
                "select stepbase.emit($1, $2::jsonb, $3, to_timestamp($4::double precision / 1000))",
                name,
                json.dumps(data),
                id_,
                ts_ms,
            )
        )

    async def strike_clock(self) -> None:
        """Have the schedules fire that do not just do so."""
        self._struck += 1
        instant = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(minutes=self._struck)
        await self._database.run((_STRIKE_CLOCK, instant), ("select pg_notify('stepbase', 'c')",))

    async def struck(self) -> list[str]:
        """Return which schedules were to fire, with their instants, as their functions note them."""
        return [str(row["name"]) for row in await self._database.run((_STRUCK,))]

    async def runs(self) -> dict[int, list[Ran]]:
        """Return all runs by the number of their case."""
        found: dict[int, list[Ran]] = defaultdict(list)
        for row in await self._database.run((_RUNS,)):
            if row["case_no"] is None:
                continue
            part = row["part"]
            found[int(row["case_no"])].append(
                Ran(
                    row["run_id"],
                    row["slug"],
                    row["status"],
                    json.loads(row["output"]) if row["output"] is not None else None,
                    int(part) if part is not None else None,
                    row["is_early"],
                )
            )
        return found

    async def effects(self) -> dict[int, Counter[str]]:
        """Return how often each effect happened, by the number of its case."""
        found: dict[int, Counter[str]] = defaultdict(Counter)
        for row in await self._database.run((_EFFECTS,)):
            found[row["case_no"]][row["name"]] += row["n"]
        return found


async def keep_rows(dsn: str, folder: Path, cases: Sequence[int], runs: Sequence[str]) -> None:
    """Write every row about some cases and runs, for a person to understand what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = await asyncpg.connect(dsn)
    try:
        events = await connection.fetch(
            "select * from stepbase.events where coalesce(payload #>> '{data,case}',"
            " payload #>> '{data,event,data,case}') = any ($1)",
            [str(case) for case in cases],
        )
        ids = {row["id"] for row in events}
        found = await connection.fetch(
            "select r.*, f.slug from stepbase.runs r join stepbase.functions f using (function_id)"
            " where r.run_id = any ($1) or r.event_id = any ($2) or r.event_ids && $2",
            list(runs),
            list(ids),
        )
        mine = [row["run_id"] for row in found]
        tables: dict[str, Sequence[Any]] = {"events": events, "runs": found}
        for table in ("steps", "attempts", "queue", "pauses"):
            tables[table] = await connection.fetch(
                f"select * from stepbase.{table} where run_id = any ($1)", mine
            )
        tables["not_started"] = await connection.fetch(
            "select * from stepbase.not_started where event_id = any ($1)", list(ids)
        )
        tables["effects"] = await connection.fetch(
            "select * from public.chaos_effects where case_no = any ($1) order by id", list(cases)
        )
        for name, rows in tables.items():
            lines = [json.dumps(dict(row), default=str)[:3000] for row in rows]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    finally:
        await connection.close()

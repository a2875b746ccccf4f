"""Event types: the names seen or listened to, their schemas, who listens to each and who sends it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from starlette.requests import Request

from stepbase.console import form
from stepbase.console.page import Desk, Page, not_found
from stepbase.console.pages.events import fits
from stepbase.protocol import names as words

_NAMES = 500
_LAST = 20
_RUNS = 5


@dataclass(slots=True)
class EventType:
    """What is known of the events of a name.

    Attributes:
        last: When one came, or None.
        listeners: Functions that they start, each with its condition or None.
        cancels: Functions whose runs they cancel.
        schemas: What functions tell of their data: `function`, `model`, `schema` or `note`.
        senders: Who sends them, in words, with a link or None.
    """

    name: str
    last: datetime | None = None
    listeners: list[tuple[str, str | None]] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    schemas: list[dict[str, object]] = field(default_factory=list)
    senders: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def is_own(self) -> bool:
        """Whether the engine itself sends them."""
        return self.name.startswith(words.INTERNAL_PREFIX)

    @property
    def models(self) -> list[str]:
        """The classes of their data, each once."""
        return list(dict.fromkeys(str(each["model"]) for each in self.schemas))

    def data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "name": self.name,
            "last": self.last,
            "functions": [slug for slug, _ in self.listeners],
            "cancels": self.cancels,
            "models": self.models,
            "senders": [said for said, _ in self.senders],
        }


async def types(desk: Desk, request: Request) -> Page:
    """List the names of events."""
    rows = await desk.reads.all(_NAMES_SEEN, _NAMES)
    seen = {row["name"]: row["last"] for row in rows}
    known = sorted({*seen, *_named(desk)})
    found = await _types(desk, known, seen)
    shown = {"types": found, "is_cut": len(rows) == _NAMES, "most": _NAMES}
    return Page(
        "event-types.html", "Event types", shown, {"event_types": [t.data() for t in found]}
    )


async def event_type(desk: Desk, request: Request) -> Page:
    """Show one: its schema, who listens to it, who sends it, its last events."""
    name = request.path_params["name"]
    rows = await desk.reads.all(_EVENTS, name, _LAST)
    if not rows and name not in _named(desk):
        return not_found(
            f"There is no event {name}", "None of that name came, and no function listens to it."
        )
    [found] = await _types(desk, [name], {name: rows[0]["received_at"] if rows else None})
    schemas = [
        {**each, "text": _pretty(each.get("schema")), "fields": _fields(each.get("schema"))}
        for each in found.schemas
    ]
    shown = {"type": found, "events": rows, "schemas": schemas}
    data = {**found.data(), "schemas": found.schemas, "events": rows}
    return Page("event-type.html", name, shown, data)


async def _types(
    desk: Desk, known: Iterable[str], seen: Mapping[str, datetime | None]
) -> list[EventType]:
    found = {name: EventType(name, seen.get(name)) for name in known}
    for function in desk.engine.registry.functions.by_id.values():
        if function.is_archived:
            continue
        slug, config = function.config.slug, function.config
        for each in found.values():
            for trigger in config.triggers:
                if fits(trigger.event, each.name):
                    each.listeners.append((slug, trigger.expression))
            each.cancels += [slug for cancel in config.cancels if cancel.event == each.name]
    for row in await desk.reads.all(_SCHEMAS, list(found)):
        told = json.loads(row["told"])
        if isinstance(told, dict):
            found[row["event"]].schemas.append({"function": row["function"], **told})
    await _add_senders(desk, found)
    for each in found.values():
        each.listeners.sort(key=lambda one: one[0])
    return list(found.values())


async def _add_senders(desk: Desk, found: Mapping[str, EventType]) -> None:
    for row in await desk.reads.all(_ROW_TRIGGERS, list(found)):
        condition = f" when {row['condition']}" if row["condition"] else ""
        found[row["event"]].senders.append((f"table {row['table']}{condition}", None))
    tracked = {name for name, each in found.items() if each.senders}
    for row in await desk.reads.all(_SENT_BY, list(found), _RUNS):
        link = f"/functions/{row['function']}"
        found[row["event"]].senders.append((row["function"], link))
    for row in await desk.reads.all(_SOURCES, list(found), _LAST):
        each = found[row["name"]]
        if each.is_own:
            each.senders.append(("the engine", None))
            continue
        if row["by_app"]:
            each.senders.append(("your app, over HTTP", None))
        if row["by_outbox"] and each.name not in tracked:
            each.senders.append(("stepbase.emit in SQL", None))


def _named(desk: Desk) -> set[str]:
    """Return the names that functions listen to, or are cancelled by; patterns too."""
    return {
        name
        for each in desk.engine.registry.functions.by_id.values()
        if not each.is_archived
        for name in (
            *(trigger.event for trigger in each.config.triggers),
            *(cancel.event for cancel in each.config.cancels),
        )
        if name
    }


def _fields(schema: object) -> list[form.Control]:
    return form.flat(form.controls(schema) or ()) if isinstance(schema, dict) else []


def _pretty(schema: object) -> str:
    return "" if schema is None else json.dumps(schema, indent=2, ensure_ascii=False)


# Between a name and itself: said as equal, a rare name would be looked for among all events, by their ids.
_NAMES_SEEN = """
with recursive names as (
  (select e.name, 1 as n from stepbase.events e order by e.name limit 1)
  union all
  select (select e.name from stepbase.events e where e.name > s.name order by e.name limit 1), s.n + 1
    from names s where s.name is not null and s.n < $1
)
select s.name, l.received_at as last
  from names s
  cross join lateral (
    select e.received_at from stepbase.events e
      where e.name between s.name and s.name order by e.name desc, e.id desc limit 1) l
  where s.name is not null
"""
_EVENTS = """
select e.id, e.event_id, e.source, e.received_at from stepbase.events e
  where e.name = $1 order by e.id desc limit $2
"""
# Functions are few: a row each, of which only the names are read.
_SCHEMAS = """
select f.slug as function, n.name as event, (f.schemas -> n.name)::text as told
  from stepbase.functions f cross join unnest($1::text[]) as n (name)
  where f.archived_at is null and f.schemas is not null and f.schemas -> n.name is not null
  order by f.slug limit 1000
"""
_ROW_TRIGGERS = """
select r.event, r.table_id::regclass::text as table, r.condition
  from stepbase.row_triggers r where r.event = any ($1::text[]) order by 1, 2 limit 1000
"""
# A step that sends keeps the events' internal ids as its result. Looked at: the last runs of each function.
_SENT_BY = r"""
select distinct f.slug as function, e.name as event
  from stepbase.functions f
  cross join lateral (
    select r.run_id from stepbase.runs r where r.function_id = f.function_id order by r.run_id desc limit $2
  ) r
  cross join lateral (
    select s.memo from stepbase.steps s
      where s.run_id = r.run_id and s.op = 'StepRun' and s.status = 'done'
        and s.memo::text ~ '^.{0,40}"0[0-9A-Z]{25}"' and s.memo::text not like '%\u0000%'
      limit 50
  ) s
  cross join lateral (
    select i.id from json_array_elements_text(
      case when json_typeof(s.memo -> 'data') = 'array' then s.memo -> 'data'
           when json_typeof(s.memo #> '{data,ids}') = 'array' then s.memo #> '{data,ids}' end
    ) as i (id) where i.id ~ '^0[0-9A-Z]{25}$' limit 5
  ) i
  -- Apart, or it would be read by name: all events there are.
  cross join lateral (select x.name from stepbase.events x where x.id = i.id offset 0) e
  where f.archived_at is null and e.name = any ($1::text[])
  order by 1, 2 limit 1000
"""
# Ids of the fifth version are those that our steps give what they send.
_SOURCES = """
select n.name, bool_or(e.source = 'outbox') as by_outbox,
       bool_or(e.source <> 'outbox' and substr(coalesce(e.event_id, ''), 15, 1) <> '5') as by_app
  from unnest($1::text[]) as n (name)
  cross join lateral (
    select x.source, x.event_id from stepbase.events x
      where x.name between n.name and n.name order by x.name desc, x.id desc limit $2
  ) e
  group by n.name
"""

"""Reads the views that dashboards read, in one read-only transaction each."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from stepbase import clock
from stepbase.database.dberrors import translated
from stepbase.errors import StoreError
from stepbase.history import search

Row = dict[str, Any]

TIMEOUT = "30s"
"""How long a statement may take: whoever asks too much is told to narrow it."""

SEARCH_SECONDS = 10.0
"""How long a search for runs goes on."""

_NO_SCHEMA = ("3F000", "42P01", "42703", "42883")
_RUN = (
    "run_id, function, status, event, event_id, cause, created_at, started_at, ended_at, age_ms::float8, "
    "steps, failed_attempts, waits, error::text, parent_run, original_run_id"
)
_RUNS = (
    f"select {_RUN} from unnest($1::text[]) as u (id) cross join lateral"
    " (select * from stepbase.run_overview x where x.run_id = u.id offset 0) o order by run_id desc"
)


@dataclass(slots=True)
class _Where:
    """Conditions of a statement, with their arguments; only those that are asked for."""

    conditions: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def add(self, condition: str, argument: object) -> None:
        """Add a condition in which `$` stands for the argument, if there is one."""
        if argument is not None:
            self.arguments.append(argument)
            self.conditions.append(condition.replace("$", f"${len(self.arguments)}"))

    def __str__(self) -> str:
        return f" where {' and '.join(self.conditions)}" if self.conditions else ""


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list; None: everything.

    Attributes:
        before: Only what is older than this id (a run's, or an event's internal one).
        since: Only what is newer; ids sort by time.
    """

    limit: int = 20
    before: str | None = None
    since: datetime | None = None
    name: str | None = None
    status: str | None = None
    function: str | None = None
    only_not_started: bool = False


class NotFoundError(LookupError):
    """There is no such run or function; the message says what there is."""


@asynccontextmanager
async def reading(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Open a connection in a read-only transaction, through whatever pooler; all of it sees one moment.

    Raises:
        StoreError: If the database cannot be reached or has no stepbase in it; the message says what to do.
    """
    async with (
        connected(url) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(f"set local statement_timeout = '{TIMEOUT}'")
        yield connection


@asynccontextmanager
async def connected(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Open a connection; as `reading`, but for whoever writes."""
    try:
        with translated():
            # No prepared statements: a transaction pooler may sit in between.
            connection = await asyncpg.connect(url, timeout=15, statement_cache_size=0)
            try:
                yield connection
            finally:
                connection.terminate()
    except StoreError as error:
        raise explained(error) from error
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise StoreError(
            f"not a database URL: {error}", sqlstate=None, is_transient=False
        ) from error


def explained(error: StoreError) -> StoreError:
    """Say what to do about an error of the database."""
    code = error.sqlstate or ""
    hint = ""
    if code in _NO_SCHEMA:
        hint = "; has this database stepbase in it, of this version? stepbase db apply brings it up to date"
    elif code == "42501":
        hint = "; connect as the owner of schema stepbase (postgres), or as service_role to look"
    elif code == "57014":
        hint = f"; it took longer than {TIMEOUT}: narrow it with --since, --function or --limit"
    elif code == "3D000":
        hint = "; is the name at the end of the URL right?"
    elif code in ("28P01", "28000"):
        hint = "; is the user name and password in the URL right?"
    return StoreError(f"{error}{hint}", sqlstate=error.sqlstate, is_transient=error.is_transient)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs, newest first; `older` and `until` are set if the search gave up before it found all it may."""

    rows: list[Row]
    older: str | None = None
    until: datetime | None = None


async def list_runs(url: str, wanted: Filter, seconds: float = SEARCH_SECONDS) -> Runs:
    """Return runs, newest first: what was found after so many seconds, and how far back that was.

    Raises:
        StoreError: As `reading`.
        NotFoundError: If there is no such function.
    """
    async with reading(url) as db:
        # Look-ups by key, whatever the statistics of a queue say at the moment.
        await db.execute(
            "set local enable_seqscan = off; set local enable_hashjoin = off;"
            " set local enable_mergejoin = off; set local jit = off"
        )
        looked_for = search.Wanted(
            status=wanted.status or "",
            function=None if wanted.function is None else await _function_id(db, wanted.function),
            event=wanted.name or "",
            since=wanted.since,
            before=wanted.before or "",
        )
        give_up = clock.monotonic() + seconds
        hits = await search.find_on(
            db.fetch, looked_for, wanted.limit, lambda: clock.monotonic() < give_up
        )
        rows = _rows(await db.fetch(_RUNS, hits.ids))
    is_cut = len(rows) < wanted.limit and hits.older is not None
    return Runs(rows, hits.older, hits.until) if is_cut else Runs(rows)


async def trace(url: str, run_id: str) -> dict[str, Any]:
    """Return all there is to see of a run: `run`, `timeline`, `waits`, `invoked` (runs its steps called).

    Raises:
        StoreError: As `reading`.
        NotFoundError: If there is no such run.
    """
    async with reading(url) as db:
        found = await db.fetch(
            f"select {_RUN}, output::text from stepbase.run_overview where run_id = $1", run_id
        )
        if not found:
            raise NotFoundError(
                f"there is no run {run_id!r}: stepbase runs lists them; it may have been deleted by its age"
            )
        timeline = await db.fetch(
            "select at, what, name, status, attempt, ms::float8, error::text, op"
            " from stepbase.run_timeline where run_id = $1",
            run_id,
        )
        waits = await db.fetch(
            "select step, waits_for, what, since, until, attempt from stepbase.waiting_runs"
            " where run_id = $1 order by until",
            run_id,
        )
        invoked = await db.fetch(
            "select run_id, function, status, age_ms::float8 from stepbase.run_overview"
            " where parent_run = $1 order by run_id",
            run_id,
        )
    return {
        "run": _rows(found)[0],
        "timeline": _rows(timeline),
        "waits": _rows(waits),
        "invoked": _rows(invoked),
    }


async def list_events(url: str, wanted: Filter, event_id: str | None = None) -> list[Row]:
    """Return events, newest first, with what each started, or why not; or those with an id.

    Raises:
        StoreError: As `reading`.
    """
    async with reading(url) as db:
        where = _Where()
        where.add("id < $", wanted.before)
        where.add("id >= $", wanted.since and search.floor_of(wanted.since))
        where.add("name = $", wanted.name)
        if event_id is not None:
            where.add("(id = $ or event_id = $)", event_id)
        if wanted.only_not_started:
            where.conditions.append("started is null")
        sql = (
            "select id, event_id, name, received_at, source, started, not_started"
            f" from stepbase.event_overview{where} order by id desc limit {wanted.limit:d}"
        )
        return _rows(await db.fetch(sql, *where.arguments))


async def _function_id(db: "asyncpg.Connection[asyncpg.Record]", slug: str) -> UUID:
    rows = await db.fetch("select slug, function_id from stepbase.functions order by slug")
    by_slug = {row["slug"]: row["function_id"] for row in rows}
    if slug not in by_slug:
        there = ", ".join(list(by_slug)[:20]) or "none: has an app been synced with this database?"
        raise NotFoundError(f"there is no function {slug!r}; there are {there}")
    found: UUID = by_slug[slug]
    return found


def _rows(records: "Sequence[asyncpg.Record]") -> list[Row]:
    return [dict(record) for record in records]

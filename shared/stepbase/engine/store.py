"""The engine's only SQL: one method per SQL function, values in, rows out. What only reads: `reads.py`."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Self
from uuid import UUID

import asyncpg

from stepbase.database.connections import Connections
from stepbase.database.dberrors import translated
from stepbase.engine.effects import FailedAttempt, NewPause, Settlement, StepRow
from stepbase.engine.lanes import Lane
from stepbase.engine.reads import Reads
from stepbase.engine.schedule import Move
from stepbase.engine.starts import Ingest, Rerun, Start
from stepbase.engine.turns import Turns
from stepbase.engine.upkeep import Upkeep
from stepbase.errors import StoreError
from stepbase.protocol import names

SCHEMA_VERSION = 1
STALE = "SB101"
TAKEN = "SB102"

_log = logging.getLogger("stepbase.engine.store")


@dataclass(frozen=True, slots=True)
class Settled:
    """What `settle` says of one call: applied, already or lost; the gen to go on with; and, where the
    lease is kept, how many steps of the run are closed."""

    outcome: str
    gen: int
    step_count: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Tick:
    """What there is to do: seconds until the next timer (None: no timer), ready items, outbox rows, and
    seconds until the next schedule fires and the next buffer is due (None: there is none).

    Items that wait in lanes are apart: there may be no place for them.
    """

    seconds: float | None
    has_ready: bool
    has_lanes: bool
    has_outbox: bool
    cron_seconds: float | None = None
    buffer_seconds: float | None = None

    @classmethod
    def of(cls, row: "asyncpg.Record") -> Self:
        """Read what `stepbase.tick` returned."""
        return cls(
            row["seconds"],
            row["has_ready"],
            row["has_lanes"],
            row["has_outbox"],
            row["cron_seconds"],
            row["buffer_seconds"],
        )


@dataclass(frozen=True, slots=True)
class Settling:
    """One call to settle: whose item it is, and what to write.

    Attributes:
        called: Seconds the call took, or None if the function was not reached.
        finish: Seconds from the first call until the run must end, or None.
        woken: Hash of the sleeping step that this call woke, or None.
    """

    run_id: str
    job: str
    gen: int
    effects: Settlement
    called: float | None
    finish: float | None
    woken: str | None


@dataclass(frozen=True, slots=True)
class PutBack:
    """A call to be put back: where it waits from now on, and the place of its run, or None."""

    run_id: str
    job: str
    gen: int
    lane: Lane
    place: str | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Finished steps of a call in flight; gen 0 means "whatever it is now"."""

    run_id: str
    job: str
    gen: int
    steps: tuple[StepRow, ...]


class Store(Reads, Upkeep):
    """A few connections to the engine's database; safe for concurrent use."""

    def __init__(self, connections: Connections, owner: str, lease: timedelta) -> None:
        self._connections = connections
        self.owner = owner
        self.lease_time = lease

    @classmethod
    async def open(cls, dsn: str, *, owner: str, lease: timedelta, size: int = 6) -> Self:
        """Connect, and check that the schema is one this engine knows.

        Raises:
            StoreError: If the database is away, has no stepbase schema, or another version of it.
        """
        store = cls(Connections(dsn, size=size, name="stepbase engine"), owner, lease)
        try:
            await store._check_schema()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close every connection; gives up waiting after five seconds."""
        await self._connections.close(5)

    async def _check_schema(self) -> None:
        try:
            version = (await self._fetch("select version from stepbase.schema_version"))[0][0]
        except StoreError as error:
            if error.sqlstate in ("42P01", "3F000"):
                raise StoreError(
                    "this database has no stepbase schema: apply the migrations first "
                    "(stepbase db apply, or supabase db push)",
                    sqlstate=error.sqlstate,
                    is_transient=False,
                ) from error
            raise
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"the stepbase schema has version {version}, this engine knows {SCHEMA_VERSION}: "
                "apply the migrations that belong to this version of stepbase, or upgrade the engine",
                sqlstate=None,
                is_transient=False,
            )

    async def _fetch(self, sql: str, *args: object) -> "list[asyncpg.Record]":
        with translated():
            return await self._connections.fetch(sql, *args)

    async def register_app(
        self,
        app_id: UUID,
        name: str,
        url: str,
        sdk: str,
        framework: str,
        checksum: str,
        functions: Sequence[tuple[UUID, str, str, str, str]],
        schemas: Sequence[str] | None = None,
    ) -> tuple[UUID, bool]:
        """Store an app with exactly these functions; return (id, modified).

        A function is (id, slug, name, config, limits), the last two as JSON text; `schemas` are those of
        its events, one JSON text each, or None to keep what is known.
        """
        ids, slugs, titles, configs, flows = _columns(functions, 5)
        rows = await self._fetch(
            "select * from stepbase.register_app($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            app_id, name, url, sdk, framework, checksum, ids, slugs, titles, configs, flows, schemas,
        )  # fmt: skip
        return rows[0]["app_id"], rows[0]["modified"]

    async def note_sync_error(
        self, name: str | None, url: str | None, code: str, error: str
    ) -> None:
        """Note why a sync of the apps of a name, or at a URL, failed."""
        await self._fetch("select stepbase.note_sync_error($1, $2, $3, $4)", name, url, code, error)

    async def remove_apps(self, names: Sequence[str]) -> list[str]:
        """Archive apps; return the names of those that were not archived yet."""
        rows = await self._fetch("select stepbase.remove_apps($1) as name", list(names))
        return [row["name"] for row in rows]

    async def pause_function(self, slug: str, *, is_paused: bool) -> bool:
        """Pause a function, or let it go on; return whether there is such a function."""
        rows = await self._fetch("select stepbase.pause_function($1, $2) as found", slug, is_paused)
        found: bool = rows[0]["found"]
        return found

    async def load_functions(self) -> "list[asyncpg.Record]":
        """Return the epoch with every function; one row with nulls if there is no function."""
        return await self._fetch("select * from stepbase.load_functions()")

    async def ingest(self, epoch: int, batch: Ingest) -> "list[asyncpg.Record]":
        """Store events and start runs; rows (start, run_id, is_leased, gen) for those with a run.

        Raises:
            StoreError: With sqlstate SB101 if the functions have changed since `epoch`.
        """
        events = _columns(
            [
                (e.id, e.event_id, e.name, e.payload, e.ts, e.source, e.outbox_id)
                for e in batch.events
            ],
            7,
        )
        starts = _columns([_start_row(s) for s in batch.starts], 13)
        waits = _sparse(
            [
                (i, p.hash, p.event_name, p.wait.path, p.wait.value, p.wait.residual, p.expires)
                for i, start in enumerate(batch.starts, 1)
                for p in start.pauses
            ],
            7,
        )
        rules = _sparse(
            [
                (i, r.name, r.key, r.limit, r.period, r.ends)
                for i, start in enumerate(batch.starts, 1)
                for r in start.rules
            ],
            6,
        )
        buffers = _sparse(
            [
                (i, b.id, b.gen, ",".join(b.event_ids) or None)
                for i, start in enumerate(batch.starts, 1)
                if (b := start.buffer) is not None
            ],
            4,
        )
        return await self._fetch(
            _INGEST, epoch, self.owner, self.lease_time,
            *events, *starts, *waits, *rules, *buffers,
        )  # fmt: skip

    async def take_buffers(self, count: int) -> "list[asyncpg.Record]":
        """Take due buffers: (id, gen, function_id, kind, event_ids, payloads)."""
        return await self._fetch(
            "select * from stepbase.take_buffers($1, $2)", count, self.lease_time
        )

    async def next_buffer(self) -> float | None:
        """Return the seconds until a buffer is due, or None."""
        rows = await self._fetch("select stepbase.next_buffer() as seconds")
        seconds: float | None = rows[0]["seconds"]
        return seconds

    @cached_property
    def turns(self) -> Turns:
        """Where this engine is in the lanes."""
        return Turns()

    async def lease(self, count: int, freed: Collection[str] = ()) -> "list[asyncpg.Record]":
        """Lease up to `count` items, first from the lanes in which calls were `freed`; see `turns`."""
        rows = await self._fetch(
            "select * from stepbase.lease($1, $2, $3, $4, $5)",
            self.owner, count, self.lease_time, self.turns.last, list(freed),
        )  # fmt: skip
        return self.turns.take(rows)

    async def tick(self, idle: timedelta | None) -> Tick:
        """Ask what there is to do; with `idle`, have outbox writers notify us for that long."""
        row = (await self._fetch("select * from stepbase.tick($1)", idle))[0]
        return Tick.of(row)

    async def due_crons(self, limit: int) -> "list[asyncpg.Record]":
        """Return schedules that are due, with the database's time (`looked_at`)."""
        return await self._fetch("select * from stepbase.due_crons($1)", limit)

    async def fire_crons(self, moves: Sequence[Move]) -> int:
        """Move schedules on and send their events; return how many this call moved."""
        columns = _columns(
            [
                (
                    m.function_id,
                    m.n,
                    m.spec,
                    m.was,
                    m.scheduled_at,
                    m.fire_at,
                    m.event_id,
                    m.payload,
                )
                for m in moves
            ],
            8,
        )
        rows = await self._fetch(
            "select stepbase.fire_crons($1, $2, $3, $4, $5, $6, $7, $8, $9) as count",
            *columns[:7], names.EVENT_SCHEDULED, columns[7],
        )  # fmt: skip
        count: int = rows[0]["count"]
        return count

    async def wake_engines(self) -> None:
        """Tell every engine that there are ready items."""
        await self._fetch("select pg_notify('stepbase', 'q')")

    async def extend(self, items: Sequence[tuple[str, str, int]]) -> "set[tuple[str, str]]":
        """Prolong leases (run, job, gen); return those (run, job) that are no longer ours."""
        rows = await self._fetch(
            "select * from stepbase.extend($1, $2, $3, $4, $5)",
            self.owner, self.lease_time, *_columns(items, 3),
        )  # fmt: skip
        return {(row["run_id"], row["job"]) for row in rows}

    async def settle(self, batch: Sequence[Settling]) -> list[Settled]:
        """Write the effects of a batch of calls, in one transaction; one answer per call, in order."""
        rows = await self._fetch(
            _SETTLE,
            self.owner,
            self.lease_time,
            *_sparse([_call_row(each) for each in batch], 18),
            *_sparse(_nested(batch, lambda e: [_step_row(s) for s in e.steps]), 9),
            *_sparse(_nested(batch, _failed_rows), 5),
            *_sparse(
                _nested(batch, lambda e: [(i.hash, i.kind, i.due, i.delay) for i in e.items]), 5
            ),
            *_sparse(_nested(batch, lambda e: [_pause_row(p) for p in e.pauses]), 10),
            *_sparse(
                _nested(batch, lambda e: [(o.hash, o.id, o.name, o.payload) for o in e.events]), 5
            ),
        )
        answers = {
            row["call"]: Settled(row["outcome"], row["gen"], row["step_count"]) for row in rows
        }
        return [answers[i] for i in range(1, len(batch) + 1)]

    async def move(self, epoch: int, batch: Sequence[PutBack]) -> None:
        """Put calls back, ready, in other lanes; what is no longer ours stays as it is.

        Raises:
            StoreError: With sqlstate SB101 if the functions have changed since `epoch`.
        """
        rows = [(m.run_id, m.job, m.gen, m.lane.name, *m.lane.keys, m.place) for m in batch]
        await self._fetch(_call("move", 9), epoch, self.owner, *_columns(rows, 7))

    async def checkpoint(self, batch: Sequence[Checkpoint]) -> list[bool]:
        """Store steps of calls in flight; True for each that is still leased as it says."""
        steps = [(i, *_step_row(step)) for i, each in enumerate(batch, 1) for step in each.steps]
        rows = await self._fetch(
            _CHECKPOINT,
            self.lease_time,
            *_columns([(each.run_id, each.job, each.gen) for each in batch], 3),
            *_columns(steps, 9),
        )
        outcomes = {row["call"]: row["outcome"] == "stored" for row in rows}
        return [outcomes[i] for i in range(1, len(batch) + 1)]

    async def signal(self, name: str, data: str) -> str | None:
        """Give a signal (data is JSON text); return the run that waited for it, or None."""
        rows = await self._fetch("select stepbase.signal($1, $2) as run_id", name, data)
        run_id: str | None = rows[0]["run_id"]
        return run_id

    async def cancel(self, run_ids: Sequence[str], cause: str) -> list[str]:
        """Cancel live runs; return the ids of those this call ended. `cause` is JSON text."""
        rows = await self._fetch("select stepbase.cancel($1, $2) as id", list(run_ids), cause)
        return [row["id"] for row in rows]

    async def rerun(self, wanted: Rerun) -> str:
        """Start a run again; return "started", or why not: "unknown", "live" or "no step"."""
        pauses = [
            (p.hash, p.event_name, p.wait.path, p.wait.value, p.wait.residual, p.expires)
            for p in wanted.pauses
        ]
        rows = await self._fetch(
            "select stepbase.rerun($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"
            " $13, $14, $15, $16) as outcome",
            wanted.old, wanted.run_id, wanted.version, wanted.deadline, list(wanted.steps),
            wanted.input, wanted.priority, wanted.lane.name, *wanted.lane.keys, *_columns(pauses, 6),
        )  # fmt: skip
        outcome: str = rows[0]["outcome"]
        return outcome


def _start_row(s: Start) -> tuple[object, ...]:
    return (
        s.event, s.run_id, s.function_id, s.version, s.key, s.due, s.deadline, s.is_direct, s.parent,
        s.priority, s.lane.name, *s.lane.keys,
    )  # fmt: skip


def _call_row(each: Settling) -> tuple[object, ...]:
    e = each.effects
    return (
        each.run_id, each.job, each.gen, e.verdict.value, e.due, e.delay, e.attempt, e.kind, e.step,
        e.status, e.output, e.error, e.version, each.called, e.is_outage or None, each.finish, each.woken,
        e.planning or None,
    )  # fmt: skip


def _nested(
    batch: Sequence[Settling], rows: Callable[[Settlement], Sequence[tuple[object, ...]]]
) -> list[tuple[object, ...]]:
    """Return the rows that belong to calls, each with the place of its call in front, from 1."""
    return [(i, *row) for i, each in enumerate(batch, 1) for row in rows(each.effects)]


def _step_row(s: StepRow) -> tuple[object, ...]:
    return (s.hash, s.name, s.op, s.status, s.memo, s.attempt, s.began, s.ended)


def _failed_rows(effects: Settlement) -> list[tuple[object, ...]]:
    found = effects.tried if effects.failed is None else (effects.failed, *effects.tried)
    return [_failed_row(each) for each in found]


def _failed_row(f: FailedAttempt) -> tuple[object, ...]:
    return (f.hash, f.attempt, f.http_status, f.error)


def _pause_row(p: NewPause) -> tuple[object, ...]:
    w = p.wait
    return (
        p.hash, p.kind, p.event_name, w.path, w.value, w.residual, p.expires, p.look_back, p.replaces
    )  # fmt: skip


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    """Turn rows into the column arrays the SQL functions take."""
    return (
        [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
    )


def _sparse(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object] | None]:
    """The same, with null for a column of nulls: most are, and each array costs both sides a µs."""
    columns = zip(*rows, strict=True) if rows else [()] * width
    return [list(each) if any(v is not None for v in each) else None for each in columns]


def _call(name: str, count: int) -> str:
    return f"select * from stepbase.{name}({', '.join(f'${i}' for i in range(1, count + 1))})"


_INGEST = _call("ingest", 40)
_SETTLE = _call("settle", 54)
_CHECKPOINT = _call("checkpoint", 13)

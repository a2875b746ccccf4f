"""The engine's SQL functions on one connection, called as the engine calls them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal
from uuid import UUID

import asyncpg

from stepbase.engine.effects import FailedAttempt, Settlement, StepRow, Verdict
from stepbase.engine.match import Wait
from stepbase.engine.rules import Rule, rules_for
from stepbase.engine.starts import Buffered, Event, Function, Ingest, Pause, Start
from stepbase.engine.store import Settled, Settling, Store
from stepbase.protocol.ids import hash_step_id, ulid
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.start_rules import Batch, Debounce, RateLimit, Singleton, StartRules
from stepbase.protocol.sync import FunctionConfig

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FUNCTION_ID = UUID(int=1)
LEASE = timedelta(seconds=30)

_ids = count(1)


def new_id() -> str:
    """Return a ULID above all those before it in this process."""
    return ulid(1_795_000_000_000, next(_ids).to_bytes(10, "big"))


def id_at(seconds: float) -> str:
    """Return a ULID made so many seconds after noon."""
    made = int((NOON + timedelta(seconds=seconds)).timestamp() * 1000)
    return ulid(made, next(_ids).to_bytes(10, "big"))


def function(number: int = 1, **config: Any) -> Function:
    """Return a function; the SQL side knows it by its id alone."""
    slug = f"app-f{number}"
    return Function(
        UUID(int=number), "app", 1, FunctionConfig(slug, slug, "http://x", (), **config)
    )


def event(
    name: str = "app/f",
    data: Mapping[str, object] | None = None,
    *,
    event_id: str | None = None,
    outbox_id: str | None = None,
    internal_id: str | None = None,
) -> Event:
    """Return an event as the intake makes it."""
    internal_id = internal_id or new_id()
    parsed = {
        "data": dict(data or {}),
        "id": event_id or internal_id,
        "name": name,
        "ts": 1_795_000_000_000,
        "user": {},
    }
    return Event(
        internal_id, event_id, name, dumps(parsed), parsed, NOON, "api", outbox_id=outbox_id
    )


def pause(
    event_name: str,
    path: str = "",
    value: object = None,
    residual: str | None = None,
    expires: float = 365 * 86_400.0,
) -> Pause:
    """Return a cancel_on of a start."""
    wait = Wait(path, dumps(value), residual)
    return Pause(hash_step_id(f"{event_name}{path}{value}"), event_name, wait, expires)


def start(place: int = 1, **changes: Any) -> Start:
    """Return a start of the event at `place` (from 1)."""
    values: dict[str, Any] = {
        "event": place,
        "run_id": new_id(),
        "function": function(),
        "key": None,
        "due": None,
        "deadline": None,
        "pauses": (),
        **changes,
    }
    return Start(**values)


def rate(limit: int, seconds: float, key: str = "k") -> Rule:
    """Return a rate limit as the engine works it out."""
    [rule] = rules_for(FUNCTION_ID, StartRules(rate=RateLimit(limit, seconds, key)), {}, _as_is)
    return rule


def once(key: str) -> Rule:
    """Return an idempotency rule with this key."""
    [rule] = rules_for(FUNCTION_ID, StartRules(once=key), {}, _as_is)
    return rule


def singleton(key: str = "k", mode: Literal["skip", "cancel"] = "skip") -> Rule:
    """Return a singleton rule with this key."""
    [rule] = rules_for(FUNCTION_ID, StartRules(singleton=Singleton(mode, key)), {}, _as_is)
    return rule


def debounce(seconds: float, timeout: float | None = None, key: str = "k") -> Rule:
    """Return a debounce as the engine works it out."""
    rules = StartRules(debounce=Debounce(seconds, timeout, key))
    [rule] = rules_for(FUNCTION_ID, rules, {}, _as_is)
    return rule


def batch(size: int, seconds: float, key: str = "k") -> Rule:
    """Return a batch rule as the engine works it out."""
    [rule] = rules_for(FUNCTION_ID, StartRules(batch=Batch(size, seconds, key)), {}, _as_is)
    return rule


def _as_is(expression: str, _: object) -> object:
    return expression


def step(hashed: str, memo: object = None, status: str = "done") -> StepRow:
    """Return a step to store."""
    text = "null" if status == "sleeping" else dumps({"data": memo})
    return StepRow(hashed, hashed, "StepRun", status, text)


def completed(output: object = None) -> Settlement:
    """Return the end of a run."""
    return Settlement(Verdict.END, status="Completed", output=dumps(output))


def went_on(*steps: StepRow) -> Settlement:
    """Return a settlement that keeps the lease."""
    return Settlement(Verdict.CONTINUE, steps=steps, version=2)


def failed_attempt(attempt: int = 0) -> FailedAttempt:
    """Return a failed attempt to record."""
    return FailedAttempt(None, attempt, 500, '{"name":"E"}')


class Hands(Store):
    """An engine's store on one connection, inside whatever transaction the test has open."""

    def __init__(
        self, connection: asyncpg.Connection, owner: str = "A", lease: timedelta = LEASE
    ) -> None:
        self.connection = connection
        self.owner = owner
        self.lease_time = lease

    async def _fetch(self, sql: str, *args: object) -> "list[asyncpg.Record]":
        rows: list[asyncpg.Record] = await self.connection.fetch(sql, *args)
        return rows

    def of(self, owner: str) -> "Hands":
        """Return another engine's hands on the same connection."""
        return Hands(self.connection, owner, self.lease_time)

    async def at(self, seconds: float) -> None:
        """Set the database's clock, for this connection, to so many seconds after noon."""
        now = NOON + timedelta(seconds=seconds)
        await self.connection.execute(f"set stepbase.fake_now = '{now.isoformat()}'")

    async def epoch(self) -> int:
        """Return the current epoch."""
        return int(await self.connection.fetchval("select n from stepbase.epoch"))

    async def take_in(
        self, events: Sequence[Event], starts: Sequence[Start] = ()
    ) -> "list[asyncpg.Record]":
        """Ingest at the current epoch."""
        return await self.ingest(await self.epoch(), Ingest(events, starts))

    async def fire(self, count: int = 8) -> list[Start]:
        """Take due buffers and start their runs; returns the starts, of runs or not."""
        return await self.start_taken(await self.take_buffers(count))

    async def start_taken(self, rows: "Sequence[asyncpg.Record]") -> list[Start]:
        """Start the runs of buffers that were taken."""
        starts = []
        for row in rows:
            ids = tuple(row["event_ids"]) if row["kind"] == "batch" else ()
            begun = start(run_id=row["id"], buffer=Buffered(row["id"], row["gen"], ids))
            await self.take_in([event(internal_id=row["event_ids"][0])], [begun])
            starts.append(begun)
        return starts

    async def begin(self, **changes: Any) -> Start:
        """Start one run of a new event; return its start."""
        begun = start(**changes)
        await self.take_in([event()], [begun])
        return begun

    async def begin_leased(self, **changes: Any) -> Start:
        """Start one run whose item this engine holds with gen 1."""
        return await self.begin(is_direct=True, **changes)

    async def settle_one(
        self,
        run: Start | str,
        gen: int,
        effects: Settlement,
        *,
        job: str = "main",
        called: float | None = 0.1,
        finish: float | None = None,
        woken: str | None = None,
    ) -> Settled:
        """Settle one call."""
        return (await self.settle([settling(run, gen, effects, job, called, finish, woken)]))[0]

    async def item(self, run: Start | str, job: str = "main") -> "asyncpg.Record | None":
        """Return a queue row."""
        return await self.connection.fetchrow(
            "select * from stepbase.queue where run_id = $1 and job = $2", _run_id(run), job
        )

    async def run(self, run: Start | str) -> "asyncpg.Record":
        """Return a run row."""
        row = await self.connection.fetchrow(
            "select * from stepbase.runs where run_id = $1", _run_id(run)
        )
        assert row is not None
        return row

    async def status(self, run: Start | str) -> str:
        """Return a run's status."""
        return str((await self.run(run))["status"])

    async def steps(self, run: Start | str) -> list[tuple[str, str, str]]:
        """Return a run's steps in stack order: (hash, status, memo)."""
        rows = await self.connection.fetch(
            "select hash, status, memo::text from stepbase.steps where run_id = $1 order by pos",
            _run_id(run),
        )
        return [tuple(row) for row in rows]

    async def count(self, table: str, where: str = "true") -> int:
        """Count rows."""
        return int(
            await self.connection.fetchval(f"select count(*) from stepbase.{table} where {where}")
        )


def _run_id(run: Start | str) -> str:
    return run if isinstance(run, str) else run.run_id


def settling(
    run: Start | str,
    gen: int,
    effects: Settlement,
    job: str = "main",
    called: float | None = 0.1,
    finish: float | None = None,
    woken: str | None = None,
) -> Settling:
    """Return a call to settle."""
    return Settling(_run_id(run), job, gen, effects, called, finish, woken)

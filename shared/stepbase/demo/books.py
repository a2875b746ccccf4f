"""The story's view of the database: what was planned, how things stand, which refunds are due.

Everything here outlives a database that goes away and comes back, and may be repeated.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import asyncpg

from stepbase import clock
from stepbase.demo.fate import Entry, Merchant

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
)
_PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 0.1

_PLAN = (
    "create schema if not exists demo",
    "create table if not exists demo.plan"
    " (lap int not null, line int not null, fate text not null, primary key (lap, line))",
    "comment on table demo.plan is 'What the demo means to do with each line of its data file.'",
)

_STANDING = """
select
  (select count(*) from stepbase.outbox where dead_at is null) as outbox,
  (select count(*) from stepbase.queue where kind <> 'sleep') as working,
  (select count(*) from stepbase.queue where kind = 'sleep') as waiting,
  (select count(*) from public.purchases) as purchases,
  (select count(*) from stepbase.runs where status = 'Completed') as completed,
  (select count(*) from stepbase.runs where status = 'Cancelled') as cancelled,
  (select count(*) from stepbase.runs where status = 'Failed') as failed,
  (select count(*) from public.wallet_transactions where kind = 'award') as awards,
  (select count(*) from public.wallet_transactions where kind = 'reversal') as reversals
"""

# A run that waits has a queue item of kind sleep; one that has ended lately is found by its end.
_REFUNDABLE = """
select e.payload #>> '{data,source_id}' as id, true as waits
  from stepbase.queue q
  join stepbase.runs r on r.run_id = q.run_id
  join stepbase.events e on e.id = r.event_id
  where q.kind = 'sleep'
union all
select e.payload #>> '{data,source_id}', false
  from stepbase.runs r
  join stepbase.events e on e.id = r.event_id
  where r.ended_at > clock_timestamp() - $1::interval and e.name = 'currency/award.requested'
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand: how many events, runs, purchases and transactions there are of each kind."""

    outbox: int = 0
    working: int = 0
    waiting: int = 0
    purchases: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    awards: int = 0
    reversals: int = 0

    @property
    def is_quiet(self) -> bool:
        """Nothing is under way."""
        return self.outbox + self.working + self.waiting == 0

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return self.completed + self.cancelled + self.failed


class Connection:
    """One connection that comes back: a statement is repeated until the database has answered.

    Use as an async context manager. `role` is what it acts as, the login role if None.
    """

    def __init__(self, dsn: str, role: str | None = None) -> None:
        self._dsn = dsn
        self._role = role
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connect at the first statement."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self._drop()

    async def run(self, *statements: tuple[Any, ...]) -> list[asyncpg.Record]:
        """Run statements, each (SQL, arguments …), in one transaction; return the last one's rows.

        They may be carried out twice if the database goes away at the wrong moment.

        Raises:
            OSError, asyncpg.PostgresError: If it does not come back within a minute.
        """
        give_up = clock.monotonic() + _PATIENCE_SECONDS
        async with self._turn:
            while True:
                try:
                    return await self._try(statements)
                except _AWAY:
                    self._drop()
                    if clock.monotonic() > give_up:
                        raise
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _try(self, statements: Sequence[tuple[Any, ...]]) -> list[asyncpg.Record]:
        if self._connection is None:
            self._connection = await asyncpg.connect(self._dsn, timeout=10, command_timeout=30)
            if self._role is not None:
                await self._connection.execute(f"set role {self._role}")
        rows: list[asyncpg.Record] = []
        async with self._connection.transaction():
            for sql, *arguments in statements:
                rows = await self._connection.fetch(sql, *arguments)
        return rows

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.terminate()
            self._connection = None


class Books:
    """What the story reads and prepares in the database, as its owner."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open_shops(self, merchants: Sequence[Merchant]) -> None:
        """Record the merchants, and make room for the plan."""
        await self._connection.run(
            *((sql,) for sql in _PLAN),
            (
                "insert into public.merchants (id, name, rate_bp, award_delay_hours)"
                " select id, 'Merchant ' || id, rate_bp, delay / 3600"
                " from unnest($1::text[], $2::int[], $3::float8[]) as m (id, rate_bp, delay)"
                " on conflict (id) do nothing",
                [merchant.merchant_id for merchant in merchants],
                [merchant.rate_bp for merchant in merchants],
                [merchant.delay_seconds for merchant in merchants],
            ),
        )

    async def plan(self, entries: Sequence[Entry]) -> None:
        """Write down what is meant to happen, before it does: the checker reads it."""
        await self._connection.run(
            (
                "insert into demo.plan (lap, line, fate)"
                " select * from unnest($1::int[], $2::int[], $3::text[]) on conflict do nothing",
                [entry.purchase.lap for entry in entries],
                [entry.purchase.line for entry in entries],
                [str(entry.fate) for entry in entries],
            )
        )

    async def standing(self) -> Standing:
        """Return how things stand."""
        return Standing(**dict((await self._connection.run((_STANDING,)))[0]))

    async def load(self) -> int:
        """Return how much is under way and not just waiting for its time."""
        rows = await self._connection.run(
            (
                "select (select count(*) from stepbase.outbox where dead_at is null)"
                " + (select count(*) from stepbase.queue where kind <> 'sleep')",
            )
        )
        return int(rows[0][0])

    async def refundable(self, within: timedelta) -> list[tuple[str, bool]]:
        """Return purchases whose award waits (True), or has ended `within` the last while (False)."""
        rows = await self._connection.run((_REFUNDABLE, within))
        return [(row["id"], row["waits"]) for row in rows]

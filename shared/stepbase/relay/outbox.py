"""The relay's only SQL: one method per SQL function (migrations …000200 and …000202)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import asyncpg

from stepbase.database import readers
from stepbase.database.connections import Connections
from stepbase.database.dberrors import translated
from stepbase.errors import StoreError

_ON_A_COPY = (
    "Is this database a restored copy or a branch? Its outbox holds events that the original may have sent "
    "already. Delete what must not be sent (table stepbase.outbox), then start the relay once with "
    "--take-over"
)
_NO_SCHEMA = frozenset({"42P01", "3F000", "42883"})
_STUCK = timedelta(minutes=5)
_CLAIM = "select stepbase.outbox_claim($1, $2)"


@dataclass(frozen=True, slots=True)
class Row:
    """A leased event: its JSON text is sent as it is. `tries` counts from 1."""

    id: str
    name: str
    payload: bytes
    tries: int


class Outbox:
    """The outbox of one database; safe for concurrent use. Every method raises StoreError."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    @classmethod
    async def open(cls, dsn: str, project: str, *, take_over: bool, size: int) -> Self:
        """Connect and claim the outbox.

        Raises:
            StoreError: If the database is away or has no fitting schema, the outbox belongs to another
                project (SB013), or an engine or the relay on pg_net reads it (SB015).
        """
        outbox = cls(Connections(dsn, size=size, name="stepbase relay"), project)
        try:
            # First: who is refused has taken nothing over.
            await outbox._fetch(readers.ALONE, "relay")
            await outbox._fetch(_CLAIM, project, take_over)
        except StoreError as error:
            await outbox.close()
            raise explained(error) from error
        return outbox

    @classmethod
    def looking(cls, dsn: str) -> Self:
        """Return the outbox for who looks and requeues: nothing is claimed."""
        return cls(Connections(dsn, size=1, name="stepbase outbox"), project="")

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close(5)

    async def claim_again(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Make sure over another connection that the outbox is still this project's.

        Raises:
            StoreError: SB013 if it is not (any more).
        """
        with translated():
            await connection.execute(_CLAIM, self._project, False)

    async def take(self, count: int, size: int, token: str, lease: timedelta) -> list[Row]:
        """Lease up to `count` events of together at most `size` bytes."""
        rows = await self._fetch(
            "select * from stepbase.outbox_take_some($1, $2, $3, $4)", count, size, token, lease
        )
        return [Row(r["id"], r["name"], r["payload"].encode(), r["tries"]) for r in rows]

    async def ack(self, ids: Sequence[str], token: str) -> int:
        """Remove delivered events; return how many were still ours."""
        return await self._count("select stepbase.outbox_ack($1, $2) as n", list(ids), token)

    async def kill(self, event_id: str, reason: str, token: str) -> None:
        """Make an event a dead letter."""
        await self._fetch(
            "select stepbase.outbox_fail($1, $2, null, $3)", event_id, _storable(reason), token
        )

    async def give_back(
        self,
        ids: Sequence[str],
        reason: str,
        token: str,
        *,
        at_least: timedelta,
        most_tries: int,
        most_age: timedelta,
    ) -> list[str]:
        """Put events off that could not be delivered; return those that have become dead letters."""
        rows = await self._fetch(
            "select * from stepbase.outbox_give_back($1, $2, $3, $4, $5, $6)",
            list(ids), _storable(reason), token, at_least, most_tries, most_age,
        )  # fmt: skip
        return [row["id"] for row in rows if row["is_dead"]]

    async def put_back(self, ids: Sequence[str], token: str) -> int:
        """Give events back that were not tried; return how many were still ours."""
        return await self._count("select stepbase.outbox_put_back($1, $2) as n", list(ids), token)

    async def doze(self, idle: timedelta) -> float | None:
        """Have writers notify for so long; return the seconds until an event is due, or None."""
        seconds: float | None = (
            await self._fetch("select stepbase.outbox_doze($1) as seconds", idle)
        )[0]["seconds"]
        return seconds

    async def report(self, most: int, stuck_after: timedelta = _STUCK) -> dict[str, Any]:
        """Return what `stepbase.outbox_report` says, with at most so many stuck events."""
        rows = await self._fetch(
            "select stepbase.outbox_report($1, $2) as report", stuck_after, most
        )
        report: dict[str, Any] = json.loads(rows[0]["report"])
        return report

    async def requeue(self, ids: Sequence[str] | None) -> int:
        """Give dead events another try: these, or all; return how many."""
        return await self._count(
            "select stepbase.outbox_requeue($1) as n", None if ids is None else list(ids)
        )

    async def retry(self, ids: Sequence[str] | None) -> int:
        """Make waiting events due now: these, or all that wait after a failure; return how many."""
        return await self._count(
            "select stepbase.outbox_retry($1) as n", None if ids is None else list(ids)
        )

    async def _count(self, sql: str, *args: object) -> int:
        count: int = (await self._fetch(sql, *args))[0]["n"]
        return count

    async def _fetch(self, sql: str, *args: object) -> "list[asyncpg.Record]":
        with translated():
            return await self._connections.fetch(sql, *args)


def explained(error: StoreError) -> StoreError:
    """Return the error with what to do about it."""
    if error.sqlstate not in _NO_SCHEMA:
        return readers.explained(readers.of_another(error, _ON_A_COPY))
    text = (
        "this database has no stepbase schema, or an older one: apply the migrations first "
        f"(stepbase db apply, or supabase db push): {error}"
    )
    return StoreError(text, sqlstate=error.sqlstate, is_transient=False)


def _storable(reason: str) -> str:
    """Return a reason without what Postgres cannot keep in a text."""
    return reason.replace("\x00", "\\0").encode("utf-8", "replace").decode()

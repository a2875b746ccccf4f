"""Outbox, retention and whose database it is, one method per SQL function; a part of `store.py`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from stepbase.config import LOCAL
from stepbase.database import readers
from stepbase.errors import StoreError


class Upkeep(ABC):
    """The part of a store that is not about runs."""

    @abstractmethod
    async def _fetch(self, sql: str, *args: object) -> "list[asyncpg.Record]":
        """Run a statement; the store says how."""

    async def sweep(
        self, runs: timedelta, failed: timedelta, events: timedelta, limit: int
    ) -> tuple[int, int]:
        """Delete what is older than these ages; return how many runs and events went."""
        rows = await self._fetch(
            "select * from stepbase.sweep($1, $2, $3, $4)", runs, failed, events, limit
        )
        return rows[0]["runs"], rows[0]["events"]

    async def prune_ledger(self, results: timedelta, keys: timedelta, limit: int) -> int:
        """Forget results and keys older than these ages, none of a live run; return how many."""
        rows = await self._fetch(
            "select stepbase.ledger_prune(stepbase.now() - $1::interval,"
            " stepbase.now() - $2::interval, $3) as count",
            results, keys, limit,
        )  # fmt: skip
        count: int = rows[0]["count"]
        return count

    async def end_silent_runs(self, silent: timedelta, limit: int) -> int:
        """End runs of another server that nobody has heard of for so long; return how many."""
        rows = await self._fetch("select stepbase.end_silent_runs($1, $2) as count", silent, limit)
        count: int = rows[0]["count"]
        return count

    async def claim(self, project: str, *, take_over: bool) -> None:
        """Make sure that the database is this project's; who comes first owns it, but for a local stack."""
        if project == LOCAL and not take_over:
            [row] = await self._fetch("select project from stepbase.relay_state")
            if readers.fits(row["project"], project):
                return
        try:
            await self._fetch("select stepbase.outbox_claim($1, $2)", project, take_over)
        except StoreError as error:
            raise readers.of_another(error, readers.ENGINE_ON_A_COPY) from error

    async def outbox_take(self, count: int, token: str, lease: timedelta) -> "list[asyncpg.Record]":
        """Lease due outbox rows: (id, name, payload, tries)."""
        return await self._fetch(
            "select * from stepbase.outbox_take($1, $2, $3)", count, token, lease
        )

    async def outbox_fail(
        self, row_id: str, error: str, retry_at: datetime | None, token: str
    ) -> None:
        """Give an outbox row back with an error; without a time it becomes a dead letter."""
        await self._fetch(
            "select stepbase.outbox_fail($1, $2, $3, $4)", row_id, error, retry_at, token
        )

    async def outbox_requeue(self, ids: Sequence[str] | None) -> int:
        """Make dead outbox rows due again, or all of them; return how many."""
        rows = await self._fetch("select stepbase.outbox_requeue($1) as n", ids)
        return int(rows[0]["n"])

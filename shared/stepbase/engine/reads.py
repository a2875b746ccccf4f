"""What is read, one method per SQL function; the other part of `store.py`."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from stepbase.engine.looking import Page

_PAGE = 2000


class Reads(ABC):
    """The reading part of a store."""

    @abstractmethod
    async def _fetch(self, sql: str, *args: object) -> "list[asyncpg.Record]":
        """Run a statement; the store says how."""

    async def get_event(self, event_id: str) -> "asyncpg.Record | None":
        """Return an event by internal id: (id, payload, received_at, source)."""
        rows = await self._fetch("select * from stepbase.get_event($1)", event_id)
        return rows[0] if rows else None

    async def list_events(
        self,
        limit: int,
        before: str | None,
        name: str | None,
        after: datetime | None,
        until: datetime | None,
    ) -> "list[asyncpg.Record]":
        """Return events, newest first."""
        return await self._fetch(
            "select * from stepbase.list_events($1, $2, $3, $4, $5)",
            limit, before, name, after, until,
        )  # fmt: skip

    async def get_runs(
        self, *, run_id: str | None = None, event_id: str | None = None
    ) -> "list[asyncpg.Record]":
        """Return one run by id, or all runs of an event by its internal id."""
        return await self._fetch("select * from stepbase.get_runs($1, $2)", run_id, event_id)

    async def get_not_started(self, event_id: str) -> "list[asyncpg.Record]":
        """Return why an event started no run of its own: (function_id, slug, reason, run_id, at)."""
        return await self._fetch("select * from stepbase.get_not_started($1)", event_id)

    async def get_jobs(self, run_id: str) -> "list[asyncpg.Record]":
        """Return a run's queue items."""
        return await self._fetch("select * from stepbase.get_jobs($1)", run_id)

    async def get_state(self, run_id: str) -> "asyncpg.Record | None":
        """Return a live run's (event, hashes, memos), or None if it has ended or never was."""
        rows = await self._fetch("select * from stepbase.get_state($1)", run_id)
        return rows[0] if rows else None

    async def list_apps(self) -> "list[asyncpg.Record]":
        """Return every app that is not archived, with how many functions it has."""
        return await self._fetch("select * from stepbase.list_apps()")

    async def get_trace(self, run_id: str) -> "list[asyncpg.Record]":
        """Return a run's steps as they began, without memos, and what open ones wait for."""
        return await self._fetch("select * from stepbase.get_trace($1)", run_id)

    async def get_attempts(self, run_id: str, limit: int) -> "list[asyncpg.Record]":
        """Return a run's failed attempts in order: (id, hash, attempt, at)."""
        return await self._fetch("select * from stepbase.get_attempts($1, $2)", run_id, limit)

    async def get_memo(
        self, run_id: str, *, step: str | None = None, attempt: int | None = None
    ) -> "asyncpg.Record | None":
        """Return what a step's memo is, or the error of a failed attempt as one: (op, memo)."""
        rows = await self._fetch(
            "select * from stepbase.get_memo($1, $2, $3)", run_id, step, attempt
        )
        return rows[0] if rows else None

    async def get_trigger(self, run_id: str) -> "asyncpg.Record | None":
        """Return a run's events: (ids, is_batch, payloads)."""
        rows = await self._fetch("select * from stepbase.get_trigger($1)", run_id)
        return rows[0] if rows else None

    async def get_runs_of(self, event_ids: Sequence[str], each: int) -> "list[asyncpg.Record]":
        """Return the runs of events, at most `each` of one event, without output and error."""
        return await self._fetch(
            "select * from stepbase.get_runs_of($1, $2)", list(event_ids), each
        )

    async def live_runs(
        self, function_id: UUID, after: str, before: str, limit: int
    ) -> tuple[list[str], str | None]:
        """Look at `limit` runs of a function between two ids; return the live ones, and where to go on."""
        rows = await self._fetch(
            "select * from stepbase.live_runs($1, $2, $3, $4)", function_id, after, before, limit
        )
        return rows[0]["runs"], rows[0]["last"]

    async def get_run_events(self, run_ids: Sequence[str]) -> "list[asyncpg.Record]":
        """Return the events of runs: (run_id, event)."""
        return await self._fetch("select * from stepbase.get_run_events($1)", list(run_ids))

    async def measures(self, most: int) -> dict[str, float | None]:
        """Measure queue, outbox and snapshots; nothing is counted beyond `most`."""
        return dict((await self._fetch("select * from stepbase.measures($1)", most))[0])

    async def look_back(self, run_id: str, hashed: str) -> AsyncIterator[Page]:
        """Yield the events that came before a wait, page by page; none if the wait has ended."""
        rows = await self._fetch("select stepbase.await_ingests($1, $2) as waits", run_id, hashed)
        last = None
        while rows[0]["waits"]:
            found = await self._fetch(
                "select * from stepbase.look_back($1, $2, $3, $4)", run_id, hashed, last, _PAGE
            )
            if not found:
                return
            yield Page(found[0]["payloads"], found[0]["residual"], found[0]["expires_at"])
            last = found[0]["last"]
            if last is None:
                return

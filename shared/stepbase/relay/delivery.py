"""Sends what is leased: one batch to its end, whatever the receiver says to it.

A batch is a list of groups to send. Most are one group; what is refused or too large is taken apart until
it is known which event is at fault, within the same lease.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from stepbase import clock
from stepbase.errors import StoreError
from stepbase.relay.answer import Outcome, Verdict
from stepbase.relay.api import EventApi
from stepbase.relay.metrics import Metrics
from stepbase.relay.outbox import Outbox, Row
from stepbase.relay.pace import SUSPECT_TRIES, Pace
from stepbase.relay.settings import Settings

_log = logging.getLogger("stepbase.relay.delivery")

_RETRY_SECONDS: Final = 0.25
_LAST_WORD_SECONDS: Final = 3.0

Group = list[Row]
Result = TypeVar("Result")


class Deliverer:
    """Delivers leased batches; any number at a time."""

    def __init__(
        self, settings: Settings, outbox: Outbox, api: EventApi, pace: Pace, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._api = api
        self._pace = pace
        self._metrics = metrics

    async def deliver(self, rows: Sequence[Row], token: str, leased_at: float) -> None:
        """Send a batch; each event of it is acked, put off or dead afterwards.

        If the database is away for longer than the lease, nothing is written and all is sent again.
        Cancelled, it gives back what was not sent.
        """
        groups = deque(_groups(rows))
        lease = self._settings.lease.total_seconds()
        book = _Book(self._outbox, token, leased_at + lease)
        try:
            # A request that outlives its lease would be sent by somebody else at the same time.
            while groups and clock.monotonic() + self._settings.timeout < leased_at + lease:
                await self._send(groups, book)
        except asyncio.CancelledError:
            await book.last_word(_ids(groups))
            raise
        if groups:
            ids = _ids(groups)
            await book.write(lambda: self._outbox.put_back(ids, token))

    async def _send(self, groups: deque[Group], book: "_Book") -> None:
        """Send the first group and write down what became of it; it may leave other groups in its place."""
        group = groups[0]
        failures, began = self._pace.failures, clock.monotonic()
        verdict = await self._api.post([row.payload for row in group])
        groups.popleft()
        self._metrics.posted(verdict.outcome, clock.monotonic() - began)
        await self._acked(group[: verdict.accepted], book)
        rest = group[verdict.accepted :]
        if verdict.outcome is Outcome.AWAY:
            await self._put_off(rest, verdict, book)
            if self._is_trouble(group, failures, verdict):
                await self._leave(groups, book)
            return
        if self._pace.is_troubled:
            _log.info("receiver is back")
        self._pace.succeeded()
        if not rest:
            return
        if len(group) == 1:
            await self._kill(group[0], verdict.reason, book)
        elif verdict.outcome is Outcome.TOO_LARGE:
            self._pace.too_large(sum(len(row.payload) for row in group))
            middle = len(group) // 2
            groups.extendleft([group[middle:], group[:middle]])
        else:
            # Alone it is certain that this event is meant; nobody else's fault ends in a dead letter.
            groups.extendleft(filter(None, [rest[1:], rest[:1]]))

    def _is_trouble(self, group: Group, failures: int, verdict: Verdict) -> bool:
        """Note a failure; False if it may well be the event's: one that has failed often, and alone."""
        if len(group) == 1 and group[0].tries > SUSPECT_TRIES and not self._pace.is_troubled:
            return False
        if not self._pace.is_troubled:
            _log.warning("receiver is away", extra={"reason": verdict.reason, "events": len(group)})
        self._pace.failed(failures, clock.monotonic(), random.random(), verdict.retry_after)
        return True

    async def _leave(self, groups: deque[Group], book: "_Book") -> None:
        """Give back what was not sent: the receiver is to be left alone for a while."""
        ids = _ids(groups)
        groups.clear()
        if ids:
            await book.write(lambda: self._outbox.put_back(ids, book.token))

    async def _acked(self, rows: Group, book: "_Book") -> None:
        if not rows:
            return
        ids = [row.id for row in rows]
        self._metrics.sent.inc(len(ids))
        await book.write(lambda: self._outbox.ack(ids, book.token))

    async def _put_off(self, rows: Group, verdict: Verdict, book: "_Book") -> None:
        if not rows:
            return
        ids = [row.id for row in rows]
        self._metrics.failed.inc(len(ids))
        dead = await book.write(
            lambda: self._outbox.give_back(
                ids,
                verdict.reason,
                book.token,
                at_least=timedelta(seconds=verdict.retry_after),
                most_tries=self._settings.most_tries,
                most_age=self._settings.most_age,
            )
        )
        for event_id in dead or ():
            self._metrics.dead.inc()
            _log.error("event given up", extra={"event_id": event_id, "reason": verdict.reason})

    async def _kill(self, row: Row, reason: str, book: "_Book") -> None:
        self._metrics.dead.inc()
        _log.error("event refused", extra={"event_id": row.id, "event": row.name, "reason": reason})
        await book.write(lambda: self._outbox.kill(row.id, reason, book.token))


class _Book:
    """Writes what became of a batch, as long as its lease lasts."""

    def __init__(self, outbox: Outbox, token: str, until: float) -> None:
        self._outbox = outbox
        self._until = until
        self.token = token

    async def write(self, statement: Callable[[], Awaitable[Result]]) -> Result | None:
        """Run a statement until the database has answered; None if that takes longer than the lease."""
        while True:
            try:
                return await statement()
            except StoreError as error:
                if not error.is_transient:
                    raise
                if clock.monotonic() + _RETRY_SECONDS > self._until:
                    _log.warning(
                        "events will be sent again: the database did not hear of them in time",
                        extra={"reason": str(error)[:200]},
                    )
                    return None
            await asyncio.sleep(_RETRY_SECONDS)

    async def last_word(self, ids: Sequence[str]) -> None:
        """Give back what is left, shortly before the end; else the lease does."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self._outbox.put_back(ids, self.token)


def _groups(rows: Sequence[Row]) -> list[Group]:
    """Return what to send as one request each: what has failed often travels alone, and last."""
    fresh = [row for row in rows if row.tries <= SUSPECT_TRIES]
    suspects = [[row] for row in rows if row.tries > SUSPECT_TRIES]
    return [fresh, *suspects] if fresh else suspects


def _ids(groups: deque[Group]) -> list[str]:
    return [row.id for group in groups for row in group]

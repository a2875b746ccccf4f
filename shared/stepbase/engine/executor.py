"""Works on one leased item until the lease is given back: call, decide, settle, and again."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable

from stepbase import clock, failpoint
from stepbase.engine import expr
from stepbase.engine.caller import Caller
from stepbase.engine.decide import State, decide
from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.item import Item
from stepbase.engine.store import Settled, Settling
from stepbase.errors import StoreError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.reply import NoAnswer

_log = logging.getLogger("stepbase.engine.executor")

MAX_LOSSES = 20
MAX_HOPS = 10

Settle = Callable[[Settling], Awaitable[Settled]]


class Executor:
    """Executes items.

    Args:
        caller: Reaches functions.
        settle: Writes effects (batched); raises StoreError only if they can never be written.
        has_backlog: Says whether others wait for a slot.
        new_id: Makes ULIDs.
        retry_interval: Fixed seconds between attempts, or None.
    """

    def __init__(
        self,
        caller: Caller,
        settle: Settle,
        *,
        has_backlog: Callable[[], bool],
        new_id: Callable[[], str],
        retry_interval: float | None,
    ) -> None:
        self._caller = caller
        self._settle = settle
        self._has_backlog = has_backlog
        self._new_id = new_id
        self._retry_interval = retry_interval

    async def execute(self, item: Item) -> Settlement | None:
        """Work on an item; return the last settlement, or None if the item was lost."""
        while True:
            effects, called = await self._next(item)
            woken = item.step if item.kind == "sleep" else None
            if effects.verdict is Verdict.CONTINUE and not self._may_go_on(item):
                effects = _released(effects)
            settled = await self._write(item, effects, called, woken)
            if settled is None:
                return None
            if effects.verdict is not Verdict.CONTINUE:
                if effects.verdict is Verdict.END:
                    self._log_end(item, effects)
                return effects
            _advance(item, effects, settled.gen)

    def _may_go_on(self, item: Item) -> bool:
        return item.hops < MAX_HOPS or not self._has_backlog()

    async def _next(self, item: Item) -> tuple[Settlement, float | None]:
        """Return what is to be written for an item, and how long the call took if there was one."""
        if item.kind == "match":
            return _matched(item), None
        if item.kind == "deadline":
            return _deadline(item), None
        if item.is_overdue:
            return _cancelled("the run did not finish within its timeout"), None
        if item.losses > MAX_LOSSES:
            return _crashed(item), None
        return await self._called(item)

    async def _called(self, item: Item) -> tuple[Settlement, float | None]:
        request_id = self._new_id()
        headers = {
            names.RUN_ID: item.run_id,
            names.STEP_ID: names.STEP,
            names.GENERATION_ID: str(item.gen),
            names.JOB_ID: item.job,
            names.REQUEST_ID: request_id,
            names.REQ_VERSION: str(item.version),
        }
        failpoint.hit("engine.before_call")
        began = clock.monotonic()
        reply = await self._caller.call(
            item.function.config.url, item.call_body(request_id), headers
        )
        took = clock.monotonic() - began
        failpoint.hit("engine.after_reply")
        state = State(
            attempt=item.attempt,
            max_attempts=item.function.config.retries + 1,
            known=frozenset(hashed for hashed, _ in item.memos),
            state_bytes=item.state_bytes,
            outage=item.outage,
            now=clock.utcnow(),
            chance=random.random(),
            retry_interval=self._retry_interval,
        )
        effects = decide(state, reply)
        if isinstance(reply, NoAnswer):
            _log.warning("function did not answer", extra=_fields(item, reason=reply.message))
        return effects, took if effects.was_called else None

    async def _write(
        self, item: Item, effects: Settlement, called: float | None, woken: str | None
    ) -> Settled | None:
        finish = item.function.config.finish_timeout if not item.has_started else None
        settling = Settling(item.run_id, item.job, item.gen, effects, called, finish, woken)
        try:
            settled = await self._settle(settling)
        except StoreError as error:
            _log.error("the effects of a call were refused", extra=_fields(item, reason=str(error)))
            settled = await self._settle(
                Settling(item.run_id, item.job, item.gen, _refused(error), None, None, None)
            )
        if settled.outcome == "lost":
            _log.info("lease lost, reply thrown away", extra=_fields(item))
            return None
        return settled

    def _log_end(self, item: Item, effects: Settlement) -> None:
        if effects.status == "Failed":
            _log.warning("run failed", extra=_fields(item, reason=(effects.error or "")[:300]))
        else:
            _log.debug("run ended", extra=_fields(item, status=effects.status))


def _fields(item: Item, **more: object) -> dict[str, object]:
    return {
        "run_id": item.run_id,
        "function_id": item.function.config.slug,
        "attempt": item.attempt,
        **more,
    }


def _advance(item: Item, effects: Settlement, gen: int) -> None:
    """Bring an item to where the store has it now."""
    if item.kind == "sleep":
        item.kind, item.step = "edge", None
    for step in effects.steps:
        item.memos.append((step.hash, step.memo))
        item.state_bytes += len(step.memo)
    item.gen = gen
    item.attempt = effects.attempt
    item.hops += 1
    item.has_started = True
    item.outage = 0.0
    if effects.version is not None:
        item.version = effects.version


def _released(effects: Settlement) -> Settlement:
    return Settlement(
        Verdict.READY,
        attempt=effects.attempt,
        version=effects.version,
        steps=effects.steps,
        failed=effects.failed,
    )


def _cancelled(message: str) -> Settlement:
    return Settlement(
        Verdict.END,
        status="Cancelled",
        error=dumps({"name": "Cancelled", "message": message}),
        was_called=False,
    )


def _matched(item: Item) -> Settlement:
    """Check what the index could not: whether this event really cancels the run."""
    if item.residual is None or item.other_event is None:
        return Settlement(Verdict.DONE, was_called=False)
    events = {"event": json.loads(item.event), "async": json.loads(item.other_event)}
    if not expr.holds(item.residual, events):
        return Settlement(Verdict.DONE, was_called=False)
    return _cancelled("an event matched cancel_on")


def _deadline(item: Item) -> Settlement:
    if item.step == "start" and item.has_started:
        return Settlement(Verdict.DONE, was_called=False)
    if item.step == "start":
        return _cancelled("the run did not start within its timeout")
    return _cancelled("the run did not finish within its timeout")


def _crashed(item: Item) -> Settlement:
    message = (
        f"{item.losses} engines in a row went away while they called this function: "
        "it may crash the engine (a reply too large for its memory?) or never answer"
    )
    return Settlement(
        Verdict.END,
        status="Failed",
        error=dumps({"name": "LeaseLost", "message": message}),
        was_called=False,
    )


def _refused(error: StoreError) -> Settlement:
    return Settlement(
        Verdict.END,
        status="Failed",
        error=dumps({"name": "StoreError", "message": str(error)}),
        was_called=False,
    )


async def retrying(
    write: Callable[[], Awaitable[Settled]], is_stopping: Callable[[], bool]
) -> Settled:
    """Write until the database is there again; the fence makes repeating harmless.

    Raises:
        StoreError: If the database refuses the write for good, or the engine is stopping.
    """
    delay = 0.05
    while True:
        try:
            return await write()
        except StoreError as error:
            if not error.is_transient or is_stopping():
                raise
            _log.warning("database away, settle waits", extra={"reason": str(error)[:200]})
            await asyncio.sleep(delay)
            delay = min(delay * 2, 1.0)

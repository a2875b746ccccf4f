"""Works on one leased item until the lease is given back: call, decide, settle, and again."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from stepbase import clock, failpoint
from stepbase.engine import expr
from stepbase.engine.caller import Caller
from stepbase.engine.decide import decide
from stepbase.engine.effects import Settlement, StepRow, Verdict
from stepbase.engine.gateway import Gateway
from stepbase.engine.item import Item
from stepbase.engine.looking import Page, look
from stepbase.engine.metrics import Metrics
from stepbase.engine.mover import Mover
from stepbase.engine.opening import State, title
from stepbase.engine.rules import WHY_NOT_STARTED
from stepbase.engine.store import TAKEN, Settled, Settling
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.redact import redact_text
from stepbase.protocol.reply import NoAnswer, Ops, Reply

if TYPE_CHECKING:
    from stepbase.engine.tracing import Tracing

_log = logging.getLogger("stepbase.engine.executor")

MAX_LOSSES = 20
MAX_HOPS = 10
_MOST_REASON = 300
_LOOKED_AT = 16_384

Settle = Callable[[Settling], Awaitable[Settled]]


class Executor:
    """Executes items.

    Args:
        caller: Reaches functions.
        gateway: Makes requests for them.
        settle: Writes effects (batched); raises StoreError only if they can never be written.
        has_backlog: Says whether others wait for a slot.
        is_stopping: Says whether runs must be handed over to other engines.
        new_id: Makes ULIDs.
        load_state: Returns a live run's stored (hashes, memos, open_hashes), or None.
        look_back: Yields the events that came before the wait of a run's step (by hash).
        is_paused: Says whether a function makes no calls for now.
        mover: Puts calls back that must wait elsewhere.
        slugs: Returns the slugs of the functions that can be invoked.
        retry_interval: Fixed seconds between attempts, or None.
        metrics: Where calls and what they led to are counted.
        tracing: Where their spans go, or None.
        secrets: What no log line may hold, whatever a function's error says.
    """

    def __init__(
        self,
        caller: Caller,
        gateway: Gateway,
        settle: Settle,
        *,
        has_backlog: Callable[[], bool],
        is_stopping: Callable[[], bool],
        new_id: Callable[[], str],
        load_state: Callable[[str], Awaitable[asyncpg.Record | None]],
        look_back: Callable[[str, str], AsyncIterator[Page]],
        is_paused: Callable[[UUID], bool],
        mover: Mover,
        slugs: Callable[[], Container[str]],
        retry_interval: float | None,
        metrics: Metrics,
        tracing: "Tracing | None",
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._caller = caller
        self._gateway = gateway
        self._settle = settle
        self._has_backlog = has_backlog
        self._is_stopping = is_stopping
        self._new_id = new_id
        self._load_state = load_state
        self._look_back = look_back
        self._is_paused = is_paused
        self._mover = mover
        self._slugs = slugs
        self._retry_interval = retry_interval
        self._metrics = metrics
        self._tracing = tracing
        self._secrets = secrets

    async def execute(self, item: Item) -> Settlement | None:
        """Work on an item; return the last settlement, or None if the item was lost or put back."""
        while True:
            if item.makes_call and self._mover.must_move(item) and await self._mover.move(item):
                return None
            effects, called = await self._next(item)
            woken = item.step if item.kind == "sleep" else None
            if effects.verdict is Verdict.CONTINUE:
                effects = self._going_on(item, effects)
            _may_die(item, effects)
            settled, effects = await self._write(item, effects, called, woken)
            if settled is None:
                return None
            failpoint.hit("engine.after_settle")
            if effects.verdict is not Verdict.CONTINUE:
                if effects.verdict is Verdict.END:
                    self._tell_end(item, effects)
                return effects
            _advance(item, effects, settled.gen)
            if settled.step_count != len(item.memos):
                await self._reload(item)

    async def _reload(self, item: Item) -> None:
        """Others closed steps of this run meanwhile (a checkpoint, a race): take the store's state."""
        row = await self._load_state(item.run_id)
        if row is not None:
            item.memos = list(zip(row["hashes"] or (), row["memos"] or (), strict=True))
            item.open = set(row["open_hashes"] or ())
            item.state_bytes = sum(len(memo) for _, memo in item.memos)

    def _going_on(self, item: Item, effects: Settlement) -> Settlement:
        if self._is_stopping() or self._is_paused(item.function.function_id):
            return _released(effects, Verdict.READY)
        if item.hops >= MAX_HOPS and self._has_backlog():
            # After so many calls in a row others come first.
            return _released(effects, Verdict.YIELD)
        return effects

    async def _next(self, item: Item) -> tuple[Settlement, float | None]:
        """Return what is to be written for an item, and how long the call took if there was one."""
        if item.kind == "match":
            failpoint.hit("engine.in_match")
            return _matched(item), None
        if item.kind == "deadline":
            failpoint.hit("engine.at_timeout")
            return _deadline(item), None
        if item.kind in ("wait", "invoke"):
            failpoint.hit("engine.at_timeout")
            return _given_up(item), None
        if item.kind == "look":
            return await self._looked(item), None
        if item.is_overdue:
            return _cancelled("the run did not finish within its timeout"), None
        if item.losses > MAX_LOSSES:
            return _crashed(item), None
        return await self._called(item)

    async def _looked(self, item: Item) -> Settlement:
        assert item.step is not None  # such items belong to a step
        try:
            return await look(item.step, item.event, self._look_back(item.run_id, item.step))
        except StoreError as error:
            if not error.is_transient:
                return _refused(error)
            return Settlement(
                Verdict.TIMER, delay=1.0, kind="look", step=item.step, was_called=False
            )

    async def _called(self, item: Item) -> tuple[Settlement, float | None]:
        request_id = self._new_id()
        headers = {
            names.RUN_ID: item.run_id,
            names.STEP_ID: item.target or names.STEP,
            names.GENERATION_ID: str(item.gen),
            names.JOB_ID: item.job,
            names.REQUEST_ID: request_id,
            names.REQ_VERSION: str(item.version),
        }
        # A limit of steps at once counts calls, so under one every step has a call of its own.
        if not item.function.config.limits.concurrency:
            headers[names.TOGETHER] = "true"
        if self._tracing is None:
            return await self._call(item, request_id, headers)
        with self._tracing.call(item, headers) as span:
            effects, took = await self._call(item, request_id, headers)
            self._tracing.decided(span, effects)
        return effects, took

    async def _call(
        self, item: Item, request_id: str, headers: Mapping[str, str]
    ) -> tuple[Settlement, float | None]:
        failpoint.hit("engine.before_call")
        began = clock.monotonic()
        reply = await self._caller.call(item.url, item.call_body(request_id), headers)
        took = clock.monotonic() - began
        self._metrics.called(item.function.config.slug, took)
        failpoint.hit("engine.after_reply")
        known = frozenset(hashed for hashed, _ in item.memos)
        if isinstance(reply, Ops):
            is_alone = item.job == "main" and not item.open
            reply = await self._gateway.fulfil(
                reply, known, request=item.request, is_alone=is_alone
            )
        state = State(
            attempt=item.attempt,
            max_attempts=item.function.config.retries + 1,
            known=known,
            state_bytes=item.state_bytes,
            outage=item.outage,
            now=clock.utcnow(),
            chance=random.random(),
            retry_interval=self._retry_interval,
            retry_delay=item.function.config.retry_delay,
            look_back=item.function.config.look_back,
            open=frozenset(item.open),
            target=item.target or item.request,
            is_request=item.request is not None,
            is_main=item.job == "main",
            run_id=item.run_id,
            function=item.function.config.slug,
            event=lambda: _parsed(item.event),
            functions=self._slugs(),
            check=expr.compile_expression,
            holds=expr.holds,
        )
        effects = decide(state, reply)
        if isinstance(reply, NoAnswer):
            _log.warning("function did not answer", extra=_fields(item, reason=reply.message))
        else:
            _tell_failed(item, reply, effects, self._secrets)
        return effects, took if effects.was_called else None

    async def _write(
        self, item: Item, effects: Settlement, called: float | None, woken: str | None
    ) -> tuple[Settled | None, Settlement]:
        """Write effects; return what came of them (None: lost) and which were written in the end."""
        finish = item.function.config.finish_timeout if not item.has_started else None
        settling = Settling(item.run_id, item.job, item.gen, effects, called, finish, woken)
        try:
            settled = await self._settle(settling)
        except StoreError as error:
            effects = _refused(error)
            if error.sqlstate != TAKEN:
                fields = _fields(item, reason=str(error))
                _log.error("the effects of a call were refused", extra=fields)
            settled = await self._settle(
                Settling(item.run_id, item.job, item.gen, effects, None, None, None)
            )
        if settled.outcome == "lost":
            self._metrics.lost()
            _log.info("lease lost, reply thrown away", extra=_fields(item))
            return None, effects
        self._metrics.settled(item.function.config.slug, effects)
        return settled, effects

    def _tell_end(self, item: Item, effects: Settlement) -> None:
        if self._tracing is not None:
            self._tracing.ended(item, effects)
        if effects.status == "Failed":
            reason = _in_words(effects.error, self._secrets)
            _log.warning("run failed", extra=_fields(item, reason=reason))
        else:
            _log.debug("run ended", extra=_fields(item, status=effects.status))


def _may_die(item: Item, effects: Settlement) -> None:
    """Where the end of an invoked run is about to be written, with the step that waits for it."""
    name = "engine.before_child_end"
    if (
        failpoint.is_armed(name)
        and effects.verdict is Verdict.END
        and names.EVENT_FUNCTION_INVOKED in item.event
    ):
        failpoint.hit(name)


def _fields(item: Item, **more: object) -> dict[str, object]:
    return {
        "run_id": item.run_id,
        "function_id": item.function.config.slug,
        "attempt": item.attempt,
        **more,
    }


def _tell_failed(
    item: Item, reply: Reply | ProtocolError, effects: Settlement, secrets: tuple[str, ...]
) -> None:
    """Log each attempt that failed: whoever watches the engine sees why a run does not go on."""
    ops = {op.id: title(op) for op in reply.ops} if isinstance(reply, Ops) else {}
    for failed in filter(None, (effects.failed, *effects.tried)):
        reason = _in_words(failed.error, secrets)
        fields = _fields(item, step=ops.get(failed.hash or ""), reason=reason)
        if effects.verdict is Verdict.TIMER and effects.delay is not None:
            fields["again_in_s"] = round(effects.delay, 1)
        _log.warning("attempt failed", extra=fields)


def _in_words(error: str | None, secrets: tuple[str, ...]) -> str:
    """Return the name and message of an error's JSON text, without keys and tokens, cut to a line."""
    found = json.loads(error or "null")
    if isinstance(found, dict):
        found = f"{found.get('name')}: {found.get('message')}"
    # A reply may be large, and the loop stands still meanwhile.
    return redact_text(str(found)[:_LOOKED_AT], secrets)[:_MOST_REASON]


def _advance(item: Item, effects: Settlement, gen: int) -> None:
    """Bring an item to where the store has it now."""
    if item.kind == "sleep":
        item.kind, item.step = "edge", None
    for step in effects.steps:
        item.memos.append((step.hash, step.memo))
        item.open.discard(step.hash)
        item.state_bytes += len(step.memo)
    item.gen = gen
    item.attempt = effects.attempt
    item.hops += 1
    item.has_started = True
    item.outage = 0.0
    if effects.version is not None:
        item.version = effects.version


def _released(effects: Settlement, verdict: Verdict) -> Settlement:
    return Settlement(
        verdict,
        attempt=effects.attempt,
        version=effects.version,
        steps=effects.steps,
        failed=effects.failed,
        tried=effects.tried,
    )


def _cancelled(message: str) -> Settlement:
    return Settlement(
        Verdict.END,
        status="Cancelled",
        error=dumps({"name": "Cancelled", "message": message}),
        was_called=False,
    )


def _parsed(event: str) -> Mapping[str, object]:
    parsed: dict[str, object] = json.loads(event)
    return parsed


def _matched(item: Item) -> Settlement:
    """Check what the index could not: whether this event really ends the pause."""
    done = Settlement(Verdict.DONE, was_called=False)
    if item.residual is None or item.other_event is None or item.step is None:
        return done  # the pause is gone
    events = {"event": _parsed(item.event), "async": _parsed(item.other_event)}
    if not expr.holds(item.residual, events):
        return done
    if item.pause_kind == "cancel":
        return _cancelled("an event matched cancel_on")
    return replace(done, steps=(_closed(item.step, "done", item.other_event),))


def _given_up(item: Item) -> Settlement:
    """The time of a wait is over: it gives null, an invoke fails. So does one that was refused."""
    assert item.step is not None  # such items belong to a step
    step = _closed(item.step, "done", "null")
    if item.job.startswith("refused:"):
        reason = item.job.split(":")[1]
        error = {
            "name": "InvokeRefused",
            "message": f"the invoked function did not start: {WHY_NOT_STARTED[reason]}",
        }
        step = _closed(item.step, "failed", dumps({"error": error}))
    elif item.kind == "invoke":
        error = {
            "name": names.INVOKE_TIMEOUT,
            "message": "Timed out waiting for invoked function to complete",
        }
        step = _closed(item.step, "failed", dumps({"error": error}))
    return Settlement(Verdict.DONE, was_called=False, steps=(step,))


def _closed(hashed: str, status: str, memo: str) -> StepRow:
    """Return what closes a stored step; its name and op are stored already."""
    return StepRow(hashed, "", "", status, memo)


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
    name, message = "StoreError", str(error)
    if error.sqlstate == TAKEN:
        name, message = "SignalTaken", message.partition(": ")[2]
    return Settlement(
        Verdict.END,
        status="Failed",
        error=dumps({"name": name, "message": message}),
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

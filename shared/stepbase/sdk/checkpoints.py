"""Checkpoints: results of steps go to the server while the handler goes on in the same call.

A step's result is kept back until the next step is about to run, and sent then: so no step runs while
more results than `buffered_steps` are unsaved, and the last one travels with the run's output. If they
cannot be saved, the call ends with them as an ordinary reply: nothing is lost, only slower.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from stepbase import clock, standin
from stepbase.config import InngestConfig
from stepbase.errors import NonRetriableError
from stepbase.protocol import names
from stepbase.protocol.call import Call
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.op import Opcode
from stepbase.sdk.ask import Asking, ask, drive, tried
from stepbase.sdk.checkpointing import Checkpointing
from stepbase.sdk.ops import ops_text
from stepbase.sdk.replay import NewStep, StepOp
from stepbase.sdk.work import NotSaved

logger = logging.getLogger("stepbase.sdk.checkpoints")

MAX_BUFFERED_BYTES: Final = 1024 * 1024
"""Past this, results are sent whatever `buffered_steps` says: a reply holds 8 MiB at most."""

MAX_POST_BYTES: Final = names.MAX_REPLY_BYTES // 4
"""Several results are sent at once up to this (in characters): steps beside each other may bring a lot."""


class StaleCallError(NonRetriableError):
    """The server has given this call up: the run has ended, or another call goes on with it."""

    code = "call_stale"


class Checkpoints:
    """The unsaved results of one call.

    Attributes:
        is_used: True once the handler has gone on after a step: the run may end by RunComplete.
        is_stale: True once the server has said that the call is given up.
        has_failed: True once results could not be saved.
    """

    def __init__(self, limits: Checkpointing, settings: InngestConfig, call: Call) -> None:
        self._limits = limits
        self._settings = settings
        self._call = call
        self._began = clock.monotonic()
        self._began_ms = clock.now_ms()
        self._lock = threading.Lock()  # of what follows; never held while a request is under way
        self._saving = threading.Lock()
        self._unsaved: list[StepOp] = []
        self._bytes = 0
        self._timer: threading.Timer | None = None
        self._is_closed = False
        self.is_used = False
        self.is_stale = False
        self.has_failed = False

    @property
    def unsaved(self) -> tuple[StepOp, ...]:
        """The results that the server does not have yet."""
        return tuple(self._unsaved)

    @property
    def is_due(self) -> bool:
        """True if results must be saved before the next step runs."""
        return (
            len(self._unsaved) >= self._limits.buffered_steps or self._bytes >= MAX_BUFFERED_BYTES
        )

    @property
    def is_heavy(self) -> bool:
        """True if the results are too large to travel with something else."""
        return len(self._unsaved) > 1 and self._bytes >= MAX_BUFFERED_BYTES

    @property
    def is_broken(self) -> bool:
        """True if nothing can be saved any more."""
        return self.is_stale or self.has_failed

    @property
    def may_begin(self) -> bool:
        """True if further steps may begin in this call: it is not late, and results can be saved."""
        is_late = clock.monotonic() - self._began >= self._limits.runtime_seconds
        return not (is_late or self.is_broken)

    @property
    def is_together(self) -> bool:
        """True if steps that stand beside each other may run in this call."""
        return self._call.is_together and self._limits.parallel

    def keep(self, op: StepOp) -> bool:
        """Keep a step's result, if the handler may go on after it in this call."""
        if op.op is not Opcode.STEP_RUN or not self.may_begin:
            return False
        self.keep_beside(op)
        return True

    def keep_beside(self, op: StepOp) -> None:
        """Keep the result of a step that ran beside others: also when nothing more may begin."""
        with self._lock:
            self._unsaved.append(op)
            self._bytes += len(op.data)
            self.is_used = True
            interval = self._limits.interval_seconds
            # In a test without a server no time passes while a step runs.
            if self._timer is None and interval is not None and standin.current.get() is None:
                self._timer = threading.Timer(interval, self.save)
                self._timer.daemon = True
                self._timer.start()

    async def save_before(self, step: NewStep) -> None:
        """Save what is due before a step; where its work runs in a thread, in that thread.

        Raises:
            NotSaved: If that failed; also from the work of the step, before it does anything.
        """
        if not self.is_due:
            return
        work = step.work
        if work is not None and not inspect.iscoroutinefunction(work):
            step.work = partial(self._save_and_call, work)
        elif not await self.asave():
            raise NotSaved

    def _save_and_call(self, work: Callable[[], Any]) -> Any:
        if not self.save():
            raise NotSaved
        return work()

    async def asave(self) -> bool:
        """Save all results without holding up the event loop; see `save`."""
        return not self._unsaved or await asyncio.to_thread(self.save)

    def save(self) -> bool:
        """Save all results; returns False if the call must end with them instead."""
        with self._saving:
            self._stop_timer()
            for ops in _in_posts(self.unsaved):
                if self.is_stale or self.has_failed or self._is_closed:
                    break
                self._save(ops)
        return not (self.is_stale or self.has_failed)

    def close(self) -> None:
        """Save nothing more: what is unsaved travels with the reply. Waits for a saving under way."""
        self._stop_timer()
        with self._saving:
            self._is_closed = True

    async def aclose(self) -> None:
        """Save nothing more, without holding up the event loop; see `close`."""
        if self._saving.locked():
            await asyncio.to_thread(self.close)
        else:
            self.close()

    def _stop_timer(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _save(self, ops: tuple[StepOp, ...]) -> None:
        from stepbase.sdk.post import post

        answer = drive(tried(partial(self._request, ops)), post)
        if 200 <= answer.status < 300:
            with self._lock:
                del self._unsaved[: len(ops)]
                self._bytes = sum(len(op.data) for op in self._unsaved)
            return
        self.is_stale = answer.status == 409
        self.has_failed = True
        if not self.is_stale:
            logger.warning(
                "run %s: the server did not take results on the way (%s); the call ends with them instead, "
                "which is slower and loses nothing",
                self._call.run_id,
                f"HTTP {answer.status}" if answer.status else answer.body.decode(),
            )

    def _request(self, ops: tuple[StepOp, ...]) -> Asking:
        call = self._call
        head = dumps(
            {
                "run_id": call.run_id,
                "fn_id": call.fn_id,
                "qi_id": call.qi_id,
                "request_id": call.request_id,
                "generation_id": call.generation_id,
                "request_started_at": self._began_ms,
                "ts": clock.now_ms(),
            }
        )
        body = f'{head[:-1]},"steps":{ops_text(ops)}}}'.encode()
        url = f"{self._settings.api_origin}/v1/checkpoint/{call.run_id}/async"
        return ask("POST", url, self._settings, {"content-type": "application/json"}, body)


def _in_posts(ops: tuple[StepOp, ...]) -> Iterator[tuple[StepOp, ...]]:
    """Divide results so that each part can be sent at once."""
    first = size = 0
    for i, op in enumerate(ops):
        if i > first and size + len(op.data) > MAX_POST_BYTES:
            yield ops[first:i]
            first, size = i, 0
        size += len(op.data)
    if first < len(ops):
        yield ops[first:]


def fitting(ops: tuple[StepOp, ...]) -> tuple[StepOp, ...]:
    """Return as many of the first results as one reply can hold."""
    return next(_in_posts(ops), ())


def stale() -> StaleCallError:
    """Return the error that ends a call which the server has given up."""
    return StaleCallError(
        "the server has given this call up: the run has ended, or another call goes on with it"
    )


def open_for(
    call: Call, option: bool | Checkpointing, settings: InngestConfig
) -> Checkpoints | None:
    """Return the checkpoints of a call, or None if it must end with its first step.

    Only calls for the next step qualify that have not failed before: a further attempt counts for one
    step, and the server has to be told which (protocol reference, checkpointing).
    """
    if option is False or call.is_targeted or call.is_planning or call.attempt > 0:
        return None
    if not (call.fn_id and call.qi_id):
        return None
    return Checkpoints(Checkpointing() if option is True else option, settings, call)

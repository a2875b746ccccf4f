"""Unfinished steps: what is decided about them, how their work is run, what is reported.

Also the base of the two `step` arguments: what they share, and the rule that steps contain no steps.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from stepbase import clock
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed, verbs
from stepbase.sdk.event import Event
from stepbase.sdk.fault import CodedError, step_fault
from stepbase.sdk.replay import NewStep, Replay, StepOp

T = TypeVar("T")

_inside: ContextVar[str | None] = ContextVar("stepbase_inside_step", default=None)


class NotSaved(BaseException):
    """Raised before a step's work when what comes before it could not be saved; no error of the step."""


class Sender(Protocol):
    """Sends events; an `App` does."""

    async def send_events(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send on the running event loop."""

    def send_events_sync(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send, blocking."""


class Steps:
    """What both faces share."""

    __slots__ = ("_replay", "_sender")

    def __init__(self, sender: Sender, replay: Replay) -> None:
        self._sender = sender
        self._replay = replay

    def idempotency_key(self, name: str) -> str:
        """Return a key for another system (payments, mail) that stays the same over replays and retries.

        Args:
            name: Tells several keys of one run apart, e.g. ``"charge"``.
        """
        return verbs.stable_key(self._replay.run_id, f"key:{name}")

    def _open(self) -> Replay:
        outer = _inside.get()
        if outer is not None:
            raise CodedError(
                f'a step was called inside step "{outer}": steps cannot contain steps. '
                "Call it from the handler, after that step",
                "step_nested",
            )
        return self._replay


def current_step() -> str | None:
    """Return the id of the step whose work the code that asks is part of, or None."""
    return _inside.get()


def is_inside_step() -> bool:
    """Say whether the code that asks runs as the work of a step."""
    return _inside.get() is not None


def perform(replay: Replay, new: NewStep) -> StepOp:
    """Run an unfinished step's work and return the op that tells how it went."""
    token = _inside.set(new.place.step_id)
    watch = _Watch()
    try:
        return watch.stop(_succeeded(new, call_work(_work_of(new))))
    except Exception as error:
        return watch.stop(_failed(replay, new, error))
    finally:
        _inside.reset(token)


async def perform_async(replay: Replay, new: NewStep) -> StepOp:
    """Run an unfinished step's work on the event loop; plain functions run in a thread."""
    import asyncio

    token = _inside.set(new.place.step_id)
    watch = _Watch()
    try:
        return watch.stop(_succeeded(new, await acall_work(_work_of(new))))
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # the step itself is not wanted any more
        return watch.stop(_failed(replay, new, error))  # what it waited for was cancelled
    except Exception as error:
        return watch.stop(_failed(replay, new, error))
    finally:
        _inside.reset(token)


class _Watch:
    """Says of a step's op when its work ran."""

    __slots__ = ("_began", "_from")

    def __init__(self) -> None:
        self._began, self._from = clock.now_ms(), clock.monotonic()

    def stop(self, op: StepOp) -> StepOp:
        took = round((clock.monotonic() - self._from) * 1e9)
        op.timing = (self._began * 1_000_000, took)
        return op


def call_work(work: Callable[[], Any]) -> Any:
    """Call a step's work, async or plain, and wait for it."""
    value = work()
    if not inspect.isawaitable(value):
        return value
    import asyncio

    return asyncio.run(_await(value))


async def acall_work(work: Callable[[], Any]) -> Any:
    """Call a step's work on the event loop; a plain function runs in a thread."""
    if inspect.iscoroutinefunction(work):
        return await work()
    import asyncio

    value = await asyncio.to_thread(work)
    return await value if inspect.isawaitable(value) else value


async def _await(value: Awaitable[T]) -> T:
    return await value


def _work_of(new: NewStep) -> Callable[[], Any]:
    if new.work is None:
        raise AssertionError("only steps with work are run here")
    return new.work


def _succeeded(new: NewStep, value: object) -> StepOp:
    what = f'step "{new.place.step_id}"'
    if new.is_raw:
        value = typed.decode(value, new.returns, what)
    data = typed.encode(value, new.returns, what)
    return StepOp(new.place, Opcode.STEP_RUN, new.name, new.opts, data)


def _failed(replay: Replay, new: NewStep, error: BaseException) -> StepOp:
    # As TypeScript: errors inside a step fail the step, never the whole run (docs/protocol.md, errors).
    what = step_fault(error)
    # What is away has not failed: only the server knows how long it has been, and when that is enough.
    is_outage = bool(getattr(error, "is_outage", False))
    is_final = what.no_retry or (replay.is_last_attempt and not is_outage)
    return StepOp(
        new.place,
        Opcode.STEP_FAILED if is_final else Opcode.STEP_ERROR,
        new.name,
        new.opts,
        error=what.error,
        no_retry=what.no_retry,
        retry_after=None if is_final else what.retry_after,
        is_outage=is_outage,
    )

"""The `step` argument of handlers: `Step` for `async def`, `SyncStep` for `def`.

Both are faces over `sdk.verbs`. An async step that is not finished parks: its coroutine hands a `Parked`
to the driver of the call (`sdk.execution`), which says whether to run it, and ends the call. A sync one
runs in place and leaves the handler by `Suspend`. Either way the handler's `finally` blocks run.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar, overload

from stepbase import clock
from stepbase.errors import Suspend
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed, verbs
from stepbase.sdk.event import Event, Sendable, to_events
from stepbase.sdk.fault import CodedError, step_fault
from stepbase.sdk.replay import Decision, Replay, StepOp
from stepbase.sdk.verbs import NewStep, Verb
from stepbase.supabase.call import RpcCall, prepare

T = TypeVar("T")
P = ParamSpec("P")

_inside: ContextVar[str | None] = ContextVar("stepbase_inside_step", default=None)


class Sender(Protocol):
    """Sends events; an `App` does."""

    async def send_events(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send on the running event loop."""

    def send_events_sync(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send, blocking."""


class Parked:
    """What an unfinished async step hands to the driver; None once the step has been reported."""

    __slots__ = ("new",)

    def __init__(self, new: NewStep | None) -> None:
        self.new = new

    def __await__(self) -> Generator["Parked", Decision, Decision]:
        return (yield self)


class _Steps:
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


class Step(_Steps):
    """Durable steps of an async handler; every method is awaited.

    Ids name the steps of a run and must stay the same between calls; the same id may be used again
    (in a loop, say) as long as the order of uses does not change.
    """

    __slots__ = ("_task",)

    def __init__(self, sender: Sender, replay: Replay) -> None:
        super().__init__(sender, replay)
        self._task: object = None

    def bind(self, task: object) -> None:
        """Say which task runs the handler."""
        self._task = task

    @overload
    def run(
        self,
        step_id: str,
        function: Callable[..., Any],
        *args: Any,
        returns: type[T],
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self,
        step_id: str,
        function: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, step_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    def run(
        self,
        step_id: str,
        function: Callable[..., Any],
        *args: Any,
        returns: Any = typed.UNTYPED,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Run a function once, keep its result, and retry it on its own when it raises.

        At least once by nature: if the process dies between the function's effect and the reply it
        runs again. A plain function runs in a thread, so that it blocks nobody.

        Args:
            step_id: Name of the step.
            function: Async or plain; its result must be JSON, or typed by its return annotation.
            returns: The type of the result, if the annotation does not say.

        Raises:
            StepError: When it has failed for good; catch it to go on without the step.
        """
        return self._do(verbs.run(self._open(), step_id, function, args, kwargs, returns))

    def sleep(self, step_id: str, duration: timedelta | str) -> Coroutine[Any, Any, None]:
        """Pause the run for a `timedelta` or ``"2h"``, at most 366 days; nothing is held meanwhile."""
        return self._do(verbs.sleep(self._open(), step_id, duration, clock.utcnow))

    def sleep_until(self, step_id: str, when: datetime | str) -> Coroutine[Any, Any, None]:
        """Pause the run until an aware datetime or ISO 8601 time; a past one does not pause it."""
        return self._do(verbs.sleep_until(self._open(), step_id, when, clock.utcnow))

    def send_event(
        self, step_id: str, events: Sendable | Sequence[Sendable]
    ) -> Coroutine[Any, Any, list[str]]:
        """Send one event or several, once; returns the server's ids of them."""
        send: Callable[[Sequence[Event[Any]]], Any] = self._sender.send_events
        return self._do(verbs.send_event(self._open(), step_id, to_events(events), send))

    def patch(self, name: str) -> Coroutine[Any, Any, bool]:
        """Return True in runs that reach this code for the first time, False in those that passed it before.

        So that changed code can tell: ``if await step.patch("two-letters"): … else: <the old code>``.
        """
        return self._do(verbs.patch(self._open(), name))

    @overload
    def rpc(
        self,
        call: RpcCall[T],
        *,
        id: str | None = None,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def rpc(
        self,
        call: str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
        returns: type[T],
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def rpc(
        self,
        call: str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, Any]: ...
    def rpc(
        self,
        call: RpcCall[Any] | str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
        returns: Any = typed.UNTYPED,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Call an SQL function exactly once: its effect and its result are committed together.

        A retry, a crash after the commit and a repeated delivery all get the first result.

        Args:
            call: A typed call (`RpcCall`), or the function's name with `args`.
            id: The step's id; the function's name if not given.
            key: A business key such as ``f"award:{source_id}"``: survives reruns and redelivery, not
                only retries. Give one to whatever moves money.
            returns: The type of the result, for a call by name.
            as_user: Claims of a user (``event.user``): the call runs under row level security as them.
            timeout: How long it may wait for locks, another call's with the same key included.

        Raises:
            StepError: When it has failed for good, e.g. because the function raised P0001.
        """
        from stepbase.supabase import rpc

        prepared = prepare(self._replay.run_id, call, args, key, returns, as_user, timeout)
        return self._do(verbs.rpc(self._open(), id or prepared.function, prepared, rpc.acall))

    async def _do(self, verb: Verb[T]) -> T:
        try:
            new = next(verb)
        except StopIteration as done:
            value: T = done.value
            return value
        await self._unfinished(new)

    async def _unfinished(self, new: NewStep) -> NoReturn:
        self._check_task(new)
        if await Parked(new) is Decision.RUN:
            self._replay.report(await perform_async(self._replay, new))
        await Parked(None)
        raise AssertionError("a reported step is never resumed")

    def _check_task(self, new: NewStep) -> None:
        """Refuse steps in tasks the handler made: what they wait for cannot be known here yet."""
        import asyncio

        if asyncio.current_task() is not self._task:
            raise CodedError(
                f'step "{new.place.step_id}" was reached inside another task (asyncio.gather, TaskGroup, '
                "create_task or wait_for): await steps one after another, in the handler itself",
                "step_parallel",
            )


class SyncStep(_Steps):
    """Durable steps of a plain `def` handler: the methods of `Step`, without await."""

    __slots__ = ()

    @overload
    def run(
        self,
        step_id: str,
        function: Callable[..., Any],
        *args: Any,
        returns: type[T],
        **kwargs: Any,
    ) -> T: ...
    @overload
    def run(
        self,
        step_id: str,
        function: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    def run(
        self, step_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    def run(
        self,
        step_id: str,
        function: Callable[..., Any],
        *args: Any,
        returns: Any = typed.UNTYPED,
        **kwargs: Any,
    ) -> Any:
        """Run a function once, keep its result, and retry it on its own when it raises.

        See `Step.run`.
        """
        return self._do(verbs.run(self._open(), step_id, function, args, kwargs, returns))

    def sleep(self, step_id: str, duration: timedelta | str) -> None:
        """Pause the run for a `timedelta` or ``"2h"``, at most 366 days; nothing is held meanwhile."""
        self._do(verbs.sleep(self._open(), step_id, duration, clock.utcnow))

    def sleep_until(self, step_id: str, when: datetime | str) -> None:
        """Pause the run until an aware datetime or ISO 8601 time; a past one does not pause it."""
        self._do(verbs.sleep_until(self._open(), step_id, when, clock.utcnow))

    def send_event(self, step_id: str, events: Sendable | Sequence[Sendable]) -> list[str]:
        """Send one event or several, once; returns the server's ids of them."""
        send = self._sender.send_events_sync
        return self._do(verbs.send_event(self._open(), step_id, to_events(events), send))

    def patch(self, name: str) -> bool:
        """Return True in runs that reach this code for the first time; see `Step.patch`."""
        return self._do(verbs.patch(self._open(), name))

    @overload
    def rpc(
        self,
        call: RpcCall[T],
        *,
        id: str | None = None,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> T: ...
    @overload
    def rpc(
        self,
        call: str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
        returns: type[T],
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> T: ...
    @overload
    def rpc(
        self,
        call: str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Any: ...
    def rpc(
        self,
        call: RpcCall[Any] | str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
        returns: Any = typed.UNTYPED,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Any:
        """Call an SQL function exactly once: its effect and its result are committed together.

        See `Step.rpc`.
        """
        from stepbase.supabase import rpc

        prepared = prepare(self._replay.run_id, call, args, key, returns, as_user, timeout)
        return self._do(verbs.rpc(self._open(), id or prepared.function, prepared, rpc.call))

    def _do(self, verb: Verb[T]) -> T:
        try:
            new = next(verb)
        except StopIteration as done:
            value: T = done.value
            return value
        decision = answer(self._replay, new)
        if decision is Decision.RUN:
            self._replay.report(perform(self._replay, new))
        raise Suspend


def answer(replay: Replay, new: NewStep) -> Decision:
    """Decide about an unfinished step, and report it if the server is to do the rest."""
    decision = replay.decide(new.place, new.opcode)
    if decision is Decision.REPORT:
        planned = new.opcode is Opcode.STEP_RUN
        opcode = Opcode.STEP_PLANNED if planned else new.opcode
        replay.report(StepOp(new.place, opcode, new.name, new.opts))
    return decision


def perform(replay: Replay, new: NewStep) -> StepOp:
    """Run an unfinished step's work and return the op that tells how it went."""
    token = _inside.set(new.place.step_id)
    try:
        value = _work_of(new)()
        if inspect.isawaitable(value):
            import asyncio

            value = asyncio.run(_await(value))
        return _succeeded(new, value)
    except Exception as error:
        return _failed(replay, new, error)
    finally:
        _inside.reset(token)


async def perform_async(replay: Replay, new: NewStep) -> StepOp:
    """Run an unfinished step's work on the event loop; plain functions run in a thread."""
    token = _inside.set(new.place.step_id)
    try:
        work = _work_of(new)
        if inspect.iscoroutinefunction(work):
            value = await work()
        else:
            import asyncio

            value = await asyncio.to_thread(work)
            if inspect.isawaitable(value):
                value = await value
        return _succeeded(new, value)
    except Exception as error:
        return _failed(replay, new, error)
    finally:
        _inside.reset(token)


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


def _failed(replay: Replay, new: NewStep, error: Exception) -> StepOp:
    # As TypeScript: errors inside a step fail the step, never the whole run (docs/protocol.md, errors).
    what = step_fault(error)
    is_final = what.no_retry or replay.is_last_attempt
    replay.no_retry = what.no_retry
    replay.retry_after = None if is_final else what.retry_after
    opcode = Opcode.STEP_FAILED if is_final else Opcode.STEP_ERROR
    return StepOp(new.place, opcode, new.name, new.opts, error=what.error)

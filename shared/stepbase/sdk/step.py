"""The `step` argument of `async def` handlers.

A step that is not finished waits for its turn (`sdk.turns`): it is run here, or reported, and the call
ends by CancelledError. The handler's `finally` blocks run.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from stepbase import clock
from stepbase.sdk import typed, verbs
from stepbase.sdk.event import Event, Sendable
from stepbase.sdk.replay import RACE, NewStep, Replay
from stepbase.sdk.server_steps import ServerSteps
from stepbase.sdk.verbs import Verb
from stepbase.sdk.work import Sender
from stepbase.supabase.call import RpcCall, prepare
from stepbase.supabase.table import PreparedWrite, Table

if TYPE_CHECKING:
    from stepbase.sdk.turns import Turns

T = TypeVar("T")
P = ParamSpec("P")
# The steps are annotated Coroutine[None, None, …]: with Any there, mypy has only Any for a gather of them.

_racing: ContextVar[bool] = ContextVar("stepbase_racing", default=False)


class Step(ServerSteps):
    """Durable steps of an async handler; every method is awaited.

    Ids name the steps of a run and must stay the same between calls; the same id may be used again
    (in a loop, say) as long as the order of uses does not change.
    """

    __slots__ = ("_turns",)

    def __init__(self, sender: Sender, replay: Replay, turns: "Turns") -> None:
        super().__init__(sender, replay)
        self._turns = turns

    @overload
    def run(
        self,
        step_id: str,
        function: Callable[..., Any],
        *args: Any,
        returns: type[T],
        **kwargs: Any,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def run(
        self,
        step_id: str,
        function: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def run(
        self, step_id: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, T]: ...
    def run(
        self,
        step_id: str,
        function: Callable[..., Any],
        *args: Any,
        returns: Any = typed.UNTYPED,
        **kwargs: Any,
    ) -> Coroutine[None, None, Any]:
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

    def sleep(self, step_id: str, duration: timedelta | str) -> Coroutine[None, None, None]:
        """Pause the run for a `timedelta` or ``"2h"``, at most 366 days; nothing is held meanwhile."""
        return self._do(verbs.sleep(self._open(), step_id, duration, clock.utcnow))

    def sleep_until(self, step_id: str, when: datetime | str) -> Coroutine[None, None, None]:
        """Pause the run until an aware datetime or ISO 8601 time; a past one does not pause it."""
        return self._do(verbs.sleep_until(self._open(), step_id, when, clock.utcnow))

    def send_event(
        self, step_id: str, events: Sendable | Sequence[Sendable]
    ) -> Coroutine[None, None, list[str]]:
        """Send one event or several, once; returns the server's ids of them."""
        send: Callable[[Sequence[Event[Any]]], Any] = self._sender.send_events
        return self._do(verbs.send_event(self._open(), step_id, events, send))

    def patch(self, name: str) -> Coroutine[None, None, bool]:
        """Return True in runs that reach this code for the first time, False in those that passed it before.

        So that changed code can tell: ``if await step.patch("two-letters"): … else: <the old code>``.
        """
        return self._do(verbs.patch(self._open(), name))

    async def race(self, *branches: Awaitable[T]) -> T:
        """Return the result of the branch that ends first, or raise its error; the others are left.

        A branch is whatever can be awaited: a step, or a coroutine of several. The order in which
        branches ended is the server's, so the winner is the same at every replay. Of the losers no
        step is begun any more; one under way ends, and is forgotten.

        ::

            answer = await step.race(ask_the_fast_one(step), ask_the_cheap_one(step))
        """
        from stepbase.sdk.branches import race

        token = _racing.set(True)
        try:
            return await race(branches)
        finally:
            _racing.reset(token)

    async def timeout(
        self, duration: timedelta | str, branch: Awaitable[T], *, id: str = "timeout"
    ) -> T:
        """Return the result of a branch, if it ends in time; the clock is the run's, not the call's.

        ::

            receipt = await step.timeout("2d", step.invoke("approve", "shop-approve"))

        Args:
            duration: A `timedelta`, or text such as ``"2d"``.
            branch: A step, or a coroutine of several.
            id: Names the sleep that the branch races against.

        Raises:
            TimeoutError: If the time is over first; no further step of the branch is begun.
        """
        from stepbase.sdk.branches import within

        token = _racing.set(True)
        try:
            return await within(branch, lambda: self.sleep(id, duration), f'"{id}": {duration}')
        finally:
            _racing.reset(token)

    @overload
    def rpc(
        self,
        call: RpcCall[T],
        *,
        id: str | None = None,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Coroutine[None, None, T]: ...
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
    ) -> Coroutine[None, None, T]: ...
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
    ) -> Coroutine[None, None, Any]: ...
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
    ) -> Coroutine[None, None, Any]:
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

    @overload
    def table(
        self,
        step_id: str,
        name: str,
        *,
        key: str | None = None,
        returns: type[T],
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Table[Coroutine[None, None, T]]: ...
    @overload
    def table(
        self,
        step_id: str,
        name: str,
        *,
        key: str | None = None,
        returns: None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Table[Coroutine[None, None, None]]: ...
    @overload
    def table(
        self,
        step_id: str,
        name: str,
        *,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Table[Coroutine[None, None, list[dict[str, Any]]]]: ...
    def table(
        self,
        step_id: str,
        name: str,
        *,
        key: str | None = None,
        returns: Any = typed.UNTYPED,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Table[Any]:
        """Write to a table exactly once: ``step.table("pay", "orders").update({"paid": True}, id=7)``.

        The rows and the ledger's entry are committed together, as for `rpc`. Then comes ``insert``,
        ``upsert``, ``update`` or ``delete``, which is what makes the step and returns the written rows.

        Args:
            step_id: Name of the step.
            name: Name of the table or view, with its schema if that is not ``public``.
            key: A business key such as ``f"order:{order_id}"``: survives reruns and redelivery, not only
                retries. It is another one than the same key of an `rpc`.
            returns: The type of the rows, ``list[Model]``; None if they are not wanted.
            as_user: Claims of a user (``event.user``): the write is under row level security as them.
            timeout: How long it may wait for locks, another write's with the same key included.

        Raises:
            StepError: By the step, when it has failed for good, e.g. because of a unique constraint.
        """
        from stepbase.supabase import rpc

        def write(prepared: PreparedWrite) -> Coroutine[None, None, Any]:
            return self._do(verbs.rpc(self._open(), step_id, prepared, rpc.acall))

        return Table(write, self._replay.run_id, name, key, returns, as_user, timeout)

    def _do(self, verb: Verb[T]) -> Coroutine[None, None, T]:
        step = self._step(verb)
        self._turns.called[verb] = step
        return step

    async def _step(self, verb: Verb[T]) -> T:
        self._turns.called.pop(verb, None)
        try:
            new = next(verb)
        except StopIteration as done:
            value: T = done.value
            return value
        return await self._settle(verb, new)

    async def _settle(self, verb: Verb[T], new: NewStep) -> T:
        if _racing.get():
            new.is_racing = True
            new.opts = {**(new.opts or {}), **RACE}
        value = await self._turns.settle(new)
        try:
            verb.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
        raise AssertionError("a step is one NewStep")

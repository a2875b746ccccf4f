"""The `step` argument of plain `def` handlers.

A step that is not finished runs in place; then the handler is left by `Suspend`. Its `finally` blocks run.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, overload

from stepbase import clock
from stepbase.sdk import typed, verbs
from stepbase.sdk.event import Sendable
from stepbase.sdk.replay import Replay
from stepbase.sdk.sync_server_steps import SyncServerSteps
from stepbase.sdk.sync_turns import SyncTurns
from stepbase.sdk.verbs import Verb
from stepbase.sdk.work import Sender
from stepbase.supabase.call import RpcCall, prepare
from stepbase.supabase.table import PreparedWrite, Table

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
P = ParamSpec("P")


class SyncStep(SyncServerSteps):
    """Durable steps of a plain `def` handler: the methods of `Step`, without await."""

    __slots__ = ("_turns",)

    def __init__(self, sender: Sender, replay: Replay, turns: SyncTurns) -> None:
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
        return self._do(verbs.send_event(self._open(), step_id, events, send))

    def patch(self, name: str) -> bool:
        """Return True in runs that reach this code for the first time; see `Step.patch`."""
        return self._do(verbs.patch(self._open(), name))

    @overload
    def parallel(self, one: Callable[[], T], two: Callable[[], U], /) -> tuple[T, U]: ...
    @overload
    def parallel(
        self, one: Callable[[], T], two: Callable[[], U], three: Callable[[], V], /
    ) -> tuple[T, U, V]: ...
    @overload
    def parallel(self, *branches: Callable[[], T]) -> tuple[T, ...]: ...
    def parallel(self, *branches: Callable[[], Any]) -> tuple[Any, ...]:
        """Run branches beside each other: the server calls for each of their steps at once.

        ::

            mail, sms = step.parallel(lambda: step.run("mail", mail_it), lambda: step.run("sms", text_it))

        A branch is a callable without arguments; it may do several steps. Returns when all have ended,
        their results in order; raises the error of the first that failed, once all have ended. A branch
        runs again at every call, so what it does outside of steps must bear that.
        """
        self._open()
        return tuple(self._turns.parallel(branches))

    def race(self, *branches: Callable[[], T]) -> T:
        """Return the result of the branch that ends first, or raise its error; see `Step.race`.

        ::

            answer = step.race(lambda: ask_the_fast_one(step), lambda: ask_the_cheap_one(step))
        """
        self._open()
        return self._turns.race(branches)

    def timeout(
        self, duration: timedelta | str, branch: Callable[[], T], *, id: str = "timeout"
    ) -> T:
        """Return the result of a branch, if it ends in time; see `Step.timeout`.

        Raises:
            TimeoutError: If the time is over first; no further step of the branch is begun.
        """

        def clock_runs_out() -> T:
            self.sleep(id, duration)
            raise TimeoutError(f'step.timeout "{id}": {duration} is over')

        return self.race(branch, clock_runs_out)

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
    ) -> Table[T]: ...
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
    ) -> Table[None]: ...
    @overload
    def table(
        self,
        step_id: str,
        name: str,
        *,
        key: str | None = None,
        as_user: Mapping[str, Any] | None = None,
        timeout: timedelta | str | None = None,
    ) -> Table[list[dict[str, Any]]]: ...
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

        See `Step.table`.
        """
        from stepbase.supabase import rpc

        def write(prepared: PreparedWrite) -> Any:
            return self._do(verbs.rpc(self._open(), step_id, prepared, rpc.call))

        return Table(write, self._replay.run_id, name, key, returns, as_user, timeout)

    def _do(self, verb: Verb[T]) -> T:
        try:
            new = next(verb)
        except StopIteration as done:
            value: T = done.value
            return value
        value = self._turns.settle(new)
        try:
            verb.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
        raise AssertionError("a step is one NewStep")

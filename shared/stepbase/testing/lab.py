"""The two faces of a lab: `Lab` makes its calls on the running event loop, `SyncLab` blocks."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from stepbase.protocol.duration import to_timedelta
from stepbase.sdk.event import Sendable
from stepbase.sdk.function import Function
from stepbase.testing.directory import request
from stepbase.testing.given import Given
from stepbase.testing.run import Run
from stepbase.testing.story import Script, Story

T = TypeVar("T")
R = TypeVar("R")


class Lab(Story):
    """Apps in memory, for async tests; see `Story` for its arguments.

    ::

        async with Lab(app) as lab:
            lab.fake_rpc("get_merchant_config", {"award_delay_hours": 168})
            [run] = await lab.send(AwardRequested(…))
            assert run.status == "sleeping"
            await lab.advance("7d")
            assert run.result == Awarded(…)
    """

    async def __aenter__(self) -> Self:
        """See `__enter__`."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `__exit__`."""
        self.__exit__(kind, error, trace)

    async def send(self, events: Sendable | Sequence[Sendable]) -> list[Run[Any]]:
        """Send events as `App.send` takes them; go on until every run waits. Returns the runs started."""
        return await self._drive(self._send(events))

    @overload
    async def start(self, function: Function[R], event: Given = None) -> Run[R]: ...
    @overload
    async def start(self, function: str, event: Given = None) -> Run[Any]: ...
    async def start(self, function: Function[Any] | str, event: Given = None) -> Run[Any]:
        """Start one function, whatever its triggers are: with an event, its data, or a batch of events."""
        return await self._drive(self._start(function, event))

    async def advance(self, duration: timedelta | str) -> None:
        """Let time pass; everything that falls due meanwhile happens at its own time."""
        await self._drive(self._advance_to(self.now + to_timedelta(duration)))

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until then."""
        await self._drive(self._advance_to(when))

    async def finish(self, run: Run[R]) -> Run[R]:
        """Let as much time pass as a run needs to end."""
        return await self._drive(self._finish(run))

    async def signal(self, name: str, data: Any = None) -> Run[Any]:
        """Give a signal to the run that waits for it."""
        return await self._drive(self._signal(name, data))

    async def cancel(self, run: Run[Any]) -> None:
        """Cancel a run, as a person could."""
        await self._drive(self._cancel(run))

    async def _drive(self, script: Script[T]) -> T:
        response: Any = None
        while True:
            try:
                call = script.send(response)
            except StopIteration as done:
                result: T = done.value
                return result
            with self.within(self.world_of(call)):
                response = await self.endpoint_of(call).ahandle(request(call.leased, call.body))


class SyncLab(Story):
    """Apps in memory, for plain tests: `Lab` without await; see `Story` for its arguments."""

    def send(self, events: Sendable | Sequence[Sendable]) -> list[Run[Any]]:
        """See `Lab.send`."""
        return self._drive(self._send(events))

    @overload
    def start(self, function: Function[R], event: Given = None) -> Run[R]: ...
    @overload
    def start(self, function: str, event: Given = None) -> Run[Any]: ...
    def start(self, function: Function[Any] | str, event: Given = None) -> Run[Any]:
        """See `Lab.start`."""
        return self._drive(self._start(function, event))

    def advance(self, duration: timedelta | str) -> None:
        """See `Lab.advance`."""
        self._drive(self._advance_to(self.now + to_timedelta(duration)))

    def advance_to(self, when: datetime) -> None:
        """See `Lab.advance_to`."""
        self._drive(self._advance_to(when))

    def finish(self, run: Run[R]) -> Run[R]:
        """See `Lab.finish`."""
        return self._drive(self._finish(run))

    def signal(self, name: str, data: Any = None) -> Run[Any]:
        """See `Lab.signal`."""
        return self._drive(self._signal(name, data))

    def cancel(self, run: Run[Any]) -> None:
        """See `Lab.cancel`."""
        self._drive(self._cancel(run))

    def _drive(self, script: Script[T]) -> T:
        response: Any = None
        while True:
            try:
                call = script.send(response)
            except StopIteration as done:
                result: T = done.value
                return result
            with self.within(self.world_of(call)):
                response = self.endpoint_of(call).handle(request(call.leased, call.body))

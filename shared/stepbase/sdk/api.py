"""What an app may ask its server, beside sending events: runs, events, signals, cancelling.

`Api` is what ``app.api`` is and `ApiSync` what ``app.api_sync`` is: two faces of the same scripts. Each
question is tried as often as a sending of events.
"""

from datetime import datetime
from typing import Any

from stepbase.sdk import questions
from stepbase.sdk.ask import adrive, drive
from stepbase.sdk.function import Function
from stepbase.sdk.questions import ReceivedEvent, Run


class Api:
    """Questions to the server, for async code.

    Every method raises `ApiError`: with status 404 for what the server does not know, 401 for a wrong
    signing key.
    """

    def __init__(self, app_id: str) -> None:
        self._app_id = app_id

    async def run(self, run_id: str) -> Run:
        """Return a run."""
        return await adrive(questions.run(run_id))

    async def runs(self, event_id: str) -> list[Run]:
        """Return the runs that an event started, by the id that `app.send` returned."""
        return await adrive(questions.runs(event_id))

    async def cancel(self, run_id: str) -> None:
        """Cancel a run; one that has ended stays as it is."""
        await adrive(questions.cancel(run_id))

    async def event(self, event_id: str) -> ReceivedEvent:
        """Return an event, by the id that `app.send` returned."""
        return await adrive(questions.event(event_id))

    async def events(
        self,
        name: Any = None,
        *,
        after: datetime | None = None,
        before: datetime | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> list[ReceivedEvent]:
        """Return events, the newest first.

        Args:
            name: Only events of this name or event class.
            after, before: Only those received after, before.
            cursor: Only those older than this one: the `internal_id` of the last one seen.
            limit: At most so many, up to 100.
        """
        return await adrive(questions.events(name, after, before, cursor, limit))

    async def signal(self, name: str, data: Any = None) -> str | None:
        """Give a signal to the run that waits for it; returns its id, or None if no run does.

        If an answer is lost the signal is given again, and may then find nobody.
        """
        return await adrive(questions.signal(name, data))

    async def cancel_runs(
        self,
        function: Function | str,
        *,
        started_before: datetime,
        started_after: datetime | None = None,
        if_: str | None = None,
    ) -> str:
        """Cancel the runs of a function that started in a span of time; returns the cancellation's id.

        For stepbase's engine, which has done it when this returns, and Inngest Cloud; `inngest dev` refuses.
        May be asked again: what has ended stays as it is.

        Args:
            function: The function, or its id in this app.
            started_before: In the past.
            if_: CEL expression over `event`; only runs for which it holds.
        """
        return await adrive(
            questions.cancel_runs(self._app_id, function, started_before, started_after, if_)
        )


class ApiSync:
    """Questions to the server, for plain code; each method is that of `Api`, blocking."""

    def __init__(self, app_id: str) -> None:
        self._app_id = app_id

    def run(self, run_id: str) -> Run:
        """Return a run."""
        return drive(questions.run(run_id))

    def runs(self, event_id: str) -> list[Run]:
        """Return the runs that an event started, by the id that `app.send_sync` returned."""
        return drive(questions.runs(event_id))

    def cancel(self, run_id: str) -> None:
        """Cancel a run; one that has ended stays as it is."""
        drive(questions.cancel(run_id))

    def event(self, event_id: str) -> ReceivedEvent:
        """Return an event, by the id that `app.send_sync` returned."""
        return drive(questions.event(event_id))

    def events(
        self,
        name: Any = None,
        *,
        after: datetime | None = None,
        before: datetime | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> list[ReceivedEvent]:
        """Return events, the newest first; see `Api.events`."""
        return drive(questions.events(name, after, before, cursor, limit))

    def signal(self, name: str, data: Any = None) -> str | None:
        """Give a signal to the run that waits for it; see `Api.signal`."""
        return drive(questions.signal(name, data))

    def cancel_runs(
        self,
        function: Function | str,
        *,
        started_before: datetime,
        started_after: datetime | None = None,
        if_: str | None = None,
    ) -> str:
        """Cancel the runs of a function that started in a span of time; see `Api.cancel_runs`."""
        return drive(
            questions.cancel_runs(self._app_id, function, started_before, started_after, if_)
        )

"""Reports calls to the Supabase project, for functions that run on another server than our engine.

One request a call, before the answer, within a second. Whatever goes wrong with it is logged, and neither
fails the call nor is tried again: what a report would have said shows in those that follow, but for times.
"""

import inspect
import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from stepbase import clock, config, standin
from stepbase.config import SupabaseConfig
from stepbase.errors import DefinitionError
from stepbase.middleware import report
from stepbase.middleware.report import Ran, Seen
from stepbase.protocol import names
from stepbase.protocol.ids import app_uuid, function_uuid
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk import background, http
from stepbase.sdk.http import Answer, Exchange
from stepbase.sdk.message import Response
from stepbase.sdk.middleware import Input, Middleware, Output, StepInfo
from stepbase.sdk.version import SDK

logger = logging.getLogger("stepbase.middleware.monitor")

OWNED_SECONDS: Final = 60.0
"""How long nothing is reported after the database has said that its own engine has the run."""

MOST_FAILURES: Final = 3
PAUSE_SECONDS: Final = 30.0
"""After so many failures in a row nothing is reported for so long: calls must not each wait for a database
that is away."""


@dataclass(slots=True)
class _Line:
    """How reporting goes in this process, per app."""

    failures: int = 0
    quiet_until: float = 0.0


_lines: dict[str, _Line] = {}


class Monitor(Middleware):
    """Reports each call to your Supabase project, so that runs on Inngest show in its dashboard.

    ::

        app = App("shop", middleware=[Monitor])

    Needs `SUPABASE_URL` and a secret key. Put it first in the list: then it sees data as encrypted as they
    leave the process. It does nothing where stepbase's own engine makes the calls, whose tables are the
    history already.

    Args:
        payloads: Whether data of events, results of steps and outputs are stored too (redacted, at most
            64 KiB each).
        messages: Whether messages and stacks of errors are stored, besides their names.
        seconds: How long a report may take.

    Raises:
        DefinitionError: If `seconds` is not between 0 and 10.
    """

    def __init__(
        self, *, payloads: bool = False, messages: bool = True, seconds: float = 1.0
    ) -> None:
        if not 0 < seconds <= 10:
            raise DefinitionError(f"Monitor: seconds=… is between 0 and 10, got {seconds!r}")
        self._payloads = payloads
        self._messages = messages
        self._seconds = seconds
        self._began = 0.0
        self._call: Input | None = None
        self._events: list[dict[str, Any]] = []
        self._known: dict[str, Any] = {}
        self._ran: dict[str, Ran] = {}

    @contextmanager
    def around_call(self) -> Iterator[None]:
        """Note when the call began."""
        self._began = clock.monotonic()
        yield

    def transform_input(self, input: Input) -> None:
        """Note what the call is about."""
        self._call = input
        self._events = [dict(event) for event in input.events]
        self._known = dict(input.steps)

    @contextmanager
    def around_step(self, step: StepInfo) -> Iterator[None]:
        """Note when a step ran."""
        since = clock.monotonic()
        ran = self._ran[step.hashed] = Ran(step.step_id, since, since, step.op)
        try:
            yield
        finally:
            ran.until = clock.monotonic()

    def transform_output(self, output: Output) -> None:
        """Note what a step gave; it may not be in the answer, if it was saved on the way."""
        ran = None if output.step is None else self._ran.get(output.step.hashed)
        if ran is not None:
            ran.error = output.error
            ran.data = output.data if self._payloads else None

    def before_response(self, response: Response) -> Any:
        """Report the call."""
        if self._call is None or self._is_ours() or standin.current.get() is not None:
            return None
        line = _lines.setdefault(self.app.id, _Line())
        if clock.monotonic() < line.quiet_until:
            return None
        try:
            settings = config.supabase()
        except LookupError as error:
            line.quiet_until = float("inf")
            logger.warning("calls are not reported: %s", error)
            return None
        sending = self._send(settings, response, line)
        if self.function is not None and self.function.is_async:
            return sending
        return self._send_and_wait(sending, line)

    def _is_ours(self) -> bool:
        return self.request is None or self.request.headers.get("user-agent") == names.ENGINE_AGENT

    def _send_and_wait(self, sending: Any, line: _Line) -> None:
        try:
            background.run(sending, self._seconds + 0.1)
        except TimeoutError:
            self._failed(line, "the process's event loop is busy")
        finally:
            if inspect.getcoroutinestate(sending) == inspect.CORO_CREATED:
                sending.close()

    async def _send(self, settings: SupabaseConfig, response: Response, line: _Line) -> None:
        import asyncio

        exchange = Exchange(
            "POST",
            f"{settings.url}/rest/v1/rpc/stepbase_record",
            {
                "apikey": settings.secret_key,
                "authorization": f"Bearer {settings.secret_key}",
                "content-type": "application/json",
                "content-profile": "public",
                "user-agent": SDK,
            },
            dumps_bytes({"p_report": self._report(settings, response)}),
        )
        try:
            async with asyncio.timeout(self._seconds):
                answer = await http.asend(exchange)
        except TimeoutError:
            self._failed(line, f"no answer within {self._seconds:g} s")
            return
        self._answered(line, answer)

    def _answered(self, line: _Line, answer: Answer) -> None:
        if answer.status != 200:
            self._failed(line, _reason(answer))
            return
        line.failures = 0
        if answer.body == b'"owned"':
            line.quiet_until = clock.monotonic() + OWNED_SECONDS
            logger.debug("the database's own engine has the run: nothing to report")

    def _failed(self, line: _Line, reason: str) -> None:
        line.failures += 1
        if line.failures >= MOST_FAILURES:
            line.failures = 0
            line.quiet_until = clock.monotonic() + PAUSE_SECONDS
            reason += f"; no call is reported for {PAUSE_SECONDS:g} s"
        logger.warning("a call was not reported, which changes nothing for its run: %s", reason)

    def _report(self, settings: SupabaseConfig, response: Response) -> Mapping[str, Any]:
        call, function, request = self._call, self.function, self.request
        if call is None or function is None or request is None:
            raise AssertionError("a call has a function and a request")
        inngest = config.inngest()
        keys = (inngest.signing_key, inngest.signing_key_fallback, inngest.event_key)
        url = f"{inngest.serve_origin}{inngest.serve_path or ''}" if inngest.serve_origin else None
        url = url or request.url
        seen = Seen(
            report=secrets.token_hex(8),
            run_id=call.run_id,
            attempt=call.attempt,
            max_attempts=call.max_attempts,
            events=self._events,
            known=self._known,
            ran=self._ran,
            began=self._began,
            now=clock.monotonic(),
            status=response.status,
            body=response.body,
            no_retry=response.headers.get(names.NO_RETRY) == "true",
            payloads=self._payloads,
            messages=self._messages,
            secrets=(settings.secret_key, *(key for key in keys if key)),
        )
        return {
            **report.build(seen),
            "app": self.app.id,
            "app_id": str(app_uuid(self.app.id)),
            "url": url,
            "sdk": SDK,
            "function": function.slug,
            "function_name": function.name,
            "function_id": str(function_uuid(function.slug, url)),
        }


def _reason(answer: Answer) -> str:
    if answer.status == 0:
        return answer.body.decode(errors="replace")[:300]
    try:
        said = json.loads(answer.body)
        code, message = said.get("code"), said.get("message")
    except (ValueError, AttributeError):
        return f"HTTP {answer.status}"
    hint = ""
    if code in ("PGRST202", "42883"):
        hint = "; apply stepbase's migrations (stepbase db apply, supabase db push)"
    elif answer.status in (401, 403):
        hint = "; SUPABASE_SECRET_KEY must be the secret key, not a publishable one"
    return f"HTTP {answer.status} {code}: {str(message)[:300]}{hint}"

"""Logging of runs, and silence of ordinary loggers during replay.

`ctx.logger` is silent during replay by itself (`sdk.context.ReplayLogger`); this brings the same to
loggers that handlers and the code they call have of their own, and says what becomes of runs and steps.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from stepbase import clock
from stepbase.sdk.middleware import Input, Middleware, Output, StepInfo
from stepbase.sdk.work import current_step

_current: ContextVar["LoggingMiddleware | None"] = ContextVar("stepbase_logging", default=None)


class LoggingMiddleware(Middleware):
    """Logs how runs and steps go, with run_id, function, attempt and step as fields of each record.

    ::

        app = App("shop", middleware=[LoggingMiddleware.factory(loggers=["shop", "rewards"])])

    At INFO: a run started or finished, a step finished; at WARNING: a step or a call failed; at ERROR: a
    run failed. Never payloads, nor what errors say: only their names.

    Args:
        logger: Where to write; the app's own logger if not given.
        loggers: Names of loggers, those below them included, whose records during a call get the same
            fields, and are dropped where finished parts of the run are replayed.
    """

    def __init__(
        self, *, logger: logging.Logger | None = None, loggers: Sequence[str] = ()
    ) -> None:
        self._logger = logger
        self._loggers = (loggers,) if isinstance(loggers, str) else tuple(loggers)
        self._is_first = False
        self._is_last_attempt = False
        self.is_replaying = True
        self.fields: dict[str, object] = {}

    @contextmanager
    def around_call(self) -> Iterator[None]:
        """Make this the call that records belong to."""
        _attach(self._loggers)
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def transform_input(self, input: Input) -> None:
        """Note what the call is."""
        slug = self.function.slug if self.function else ""
        self.fields = {"run_id": input.run_id, "function": slug, "attempt": input.attempt}
        self._is_first = not input.steps and input.attempt == 0
        most = input.max_attempts
        self._is_last_attempt = most is not None and input.attempt + 1 >= most

    def before_execution(self) -> None:
        """Let records through from here on."""
        self.is_replaying = False
        if self._is_first:
            self._log(logging.INFO, "run started")

    @contextmanager
    def around_step(self, step: StepInfo) -> Iterator[None]:
        """Say how the step went, and how long it took."""
        began = clock.monotonic()
        level, said, fields = logging.INFO, "step finished", {}
        try:
            yield
        except Exception as error:
            level, said, fields = logging.WARNING, "step failed", {"error": type(error).__name__}
            raise
        finally:
            ms = round((clock.monotonic() - began) * 1000, 1)
            self._log(level, said, step=step.step_id, ms=ms, **fields)

    def transform_output(self, output: Output) -> None:
        """Say how the handler ended."""
        if output.step is not None:
            return
        if output.error is None:
            self._log(logging.INFO, "run finished")
            return
        is_final = output.is_final or self._is_last_attempt
        level, said = (
            (logging.ERROR, "run failed") if is_final else (logging.WARNING, "call failed")
        )
        self._log(level, said, error=output.error.get("name"))

    def _log(self, level: int, said: str, **fields: object) -> None:
        logger = self._logger or self.app.logger
        logger.log(level, said, extra={**self.fields, **fields})


class _DuringCalls(logging.Filter):
    """Gives records the fields of the call they belong to, and drops those of a replay."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is to be written."""
        current = _current.get()
        if current is None:
            return True
        if current.is_replaying:
            return False
        fields = {**current.fields, "step": current_step()}
        for name, value in fields.items():
            if value is not None and not hasattr(record, name):
                setattr(record, name, value)
        return True


_FILTER = _DuringCalls()
_attached: dict[str, int] = {}
"""How many loggers there were when those of a name were last looked for."""


def _attach(names: Sequence[str]) -> None:
    known = logging.root.manager.loggerDict
    for name in names:
        logging.getLogger(name).addFilter(_FILTER)
        if _attached.get(name) == len(known):
            continue
        _attached[name] = len(known)
        for other in list(known):
            if other.startswith(f"{name}."):
                logging.getLogger(other).addFilter(_FILTER)

"""Errors on their way out: the error object of the wire, and whether and when to try again."""

import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from stepbase.errors import NonRetriableError, RetryAfterError, StepError

_OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_THREADING = (
    os.path.join("asyncio", "threads.py"),
    os.path.join("concurrent", "futures", "thread.py"),
)
"""Between us and a plain function that runs in a thread."""
_MAX_CAUSES = 5
_MAX_STACK = 32_000
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (NonRetriableError, "non_retriable_error"),
    (RetryAfterError, "retry_after_error"),
)


class CodedError(NonRetriableError):
    """A final error of ours that carries the wire's `code` word; to users it is a NonRetriableError."""

    __module__ = NonRetriableError.__module__
    __qualname__ = NonRetriableError.__qualname__

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


CodedError.__name__ = NonRetriableError.__name__


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception as a reply needs it.

    Attributes:
        error: The error object `{code, name, message, stack, cause?}`.
        no_retry: True if there must be no further attempt.
        retry_after: Value of the `Retry-After` header, or None.
        exception: The exception itself.
    """

    error: dict[str, object]
    no_retry: bool
    retry_after: str | None
    exception: BaseException | None = field(default=None, repr=False, compare=False)


def step_fault(exception: BaseException) -> Fault:
    """Describe an exception raised inside a step."""
    return _fault(exception, no_retry=isinstance(exception, NonRetriableError))


def function_fault(exception: BaseException) -> Fault:
    """Describe an exception raised by a handler; a step's failure that nobody caught is final."""
    return _fault(exception, no_retry=isinstance(exception, NonRetriableError | StepError))


def _fault(exception: BaseException, *, no_retry: bool) -> Fault:
    return Fault(
        error=error_object(exception),
        no_retry=no_retry,
        retry_after=_retry_after(exception.when)
        if isinstance(exception, RetryAfterError)
        else None,
        exception=exception,
    )


def error_object(exception: BaseException, depth: int = 0) -> dict[str, object]:
    """Return the error object of the wire, causes included; our own frames are left out of stacks."""
    import traceback  # only failures need it

    if isinstance(exception, StepError):
        return _step_error_object(exception)

    shown = traceback.TracebackException(
        type(exception), exception, exception.__traceback__, compact=True
    )
    of_users = [frame for frame in shown.stack if not _is_ours(frame.filename)]
    shown.stack = traceback.StackSummary.from_list(of_users or shown.stack[-1:])
    stack = "".join(shown.format(chain=False))
    error: dict[str, object] = {
        "code": _code(exception),
        "message": clean(str(exception)),
        "name": type(exception).__name__,
        "stack": clean(stack[-_MAX_STACK:]),
    }
    if exception.__cause__ is not None and depth < _MAX_CAUSES:
        error["cause"] = error_object(exception.__cause__, depth + 1)
    return error


def _step_error_object(error: StepError) -> dict[str, object]:
    """Show a step's failure as what it was in the step."""
    shown: dict[str, object] = {
        "code": "step_errored",
        "message": clean(error.message),
        "name": clean(error.name),
        "stack": error.stack,
    }
    return shown if error.cause is None else {**shown, "cause": error.cause}


def _code(exception: BaseException) -> str:
    code = getattr(exception, "code", None)
    if isinstance(code, str) and type(exception).__module__.startswith("stepbase."):
        return code
    return next((code for kind, code in _CODES if isinstance(exception, kind)), "unknown")


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OWN_CODE) or filename.endswith(_THREADING)


def clean(text: str) -> str:
    """Write NUL characters and lone surrogates visibly: no database takes them."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _retry_after(when: datetime | timedelta | float) -> str:
    # TypeScript's forms: whole seconds for a span, ISO time for a moment.
    if isinstance(when, datetime):
        return iso_ms(when)
    seconds = when.total_seconds() if isinstance(when, timedelta) else when
    return str(math.ceil(seconds))


def iso_ms(when: datetime) -> str:
    """Write an aware datetime as the wire has it: UTC, milliseconds, Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

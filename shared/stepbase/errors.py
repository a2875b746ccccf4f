"""Every exception a user of stepbase can meet.

::

    Exception
    ├─ StepbaseError                 root of what stepbase raises
    │   ├─ NonRetriableError         users raise: stop, do not try again
    │   ├─ RetryAfterError           users raise: try again, but not before `when`
    │   ├─ StepError                 users catch: a step that failed for good
    │   ├─ DefinitionError           an app, function or option is declared wrongly
    │   ├─ SendError                 events that could not be sent
    │   ├─ ApiError                  a question to the server that was refused or not answered
    │   ├─ ProtocolError             bytes from the other side that break the protocol; knows its `status`
    │   │   └─ SignatureError        a request that is not signed, signed wrongly, or signed too long ago
    │   └─ StoreError                the engine's database refused or could not be reached
    └─ (BaseException)
        └─ Suspend                   control flow: leave the handler until the next call

Messages say what was expected, what came, where, and what to do about it.
"""

from datetime import datetime, timedelta


class StepbaseError(Exception):
    """Root of everything stepbase raises on purpose."""


class NonRetriableError(StepbaseError):
    """Raise it inside a step or a handler to fail at once, without further attempts.

    Args:
        message: What went wrong, for the person who reads the run.
    """


class RetryAfterError(StepbaseError):
    """Raise it inside a step or a handler to choose when the next attempt starts.

    The attempt still counts. Servers clip the time to between 1 second and 24 hours
    (`docs/protocol.md`, retries).

    Args:
        message: What went wrong.
        when: Earliest time of the next attempt: an aware `datetime`, a `timedelta` from now, or seconds.

    Raises:
        ValueError: If `when` is a naive datetime or lies in the past by sign (negative).
    """

    def __init__(self, message: str, when: datetime | timedelta | float) -> None:
        super().__init__(message)
        if isinstance(when, datetime) and when.tzinfo is None:
            raise ValueError(
                "RetryAfterError(when=…) needs a timezone: got a naive datetime; "
                "use datetime.now(UTC) + timedelta(…), or pass the timedelta itself"
            )
        seconds = when.total_seconds() if isinstance(when, timedelta) else when
        if isinstance(seconds, int | float) and seconds < 0:
            raise ValueError(f"RetryAfterError(when=…) must not be negative, got {when!r}")
        self.when = when


class StepError(StepbaseError):
    """A step that used up its attempts, or failed for good; catch it to go on without the step.

    Attributes:
        name: The class name of the original error, e.g. ``"ValueError"``.
        message: Its message.
        stack: Its traceback as text, if the server kept it.
        cause: What it was raised from, if sent: an error object as on the wire.
    """

    def __init__(
        self, name: str, message: str, stack: str | None = None, cause: object = None
    ) -> None:
        super().__init__(f"{name}: {message}" if name else message)
        self.name = name
        self.message = message
        self.stack = stack
        self.cause = cause


class DefinitionError(StepbaseError):
    """An app, a function or one of its options is declared in a way that cannot work."""


class SendError(StepbaseError):
    """Events were refused, or could not be delivered after every try.

    Attributes:
        ids: Internal ids of the events that were accepted before the failure, in order.
        status: HTTP status of the last answer, or None if there was none.
        is_outage: True if the server, or its database, is away: a step that fails by it costs no attempt
            on stepbase's own engine.
    """

    def __init__(
        self,
        message: str,
        *,
        ids: tuple[str, ...] = (),
        status: int | None = None,
        is_outage: bool = False,
    ) -> None:
        super().__init__(message)
        self.ids = ids
        self.status = status
        self.is_outage = is_outage


class ApiError(StepbaseError):
    """What `app.api` asked was refused, or not answered after every try.

    Attributes:
        status: HTTP status: 404 for what the server does not know, 401 for a wrong key; None if there
            was no answer.
        is_outage: True if the server, or its database, is away.
    """

    def __init__(self, message: str, *, status: int | None = None, is_outage: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_outage = is_outage


class ProtocolError(StepbaseError):
    """Something from the other side breaks the protocol; the message names the field.

    Attributes:
        status: The HTTP status that answers it best.
        code: A short machine-readable word.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class SignatureError(ProtocolError):
    """A request without a valid signature; never says which key was tried."""

    def __init__(self, message: str, *, code: str = "sig_verification_failed") -> None:
        super().__init__(message, status=401, code=code)


class StoreError(StepbaseError):
    """The engine's database refused a statement or could not be reached.

    Attributes:
        sqlstate: Five characters, e.g. ``"25006"``, or None when there was no connection.
        is_transient: True if the same statement may work a moment later.
    """

    def __init__(self, message: str, *, sqlstate: str | None, is_transient: bool) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.is_transient = is_transient


class Suspend(BaseException):
    """Leaves a sync handler until the next call; never catch it.

    It is a BaseException so that ``except Exception`` around a step does not swallow it. If you see
    this message, some code caught BaseException (or used a bare ``except:``): write
    ``except Exception:`` instead, and put clean-up that must run only once into a step.
    """

    def __init__(self) -> None:
        super().__init__(Suspend.__doc__)

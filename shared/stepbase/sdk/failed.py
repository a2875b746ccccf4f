"""What an `on_failure` handler is told: which run failed, why, and what had started it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from stepbase.sdk.event import Event
from stepbase.sdk.fault import CodedError
from stepbase.sdk.incoming import read_event

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class FailedError:
    """The error that ended the run; its class is gone, its name is there."""

    name: str
    message: str
    stack: str


@dataclass(frozen=True, slots=True)
class FunctionFailed(Generic[T_co]):
    """The payload of an `on_failure` handler's event.

    ::

        async def refund(event: Event[FunctionFailed[OrderPaid]], step: Step) -> None:
            order = event.data.event.data.order_id
            await step.run("tell", tell_support, order, event.data.error.message)

        @app.function("ship", on=OrderPaid, on_failure=refund)
        async def ship(event: Event[OrderPaid], step: Step) -> None: ...

    Attributes:
        error: What ended the run.
        event: What had started it, with the payload as the function itself sees it; a payload that
            does not fit its event class, which may be why the run failed, is left as it came.
        events: All of them, for batches.
        run_id: The run that failed.
        function_id: Its function, `<app_id>-<id>`.
        raw: The payload as it came, without what servers add for themselves.
    """

    error: FailedError
    event: Event[T_co]
    events: Sequence[Event[T_co]]
    run_id: str
    function_id: str
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class FailureReader:
    """Reads the payload of `inngest/function.failed`, in the place of an event class.

    Attributes:
        models: The event classes of the function that failed, by event name.
    """

    models: Mapping[str, Any]

    def model_validate(self, data: Any) -> FunctionFailed[Any]:
        """Return what the handler gets; what is missing is empty."""
        raw: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        error = _object(raw.get("error"))
        first = self._event(raw.get("event"))
        rest = raw.get("events")
        return FunctionFailed(
            error=FailedError(
                *(str(error.get(part) or "") for part in ("name", "message", "stack"))
            ),
            event=first,
            events=[self._event(each) for each in rest] if isinstance(rest, list) else [first],
            run_id=str(raw.get("run_id") or ""),
            function_id=str(raw.get("function_id") or ""),
            raw=raw,
        )

    def _event(self, given: Any) -> Event[Any]:
        raw = _object(given)
        model = model_of(self.models, str(raw.get("name") or ""))
        try:
            return read_event(raw, model)
        except CodedError:
            return read_event(raw, None)  # the run may have failed for just this


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def model_of(models: Mapping[str, Any], event_name: str) -> Any:
    """Return the event class that checks payloads of this name, or None for untyped ones.

    A direct call of a function with a single event class is checked with that class.
    """
    model = models.get(event_name)
    if model is None and event_name == "inngest/function.invoked" and len(models) == 1:
        return next(iter(models.values()))
    return model

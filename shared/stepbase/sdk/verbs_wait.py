"""Verbs that wait for something from outside, an event or a signal, and the one that sends signals. Pure.

The server does the waiting: the run is a row until then. See `sdk.verbs` for what a verb is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from stepbase.errors import DefinitionError, NonRetriableError
from stepbase.protocol import names
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed
from stepbase.sdk.check import check_expression, check_path, check_path_in_model, wire_duration
from stepbase.sdk.event import Event, event_name_of
from stepbase.sdk.fault import CodedError
from stepbase.sdk.incoming import read_event
from stepbase.sdk.replay import MISSING, NewStep, Replay
from stepbase.sdk.trigger import check_event_name
from stepbase.sdk.verbs import Verb, argument

T = TypeVar("T")

OnConflict = Literal["fail", "replace"]
LONGEST = timedelta(seconds=names.MAX_SLEEP_SECONDS)
FURTHEST = timedelta(seconds=names.MAX_LOOK_BACK_SECONDS)


@dataclass(frozen=True, slots=True)
class Signal(Generic[T]):
    """A signal that arrived.

    Attributes:
        name: What was waited for.
        data: What was sent with it.
    """

    name: str
    data: T


def wait_for_event(
    replay: Replay,
    step_id: str,
    event: object,
    match: str | None,
    if_: str | None,
    timeout: timedelta | str,
    look_back: timedelta | str | None,
) -> Verb[Event[Any] | None]:
    """Wait until an event arrives, or time is up."""
    place = replay.reach(step_id)
    model = None if isinstance(event, str) else event
    raw = replay.recall(place)
    if raw is MISSING:
        try:
            name = _event_name(event, f'step "{step_id}"')
            condition = _condition(replay.event, model, match, if_, f'step "{step_id}"')
            opts = {"if": condition, "timeout": _timeout(step_id, timeout)}
            if look_back is not None:
                where = f'step "{step_id}": look_back=…'
                opts["lookBack"] = wire_duration(look_back, where, most=FURTHEST)
        except DefinitionError as error:
            raise NonRetriableError(str(error)) from error
        raw = yield NewStep(place, Opcode.WAIT_FOR_EVENT, name, opts=opts)
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise CodedError(
            f'step "{step_id}": expected the event that was waited for, the server gave {raw!r:.80}',
            "output_invalid",
        )
    return read_event(raw, model)


def _event_name(event: object, where: str) -> str:
    name = event if isinstance(event, str) else event_name_of(event)
    if name is None:
        raise DefinitionError(
            f'{where}: expected an EventData class with a name, or an event name such as "order/paid"; '
            f"got {event!r:.80}"
        )
    if name.endswith("*"):
        raise DefinitionError(f"{where}: a wait is for one event name, without *; got {name!r}")
    return check_event_name(name, where)


def _condition(
    started_by: Mapping[str, Any], model: Any, match: str | None, if_: str | None, where: str
) -> str | None:
    if match is None:
        if if_ is not None:
            check_expression(if_, f"{where}: if_=…")
        return if_
    if if_ is not None:
        raise DefinitionError(f"{where}: give match= or if_=, not both")
    check_path(match, f"{where}: match=…")
    if model is not None:
        check_path_in_model(match, model, f"{where}: match=…")
    found: Any = started_by
    for part in match.split("."):
        if not isinstance(found, Mapping) or part not in found:
            # To the server both sides would be null, so that any event without it would end the wait.
            raise DefinitionError(
                f"{where}: match={match!r}: the event that started this run "
                f"({started_by.get('name')}) has no {match}"
            )
        found = found[part]
    return f"event.{match} == async.{match}"


def _timeout(step_id: str, timeout: timedelta | str) -> str:
    return wire_duration(timeout, f'step "{step_id}": timeout=…', most=LONGEST)


def wait_for_signal(
    replay: Replay,
    step_id: str,
    signal: str,
    timeout: timedelta | str,
    on_conflict: OnConflict,
    returns: Any,
) -> Verb[Signal[Any] | None]:
    """Wait until somebody sends a signal of that name, or time is up."""
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        _check_signal(step_id, signal)
        if on_conflict not in ("fail", "replace"):
            raise NonRetriableError(
                f'step "{step_id}": on_conflict=…: expected "fail" or "replace", got {on_conflict!r}'
            )
        try:
            opts = {
                "signal": signal,
                "timeout": _timeout(step_id, timeout),
                "conflict": on_conflict,
            }
        except DefinitionError as error:
            raise NonRetriableError(str(error)) from error
        value = yield NewStep(place, Opcode.WAIT_FOR_SIGNAL, signal, opts=opts)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise CodedError(
            f'step "{step_id}": expected the signal that was waited for, the server gave {value!r:.80}',
            "output_invalid",
        )
    data = value.get("data")
    if returns is not typed.UNTYPED:
        data = typed.decode(data, returns, f'step "{step_id}": data of signal "{signal}"')
    return Signal(str(value.get("signal") or signal), data)


def send_signal(
    replay: Replay, step_id: str, signal: str, data: object, send: Callable[[str, str], Any]
) -> Verb[str | None]:
    """Send a signal; returns the run it woke, or None if none was waiting.

    Args:
        send: Carries the signal's name and its data as JSON text.
    """
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        _check_signal(step_id, signal)
        text = argument(data, f'step "{step_id}": data=…')
        work = partial(send, signal, text)
        opts = {"type": "step.sendSignal", "signal": signal}
        value = yield NewStep(place, Opcode.STEP_RUN, place.step_id, work, str, opts=opts)
    return None if value is None else str(value)


def _check_signal(step_id: str, signal: object) -> None:
    if not isinstance(signal, str) or not signal or "\x00" in signal:
        raise NonRetriableError(
            f'step "{step_id}": a signal is named by non-empty text, got {signal!r:.80}'
        )

"""The verbs of `step`, each written once, for sync and async handlers alike. Pure.

A verb is a generator. If the step is done it returns the result straight away; if not it yields one
`NewStep` that says what has to happen. Its driver (`sdk.step`, `sdk.sync_step`) runs, reports or parks
it; if the handler goes on in the same call, the driver sends the result back in.
"""

import uuid
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from stepbase.errors import DefinitionError, NonRetriableError
from stepbase.protocol import names
from stepbase.protocol.duration import to_timedelta
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed
from stepbase.sdk.event import Event, Sendable, to_events
from stepbase.sdk.fault import CodedError, iso_ms
from stepbase.sdk.function import Function
from stepbase.sdk.replay import MISSING, NewStep, Replay
from stepbase.supabase.call import PreparedCall

T = TypeVar("T")


Verb = Generator[NewStep, Any, T]


def run(
    replay: Replay,
    step_id: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    returns: Any,
) -> Verb[Any]:
    """Run a callable once and keep its result."""
    place = replay.reach(step_id)
    if not callable(function) or isinstance(function, Function):
        raise _no_work(step_id, function)
    if returns is typed.UNTYPED:
        returns = typed.returns_of(function)
    value = replay.recall(place)
    if value is MISSING:
        edited = replay.edited_input(place)
        if edited is not None:
            args, kwargs = tuple(edited), {}
        work = partial(function, *args, **kwargs) if args or kwargs else function
        value = yield NewStep(place, Opcode.STEP_RUN, place.step_id, work, returns)
    if returns is typed.UNTYPED:
        return value
    return typed.decode(value, returns, f'step "{step_id}"')


def _no_work(step_id: str, given: object) -> CodedError:
    """Say what to write instead of what `step.run` was given."""
    if isinstance(given, Coroutine):
        name = getattr(given, "__name__", "function")
        given.close()  # it never ran, and nobody is to be told so a second time
        what = f"not the coroutine that calling one gives: write step.run({step_id!r}, {name}, …), with its"
        what += " arguments after it"
    elif isinstance(given, Function):
        what = f'not the durable function "{given.slug}": to run that, write step.invoke'
    else:
        what = f"got {given!r:.80}"
    return CodedError(f'step "{step_id}": step.run takes a function, {what}', "step_no_function")


def sleep(
    replay: Replay, step_id: str, duration: timedelta | str, now: Callable[[], datetime]
) -> Verb[None]:
    """Pause the run for a while; its clock starts when the step is first reached."""
    try:
        span = to_timedelta(duration)
    except (TypeError, ValueError) as error:
        raise NonRetriableError(f'step "{step_id}": {error}') from error
    return (yield from _sleep(replay, step_id, lambda: now() + span, now))


def sleep_until(
    replay: Replay, step_id: str, when: datetime | str, now: Callable[[], datetime]
) -> Verb[None]:
    """Pause the run until a moment; one that has passed does not pause it."""
    moment = _moment(step_id, when)
    return (yield from _sleep(replay, step_id, lambda: moment, now))


def _sleep(
    replay: Replay, step_id: str, until: Callable[[], datetime], now: Callable[[], datetime]
) -> Verb[None]:
    place = replay.reach(step_id)
    if replay.recall(place) is MISSING:
        moment = until()
        if moment - now() > timedelta(seconds=names.MAX_SLEEP_SECONDS):
            raise NonRetriableError(
                f'step "{step_id}": a sleep lasts at most {names.MAX_SLEEP_SECONDS // 86_400} days, '
                f"this one would end {iso_ms(moment)}"
            )
        yield NewStep(place, Opcode.SLEEP, iso_ms(moment))


def _moment(step_id: str, when: datetime | str) -> datetime:
    try:
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    except ValueError as error:
        raise NonRetriableError(
            f'step "{step_id}": not a time: {when!r}; write for example "2030-01-31T09:00:00Z"'
        ) from error
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise NonRetriableError(
            f'step "{step_id}": sleep_until needs a datetime with a timezone, got {when!r}; '
            "use datetime.now(UTC) + timedelta(…)"
        )
    return moment.astimezone(UTC)


def send_event(
    replay: Replay,
    step_id: str,
    given: Sendable | Sequence[Sendable],
    send: Callable[[Sequence[Event[Any]]], Any],
) -> Verb[list[str]]:
    """Send events once; ids derived from the run and the step keep a repeated send from doubling them."""
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        try:
            events = to_events(given)
        except DefinitionError as error:
            raise NonRetriableError(f'step "{step_id}": {error}') from error
        for i, event in enumerate(events):
            event.id = event.id or stable_key(replay.run_id, f"{place.hashed}:{i}")
        work = partial(send, events)
        opts = {"type": "step.sendEvent"}
        value = yield NewStep(place, Opcode.STEP_RUN, place.step_id, work, list[str], opts=opts)
    return [str(each) for each in value]


def patch(replay: Replay, name: str) -> Verb[bool]:
    """Tell runs that reach changed code for the first time from those that have passed it before."""
    place = replay.reach(f"patch: {name}")
    value = replay.recall(place)
    if value is MISSING:
        if replay.is_replaying and not replay.has_memo(place):
            return False
        value = yield NewStep(place, Opcode.STEP_RUN, place.step_id, _true, bool)
    return bool(value)


def _true() -> bool:
    return True


def stable_key(run_id: str, name: str) -> str:
    """Return a UUID that is the same at every replay and retry of this run."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}:{name}"))


def rpc(
    replay: Replay, step_id: str, prepared: PreparedCall, call: Callable[..., Any]
) -> Verb[Any]:
    """Call an SQL function or write to a table through the ledger, so that the effect happens once.

    Args:
        call: Carries the prepared call and the step's hashed id, and returns the typed result.
    """
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        edited = replay.edited_input(place)
        if edited is not None:
            prepared = prepared.with_input(edited, f'step "{step_id}"')
        work = partial(call, prepared, place.hashed)
        value = yield NewStep(place, Opcode.STEP_RUN, place.step_id, work, prepared.returns, True)
    if prepared.returns is typed.UNTYPED:
        return value
    return typed.decode(value, prepared.returns, f'step "{step_id}"')


def argument(value: Any, what: str) -> str:
    """Write an argument of a step as JSON text; it obeys the same rules as a step's result.

    Raises:
        CodedError: Final; if it cannot be written. The message names the path.
    """
    try:
        return typed.encode(value, type(value), what)
    except CodedError as error:
        message = (
            str(error).replace("returned a value", "has a value").replace(" returned ", " has ")
        )
        raise CodedError(message, "data_unserializable") from error

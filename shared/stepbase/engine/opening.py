"""What a reply opens: steps that the server has to wait for, one handler an opcode. Pure.

An open step is a row with a queue item of its own: the call for a planned step, the end of a sleep,
the moment a wait is given up. A pause says what ends it from outside, an event what it sends. `decide`
picks the handler, and keeps the one shortcut: a sleep that is alone stays in the run's own item.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from stepbase.engine import match, retry
from stepbase.engine.effects import FailedAttempt, NewEvent, NewItem, NewPause, StepRow
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.duration import parse_duration
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.memo import error_memo
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.sessions import decode_sessions

_YEAR_SECONDS = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class State:
    """What a decision needs to know of the run and the item that was called for.

    Attributes:
        attempt: From 0.
        max_attempts: Retries + 1.
        known: Hashes of the closed steps that were in the call.
        state_bytes: Size of all memos so far.
        outage: Seconds since the host stopped answering, 0 if it has not.
        now: For dates in Retry-After and Sleep only.
        chance: Uniform in [0, 1), for backoff.
        retry_interval: Fixed seconds between attempts instead of the schedule (development), or None.
        retry_delay: The function's own first pause, which doubles, or None for the schedule.
        look_back: How far waits for events look back that do not say it, in seconds, or None.
        open: Hashes of the steps the run waits for in parallel.
        target: The planned step this call was for, or None.
        is_request: That step is a request which the engine makes (`gateway`).
        is_main: The item is the run's own; False for the extra calls of a race.
        run_id, function: Of this run; the function by slug.
        event: Returns the run's event, parsed.
        functions: Slugs that can be invoked.
        check: Raises ProtocolError for a condition that cannot be evaluated.
        holds: Evaluates a condition over named roots.
    """

    attempt: int
    max_attempts: int
    known: frozenset[str]
    state_bytes: int
    outage: float
    now: datetime
    chance: float
    retry_interval: float | None = None
    retry_delay: float | None = None
    look_back: float | None = None
    open: frozenset[str] = frozenset()
    target: str | None = None
    is_request: bool = False
    is_main: bool = True
    run_id: str = ""
    function: str = ""
    event: Callable[[], Mapping[str, object]] = dict
    functions: Container[str] = ()
    check: Callable[[str], object] = lambda _source: None
    holds: Callable[[str, Mapping[str, object]], bool] = lambda _source, _roots: False

    @property
    def is_last_attempt(self) -> bool:
        """True if a failure now is final."""
        return self.attempt + 1 >= self.max_attempts


@dataclass(frozen=True, slots=True)
class Opened:
    """A new step and what it waits for; without an item it is closed already."""

    step: StepRow
    item: NewItem | None = None
    pause: NewPause | None = None
    event: NewEvent | None = None
    is_sleep: bool = False
    tried: FailedAttempt | None = None


def title(op: Op) -> str:
    """Return what people call a step."""
    return op.display_name or op.userland_id or op.name or op.id


def size_of(text: str) -> int:
    """Return a text's bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def row(op: Op, status: str, memo: str, state: State) -> StepRow:
    """Return the row of a step.

    Raises:
        ProtocolError: If its memo is larger than a step may return.
    """
    size = size_of(memo)
    if size > names.MAX_STEP_OUTPUT_BYTES:
        raise ProtocolError(
            f"step {title(op)!r} returned {size} bytes, {names.MAX_STEP_OUTPUT_BYTES} are allowed: "
            "store it and return a reference"
        )
    return StepRow(op.id, title(op), op.op.value, status, memo, state.attempt)


def timed(steps: Iterable[StepRow], ops: Iterable[Op]) -> tuple[StepRow, ...]:
    """Return steps with when their work ran, as the ops that brought them say.

    The host's clock and the database's may differ, so only its differences count: what ended last, ended
    when the ops came.
    """
    times = {op.id: op.timing for op in ops if op.timing is not None}
    newest = max((began + took for began, took in times.values()), default=0)
    spans = {
        hashed: ((newest - began) / 1e9, (newest - began - took) / 1e9)
        for hashed, (began, took) in times.items()
    }
    return tuple(
        replace(step, began=spans[step.hash][0], ended=spans[step.hash][1])
        if step.hash in spans
        else step
        for step in steps
    )


def _planned(state: State, op: Op) -> Opened:
    if op.error is None:
        planned = replace(row(op, "planned", "null", state), attempt=0)
        return Opened(planned, NewItem(op.id, "step"))
    # The call that found it has run it, beside others: that was its first attempt.
    tried = FailedAttempt(op.id, 0, 206, dumps(op.error))
    if state.max_attempts <= 1:
        return Opened(row(op, "failed", dumps(error_memo(op.error)), state), tried=tried)
    asked = (op.opts or {}).get("retryAfter")
    delay = retry.delay(
        asked if isinstance(asked, str) else None,
        0,
        now=state.now,
        chance=state.chance,
        interval=state.retry_interval,
        first=state.retry_delay,
    )
    planned = replace(row(op, "planned", "null", state), attempt=1)
    return Opened(planned, NewItem(op.id, "step", delay=delay), tried=tried)


def _request(state: State, op: Op) -> Opened:
    planned = replace(row(op, "planned", "null", state), attempt=0)
    return Opened(planned, NewItem(op.id, "gateway"))


def _sleep(state: State, op: Op) -> Opened:
    due, delay, seconds = _span(state, op, (op.opts or {}).get("duration") or op.name, "a sleep")
    if seconds <= 0:
        return Opened(row(op, "done", "null", state))
    item = NewItem(op.id, "wait", due, delay)
    return Opened(row(op, "sleeping", "null", state), item, is_sleep=True)


def _span(
    state: State, op: Op, asked: object, what: str
) -> tuple[datetime | None, float | None, float]:
    """Read a duration or a time; return it as due or delay, and in seconds from now."""
    text = asked if isinstance(asked, str) else ""
    due = retry.parse_instant(text)
    if due is None:
        try:
            seconds = parse_duration(text).total_seconds()
        except ValueError as error:
            raise ProtocolError(
                f"step {title(op)!r}: {what} of {asked!r} was asked for: "
                'expected a duration like "2h" or an ISO 8601 time'
            ) from error
    else:
        seconds = (due - state.now).total_seconds()
    if seconds > names.MAX_SLEEP_SECONDS:
        raise ProtocolError(
            f"step {title(op)!r}: {what} lasts {seconds / 86400:.0f} days, "
            f"{names.MAX_SLEEP_SECONDS // 86400} are allowed"
        )
    return due, None if due is not None else seconds, seconds


def _wait_for_event(state: State, op: Op) -> Opened:
    opts = op.opts or {}
    name = opts.get("event") or op.name
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"step {title(op)!r} waits for an event without a name")
    due, delay, seconds = _wait_span(state, op)
    if seconds <= 0:
        return Opened(row(op, "done", "null", state))
    condition = opts.get("if")
    if condition is not None and not isinstance(condition, str):
        raise ProtocolError(f"step {title(op)!r}: 'if' must be a CEL expression, got {condition!r}")
    if condition:
        state.check(condition)
    event = state.event() if condition else {}
    wait = match.wait_for(
        condition or None, event, lambda text: state.holds(text, {"event": event})
    )
    waiting = row(op, "waiting", "null", state)
    looks_back = _look_back(state, op)
    if wait is None:
        return Opened(waiting, NewItem(op.id, "wait", due, delay))
    pause = NewPause(op.id, "event", name, wait, seconds, looks_back)
    if looks_back is not None:
        return Opened(waiting, NewItem(op.id, "look"), pause)
    return Opened(waiting, NewItem(op.id, "wait", due, delay), pause)


def _look_back(state: State, op: Op) -> float | None:
    asked = (op.opts or {}).get("lookBack")
    if asked is None:
        return state.look_back
    try:
        seconds = parse_duration(asked if isinstance(asked, str) else "").total_seconds()
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= names.MAX_LOOK_BACK_SECONDS:
        raise ProtocolError(
            f"step {title(op)!r}: a look back of {asked!r} was asked for: expected a duration of at most "
            f"{names.MAX_LOOK_BACK_SECONDS // 3600} hours"
        )
    return seconds


def _wait_span(state: State, op: Op) -> tuple[datetime | None, float | None, float]:
    timeout = (op.opts or {}).get("timeout")
    return (None, 0.0, 0.0) if not timeout else _span(state, op, timeout, "a wait")


def _wait_for_signal(state: State, op: Op) -> Opened:
    opts = op.opts or {}
    name = opts.get("signal")
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"step {title(op)!r} waits for a signal without a name")
    conflict = opts.get("conflict") or "fail"
    if conflict not in ("fail", "replace"):
        raise ProtocolError(
            f"step {title(op)!r}: 'conflict' must be fail or replace, got {conflict!r}"
        )
    due, delay, seconds = _wait_span(state, op)
    if seconds <= 0:
        return Opened(row(op, "done", "null", state))
    replaces = conflict == "replace"
    pause = NewPause(op.id, "signal", name, match.ALWAYS, seconds, replaces=replaces)
    return Opened(row(op, "waiting", "null", state), NewItem(op.id, "wait", due, delay), pause)


def _invoke(state: State, op: Op) -> Opened:
    opts = op.opts or {}
    slug = opts.get("function_id")
    if not isinstance(slug, str) or not slug:
        return _not_invoked(state, op, "could not extract function ID from event")
    if slug not in state.functions:
        return _not_invoked(state, op, f"could not find function with ID: {slug}")
    timeout = opts.get("timeout")
    due, delay, _ = (
        _span(state, op, timeout, "a timeout") if timeout else (None, _YEAR_SECONDS, _YEAR_SECONDS)
    )
    correlation = f"{state.run_id}.{op.id}"
    given = opts.get("payload")
    given = given if isinstance(given, dict) else {}
    data = given.get("data")
    about = {
        "fn_id": slug,
        "correlation_id": correlation,
        "name": title(op),
        "source_fn_id": state.function,
    }
    payload: dict[str, object] = {
        "name": names.EVENT_FUNCTION_INVOKED,
        "id": correlation,
        "data": {**(data if isinstance(data, dict) else {}), "_inngest": about},
    }
    for field in ("user", "v"):
        if given.get(field) is not None:
            payload[field] = given[field]
    if sessions := decode_sessions(given.get("meta")):
        payload["meta"] = {"sessions": sessions}
    return Opened(
        row(op, "invoking", "null", state),
        NewItem(op.id, "invoke", due, delay),
        event=NewEvent(op.id, correlation, names.EVENT_FUNCTION_INVOKED, dumps(payload)),
    )


def _not_invoked(state: State, op: Op, message: str) -> Opened:
    memo = error_memo({"name": "Error", "message": message})
    return Opened(row(op, "failed", dumps(memo), state))


HANDLERS: Mapping[Opcode, Callable[[State, Op], Opened]] = {
    Opcode.STEP_PLANNED: _planned,
    Opcode.GATEWAY: _request,
    Opcode.AI_GATEWAY: _request,
    Opcode.SLEEP: _sleep,
    Opcode.WAIT_FOR_EVENT: _wait_for_event,
    Opcode.WAIT_FOR_SIGNAL: _wait_for_signal,
    Opcode.INVOKE_FUNCTION: _invoke,
}

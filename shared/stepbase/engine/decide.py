"""The decision: what a reply means for a run. Pure: values in, a `Settlement` out.

Three rules. Everything a reply can change is in this file. It does not know the store, the wire's
bytes or the clock: time and chance are arguments. Every (state, reply) has exactly one answer, and a
run that could only be polled for ever ends with an error that says why.

How it works: `decide` picks by the kind of reply (`protocol.reply`). An output ends the run. A
function-level error uses up an attempt of this stretch of code. No answer from the host costs nothing
for an hour, then it counts as an error. Ops are looked up by their opcode in `_HANDLERS`; results are
stored first, then at most one op may ask for something to wait for. After every stored step the item
starts again at attempt 0: retries count per step and per stretch between steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from stepbase.engine import retry
from stepbase.engine.effects import FailedAttempt, Settlement, StepRow, Verdict
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.duration import parse_duration
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.memo import error_memo
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output, Reply


@dataclass(frozen=True, slots=True)
class State:
    """What the decision needs to know of the run and the item that was called for.

    Attributes:
        attempt: From 0.
        max_attempts: Retries + 1.
        known: Hashes of the steps that were in the call.
        state_bytes: Size of all memos so far.
        outage: Seconds since the host stopped answering, 0 if it has not.
        now: For dates in Retry-After and Sleep only.
        chance: Uniform in [0, 1), for backoff.
        retry_interval: Fixed seconds between attempts instead of the schedule (development), or None.
    """

    attempt: int
    max_attempts: int
    known: frozenset[str]
    state_bytes: int
    outage: float
    now: datetime
    chance: float
    retry_interval: float | None = None

    @property
    def is_last_attempt(self) -> bool:
        """True if a failure now is final."""
        return self.attempt + 1 >= self.max_attempts


def decide(state: State, reply: Reply | ProtocolError) -> Settlement:
    """Return everything that this reply changes; raises nothing, whatever the reply holds."""
    try:
        return _decide(state, reply)
    except (ProtocolError, ValueError, RecursionError) as error:
        return _broken(error)


def _decide(state: State, reply: Reply | ProtocolError) -> Settlement:
    match reply:
        case Output():
            return _complete(reply.text, reply.version)
        case FunctionError():
            return _function_error(state, reply)
        case NoAnswer():
            return _no_answer(state, reply)
        case Ops():
            return _ops(state, reply)
        case ProtocolError():
            return _broken(reply)


def _complete(text: str, version: int | None, steps: tuple[StepRow, ...] = ()) -> Settlement:
    size = _bytes(text)
    if size > names.MAX_STEP_OUTPUT_BYTES:
        return _failed(
            "OutputTooLarge",
            f"the function returned {size} bytes, {names.MAX_STEP_OUTPUT_BYTES} are allowed: "
            "store the result and return a reference",
        )
    return Settlement(Verdict.END, status="Completed", output=text, version=version, steps=steps)


def _failed(name: str, message: str) -> Settlement:
    error = dumps({"name": name, "message": message})
    return Settlement(Verdict.END, status="Failed", error=error)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _broken(error: Exception) -> Settlement:
    """A reply that breaks the protocol can only come again: end the run now, and say why."""
    return _failed("ProtocolError", str(error))


def _function_error(state: State, reply: FunctionError) -> Settlement:
    error = dumps(reply.error)
    failed = FailedAttempt(None, state.attempt, reply.status, error)
    if reply.no_retry or state.is_last_attempt:
        return Settlement(Verdict.END, status="Failed", error=error, failed=failed)
    # An error does not choose the execution version (vector `scenario-fnerr.json`).
    return _retry(state, reply.retry_after, failed, None)


def _retry(
    state: State, retry_after: str | None, failed: FailedAttempt, version: int | None
) -> Settlement:
    delay = retry.retry_after(retry_after, state.now)
    if delay is None:
        delay = state.retry_interval
    if delay is None:
        delay = retry.backoff(state.attempt, state.chance)
    return Settlement(
        Verdict.TIMER, delay=delay, attempt=state.attempt + 1, version=version, failed=failed
    )


def _no_answer(state: State, reply: NoAnswer) -> Settlement:
    error = dumps({"name": "NoAnswer", "message": reply.message})
    failed = FailedAttempt(None, state.attempt, reply.status, error)
    if reply.is_outage and state.outage < retry.OUTAGE_SECONDS:
        delay = retry.outage_delay(state.outage)
        if state.retry_interval is not None:
            delay = min(delay, state.retry_interval)
        return Settlement(
            Verdict.TIMER,
            delay=delay,
            attempt=state.attempt,
            was_called=False,
            is_outage=True,
            failed=failed,
        )
    if state.is_last_attempt:
        return Settlement(
            Verdict.END, status="Failed", error=error, was_called=False, failed=failed
        )
    # Still an outage if it was one: what counts now must not be free again for another hour.
    settlement = _retry(state, None, failed, None)
    return replace(settlement, was_called=False, is_outage=reply.is_outage)


def _ops(state: State, reply: Ops) -> Settlement:
    steps, rest = _results([op for op in reply.ops if op.op is not Opcode.NONE], state)
    # What is stored already keeps its first outcome, whatever it is reported as now.
    again = [step for step in steps if step.hash in state.known]
    new: dict[str, StepRow] = {}
    for step in steps:
        if step.hash not in state.known:
            new.setdefault(step.hash, step)
    stale = [op for op in rest if op.op in _STORED and (op.id in state.known or op.id in new)]
    rest = [op for op in rest if op not in stale]
    if len(rest) > 1:
        raise ProtocolError(
            "the reply asks for several things at once "
            f"({', '.join(op.op for op in rest)}); this engine runs steps one after another"
        )
    if rest:
        settlement = _HANDLERS.get(rest[0].op, _unsupported)(state, reply, rest[0])
    elif new:
        settlement = Settlement(Verdict.CONTINUE)
    else:
        return _no_progress(state, reply, [s.name for s in again] + [_title(op) for op in stale])
    kept = (*new.values(), *settlement.steps)
    _check_state_size(state, kept)
    return replace(settlement, version=reply.version, steps=kept)


def _results(ops: list[Op], state: State) -> tuple[list[StepRow], list[Op]]:
    """Part the finished steps from what is still asked for."""
    steps, rest = [], []
    for op in ops:
        if op.op in (Opcode.STEP_RUN, Opcode.STEP):
            steps.append(_result_row(op, state))
        else:
            rest.append(op)
    return steps, rest


def _result_row(op: Op, state: State) -> StepRow:
    data = op.data
    is_wrapped = isinstance(data, dict) and set(data) in ({"data"}, {"error"})
    # The legacy opcode may bring its memo ready made (vector `stub-sdk-odd-replies.json`).
    memo = data if op.op is Opcode.STEP else {"data": data}
    failed = op.op is Opcode.STEP and is_wrapped and isinstance(data, dict) and "error" in data
    return _row(op, "failed" if failed else "done", dumps(memo), state)


def _row(op: Op, status: str, memo: str, state: State) -> StepRow:
    size = _bytes(memo)
    if size > names.MAX_STEP_OUTPUT_BYTES:
        raise ProtocolError(
            f"step {op.display_name or op.id!r} returned {size} bytes, "
            f"{names.MAX_STEP_OUTPUT_BYTES} are allowed: store it and return a reference"
        )
    return StepRow(op.id, _title(op), op.op.value, status, memo, state.attempt)


def _title(op: Op) -> str:
    return op.display_name or op.userland_id or op.name or op.id


def _check_state_size(state: State, new: tuple[StepRow, ...]) -> None:
    if len(state.known) + len(new) > names.MAX_STEPS:
        raise ProtocolError(
            f"a run has at most {names.MAX_STEPS} steps: split the work over several functions"
        )
    if state.state_bytes + sum(_bytes(step.memo) for step in new) > names.MAX_STATE_BYTES:
        raise ProtocolError(
            f"the run's step results exceed {names.MAX_STATE_BYTES} bytes: return references instead"
        )


def _no_progress(state: State, reply: Ops, again: list[str]) -> Settlement:
    """Nothing new: a real server polls for ever; ours tries as often as for an error, then ends."""
    what = f"reported the stored step {again[0]!r} again" if again else "asked for nothing"
    error = dumps(
        {
            "name": "NoProgress",
            "message": f"the function neither finished nor went on: it {what}. "
            "Step ids must be the same at every call.",
        }
    )
    failed = FailedAttempt(None, state.attempt, 206, error)
    if state.is_last_attempt:
        return Settlement(
            Verdict.END, status="Failed", error=error, version=reply.version, failed=failed
        )
    return _retry(state, None, failed, reply.version)


def _step_error(state: State, reply: Ops, op: Op) -> Settlement:
    if op.error is None:
        raise ProtocolError(f"{op.op} for {op.display_name or op.id!r} came without an error")
    failed = FailedAttempt(op.id, state.attempt, 206, dumps(op.error))
    is_final = op.op is Opcode.STEP_FAILED or reply.no_retry or state.is_last_attempt
    if not is_final:
        return _retry(state, reply.retry_after, failed, reply.version)
    memo = dumps(error_memo(op.error))
    return Settlement(Verdict.CONTINUE, steps=(_row(op, "failed", memo, state),), failed=failed)


def _sleep(state: State, reply: Ops, op: Op) -> Settlement:
    asked = (op.opts or {}).get("duration") or op.name
    text = asked if isinstance(asked, str) else ""
    due = retry.parse_instant(text)
    delay = None
    if due is None:
        try:
            delay = parse_duration(text).total_seconds()
        except ValueError as error:
            raise ProtocolError(
                f"sleep {op.display_name or op.id!r} asks for {asked!r}: "
                'expected a duration like "2h" or an ISO 8601 time'
            ) from error
    seconds = delay if due is None else (due - state.now).total_seconds()
    assert seconds is not None  # one of the two was read
    if seconds > names.MAX_SLEEP_SECONDS:
        raise ProtocolError(
            f"sleep {op.display_name or op.id!r} lasts {seconds / 86400:.0f} days, "
            f"{names.MAX_SLEEP_SECONDS // 86400} are allowed"
        )
    if seconds <= 0:
        return Settlement(Verdict.CONTINUE, steps=(_row(op, "done", "null", state),))
    row = _row(op, "sleeping", "null", state)
    return Settlement(Verdict.TIMER, due=due, delay=delay, kind="sleep", step=op.id, steps=(row,))


def _run_complete(state: State, reply: Ops, op: Op) -> Settlement:
    return _complete(dumps(op.data), reply.version)


def _discovery(state: State, reply: Ops, op: Op) -> Settlement:
    return _no_progress(state, reply, [])


def _unsupported(state: State, reply: Ops, op: Op) -> Settlement:
    raise ProtocolError(
        f"opcode {op.op} (step {op.display_name or op.id!r}) is not supported by this engine; "
        "run this function on Inngest, or use steps it knows: run, rpc, sleep, send_event"
    )


_STORED = frozenset({Opcode.STEP_ERROR, Opcode.STEP_FAILED, Opcode.SLEEP})
"""Opcodes that store a step under their id, beside those that bring a finished one."""

_HANDLERS: Mapping[Opcode, Callable[[State, Ops, Op], Settlement]] = {
    Opcode.STEP_ERROR: _step_error,
    Opcode.STEP_FAILED: _step_error,
    Opcode.SLEEP: _sleep,
    Opcode.RUN_COMPLETE: _run_complete,
    Opcode.DISCOVERY_REQUEST: _discovery,
}

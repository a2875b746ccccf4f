"""The decision: what a reply means for a run. Pure: values in, a `Settlement` out.

Three rules. Everything a reply can change is in this file. It does not know the store, the wire's
bytes or the clock: time and chance are arguments. Every (state, reply) has exactly one answer, and a
run that could only be polled for ever ends with an error that says why.

How it works: `decide` picks by the kind of reply (`protocol.reply`). An output ends the run. A
function-level error uses up an attempt of this stretch of code. No answer from the host costs nothing
for an hour, then it counts as an error. Ops bring outcomes of steps, which are stored, or open steps
that the server has to wait for (`opening`, one handler an opcode). A call continues at once after an
outcome; when steps were opened its item is parked until the last of them closes. After every stored step
the item starts again at attempt 0: retries count per step and per stretch between steps.
"""

from dataclasses import replace

from stepbase.engine import opening, retry
from stepbase.engine.effects import FailedAttempt, Settlement, StepRow, Verdict
from stepbase.engine.opening import Opened, State, title
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.memo import error_memo
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output, Reply


def decide(state: State, reply: Reply | ProtocolError) -> Settlement:
    """Return everything that this reply changes; raises nothing, whatever the reply holds."""
    try:
        settlement = _decide(state, reply)
    except (ProtocolError, ValueError, RecursionError) as error:
        return _broken(error)
    if state.target is not None and settlement.verdict is Verdict.TIMER:
        # The same item tries again: for this step alone.
        kind = "gateway" if state.is_request else "step"
        return replace(settlement, kind=kind, step=state.target)
    return settlement


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
    size = opening.size_of(text)
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
    delay = retry.delay(
        retry_after,
        state.attempt,
        now=state.now,
        chance=state.chance,
        interval=state.retry_interval,
        first=state.retry_delay,
    )
    return Settlement(
        Verdict.TIMER, delay=delay, attempt=state.attempt + 1, version=version, failed=failed
    )


def _is_free(state: State, reply: NoAnswer | Ops) -> bool:
    """Say whether what happened is an outage, and not yet one that has lasted too long."""
    return reply.is_outage and state.outage < retry.OUTAGE_SECONDS


def _wait_out(state: State, failed: FailedAttempt) -> Settlement:
    """Try again soon, without using up an attempt; of an outage the first try is recorded."""
    delay = retry.outage_delay(state.outage)
    if state.retry_interval is not None:
        delay = min(delay, state.retry_interval)
    recorded = failed if state.outage <= 0 else None
    return Settlement(
        Verdict.TIMER, delay=delay, attempt=state.attempt, is_outage=True, failed=recorded
    )


def _no_answer(state: State, reply: NoAnswer) -> Settlement:
    error = dumps({"name": "NoAnswer", "message": reply.message})
    failed = FailedAttempt(None, state.attempt, reply.status, error)
    if _is_free(state, reply):
        return replace(_wait_out(state, failed), was_called=False)
    if state.is_last_attempt:
        return Settlement(
            Verdict.END, status="Failed", error=error, was_called=False, failed=failed
        )
    # Still an outage if it was one: what counts now must not be free again for another hour.
    settlement = _retry(state, None, failed, None)
    return replace(settlement, was_called=False, is_outage=reply.is_outage)


def _ops(state: State, reply: Ops) -> Settlement:
    ops = [op for op in reply.ops if op.op is not Opcode.NONE]
    for op in ops:
        if op.op not in _KNOWN:
            raise ProtocolError(
                f"opcode {op.op} (step {title(op)!r}) is not supported by this engine; "
                "run this function on Inngest, or use the steps it knows"
            )
    finished, retried, failed = _finished(state, reply, ops)
    # What is opened beside a step that is tried again, or in the call for one planned step that does
    # not bring it, comes again with the next try: opened now it would wait with nobody to end it.
    is_missing = state.target is not None and state.target not in finished
    opened = [] if retried is not None or is_missing else _opened(state, ops, finished)
    kept = opening.timed((*finished.values(), *(each.step for each in opened)), ops)
    _check_state_size(state, kept)
    if any(op.op is Opcode.RUN_COMPLETE for op in ops):
        return _complete(
            dumps(next(op.data for op in ops if op.op is Opcode.RUN_COMPLETE)), reply.version, kept
        )
    if retried is not None and _is_free(state, reply):
        settlement = _wait_out(state, retried)
    elif retried is not None:
        settlement = _retry(state, reply.retry_after, retried, reply.version)
    elif opened:
        settlement = _opening(state, ops, opened)
    elif is_missing:
        settlement = _no_progress(state, reply, "did not bring the planned step it was called for")
    elif finished:
        settlement = Settlement(Verdict.CONTINUE if state.target is None else Verdict.DONE)
    elif state.open:
        # It waits for steps that are open already; the last of them brings the next call.
        settlement = Settlement(_rest_of(state))
    else:
        again = [title(op) for op in ops if op.id in state.known]
        what = f"reported the stored step {again[0]!r} again" if again else "asked for nothing"
        settlement = _no_progress(state, reply, what)
    failed = settlement.failed or failed
    tried = tuple(each.tried for each in opened if each.tried is not None)
    return replace(settlement, version=reply.version, steps=kept, failed=failed, tried=tried)


def _abandoned(target: str) -> StepRow:
    """Close a planned step that its call does not ask for: its branch lost a race, or was cancelled.

    An error, should the function come back to it after all: then it must not be planned for ever.
    """
    error = {"name": "StepAbandoned", "message": "the function went on without this step"}
    return StepRow(target, "", "", "failed", dumps({"error": error}))


def _rest_of(state: State) -> Verdict:
    return Verdict.PARK if state.is_main else Verdict.DONE


def _finished(
    state: State, reply: Ops, ops: list[Op]
) -> tuple[dict[str, StepRow], FailedAttempt | None, FailedAttempt | None]:
    """Return the steps that are over, a failed attempt to be repeated, and one that is final."""
    finished: dict[str, StepRow] = {}
    retried = final = None
    if state.target is not None and not ops:
        finished[state.target] = _abandoned(state.target)
    for op in ops:
        if op.id in state.known or op.id in finished:
            continue  # what is stored already keeps its first outcome
        if op.op in (Opcode.STEP_RUN, Opcode.STEP):
            finished[op.id] = _result_row(op, state)
        elif op.op in (Opcode.STEP_ERROR, Opcode.STEP_FAILED):
            failed = _failed_attempt(op, state)
            is_final = op.op is Opcode.STEP_FAILED or reply.no_retry
            if not is_final and (not state.is_last_attempt or _is_free(state, reply)):
                retried = failed
            else:
                assert op.error is not None  # checked by _failed_attempt
                final = failed
                finished[op.id] = opening.row(op, "failed", dumps(error_memo(op.error)), state)
    return finished, retried, final


def _failed_attempt(op: Op, state: State) -> FailedAttempt:
    if op.error is None:
        raise ProtocolError(f"{op.op} for {title(op)!r} came without an error")
    return FailedAttempt(op.id, state.attempt, 206, dumps(op.error))


def _opened(state: State, ops: list[Op], finished: dict[str, StepRow]) -> list[Opened]:
    opened: dict[str, Opened] = {}
    for op in ops:
        handler = opening.HANDLERS.get(op.op)
        is_new = op.id not in state.known and op.id not in state.open and op.id not in finished
        if handler is not None and is_new and op.id not in opened:
            opened[op.id] = handler(state, op)
    return list(opened.values())


def _opening(state: State, ops: list[Op], opened: list[Opened]) -> Settlement:
    """Wait for what was opened: a lone sleep in the same item, anything else in items of its own."""
    if all(each.item is None for each in opened):
        return Settlement(Verdict.CONTINUE if state.target is None else Verdict.DONE)
    item = opened[0].item
    if len(ops) == 1 and opened[0].is_sleep and item is not None and _is_alone(state):
        return Settlement(
            Verdict.TIMER, due=item.due, delay=item.delay, kind="sleep", step=item.hash
        )
    planning = 1 if len(ops) > 1 else 0
    if any((op.opts or {}).get("parallelMode") == "race" for op in ops):
        planning = 2
    return Settlement(
        _rest_of(state) if state.target is None else Verdict.DONE,
        planning=planning,
        items=tuple(each.item for each in opened if each.item is not None),
        pauses=tuple(each.pause for each in opened if each.pause is not None),
        events=tuple(each.event for each in opened if each.event is not None),
    )


def _is_alone(state: State) -> bool:
    return state.is_main and state.target is None and not state.open


def _result_row(op: Op, state: State) -> StepRow:
    data = op.data
    is_wrapped = isinstance(data, dict) and set(data) in ({"data"}, {"error"})
    # The legacy opcode may bring its memo ready made (vector `stub-sdk-odd-replies.json`).
    memo = data if op.op is Opcode.STEP else {"data": data}
    failed = op.op is Opcode.STEP and is_wrapped and isinstance(data, dict) and "error" in data
    return opening.row(op, "failed" if failed else "done", dumps(memo), state)


def _check_state_size(state: State, new: tuple[StepRow, ...]) -> None:
    if len(state.known) + len(new) > names.MAX_STEPS:
        raise ProtocolError(
            f"a run has at most {names.MAX_STEPS} steps: split the work over several functions"
        )
    if state.state_bytes + sum(opening.size_of(step.memo) for step in new) > names.MAX_STATE_BYTES:
        raise ProtocolError(
            f"the run's step results exceed {names.MAX_STATE_BYTES} bytes: return references instead"
        )


def _no_progress(state: State, reply: Ops, what: str) -> Settlement:
    """Nothing new: a real server polls for ever; ours tries as often as for an error, then ends."""
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


_STORED = frozenset({Opcode.STEP_RUN, Opcode.STEP, Opcode.STEP_ERROR, Opcode.STEP_FAILED})
"""Opcodes that bring the outcome of a step."""

_KNOWN = _STORED | opening.HANDLERS.keys() | {Opcode.RUN_COMPLETE, Opcode.DISCOVERY_REQUEST}

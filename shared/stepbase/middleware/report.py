"""What `Monitor` tells the database of a call: from what it saw of it to one JSON object. Pure.

`public.stepbase_record` reads it (migration `…_record.sql`). Times are milliseconds before the moment of
sending, because the database's clock is the only one that counts.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.duration import parse_duration
from stepbase.protocol.ids import is_ulid, ulid, ulid_ms
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.op import Op, Opcode, decode_op
from stepbase.protocol.redact import redact, redact_text

MAX_MESSAGE: Final = 1000
MAX_STACK: Final = 4000
MAX_PAYLOAD_BYTES: Final = 64 * 1024
"""A payload larger than this is not reported, but for its size."""
_MAX_CAUSES = 3

STALE = "call_stale"
"""The error of a call which the server had given up: it says nothing of the run."""

_CAUSES = {names.EVENT_SCHEDULED: "cron", names.EVENT_FUNCTION_INVOKED: "invoke"}
_OPENED: Mapping[Opcode, tuple[str, str]] = {
    Opcode.STEP_PLANNED: ("planned", "call"),
    Opcode.GATEWAY: ("planned", "call"),
    Opcode.AI_GATEWAY: ("planned", "call"),
    Opcode.SLEEP: ("sleeping", "sleep"),
    Opcode.WAIT_FOR_EVENT: ("waiting", "event"),
    Opcode.WAIT_FOR_SIGNAL: ("waiting", "signal"),
    Opcode.INVOKE_FUNCTION: ("invoking", "invoke"),
}
"""Status and kind of wait of a step that is handed to the server."""


@dataclass(slots=True)
class Ran:
    """A step that ran in the call: its id, and when it began and ended (monotonic seconds)."""

    name: str
    since: float
    until: float
    op: str = "StepRun"
    data: Any = field(repr=False, default=None)
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known when a call is about to be answered.

    Attributes:
        report: An id of this call, so that it is not counted twice.
        secrets: Texts that must not be stored anywhere.
        events: As the call brought them.
        known: Memos by hashed id, as the call brought them.
        ran: The steps that ran in this call, by hashed id.
        began, now: Monotonic seconds.
        body, status, no_retry: Of the answer.
    """

    report: str
    run_id: str
    attempt: int
    max_attempts: int | None
    events: Sequence[Mapping[str, Any]]
    known: Mapping[str, Any]
    ran: Mapping[str, Ran]
    began: float
    now: float
    status: int
    body: bytes
    no_retry: bool
    payloads: bool = False
    messages: bool = True
    secrets: tuple[str, ...] = ()

    @property
    def is_last(self) -> bool:
        """True if a failure now is final."""
        most = self.max_attempts
        return self.no_retry or (most is not None and self.attempt + 1 >= most)

    def ms_ago(self, at: float) -> float:
        """Return how long before now a moment was."""
        return round((self.now - at) * 1000, 3)


def build(seen: Seen) -> dict[str, Any]:
    """Return the report of a call, without what is the same for all calls of its function."""
    ops = _ops(seen)
    steps, failed = _steps(seen, ops)
    end = None
    if seen.status == 500:
        error = json.loads(seen.body)
        if error.get("code") != STALE:
            failed.append({"hash": None, "error": dumps(shown_error(error, seen))})
            if seen.is_last:
                end = {"status": "Failed", "error": failed[-1]["error"]}
    elif seen.status == 200:
        end = {"status": "Completed", "output": _payload(_loaded(seen.body), seen)}
    for op in ops:
        if op.op is Opcode.RUN_COMPLETE:
            end = {"status": "Completed", "output": _payload(op.data, seen)}
    return {
        "report": seen.report,
        "run": seen.run_id,
        "attempt": seen.attempt,
        "http": seen.status,
        "ms": seen.ms_ago(seen.began),
        "created_ms": ulid_ms(seen.run_id) if is_ulid(seen.run_id) else None,
        "cause": _CAUSES.get(str(seen.events[0].get("name")), "event"),
        "invoked_by": _invoked_by(seen.events[0]),
        "events": [shown_event(event, seen) for event in seen.events],
        "known": list(seen.known),
        "known_failed": [
            hashed
            for hashed, memo in seen.known.items()
            if isinstance(memo, dict) and "error" in memo and "data" not in memo
        ],
        "steps": steps,
        "failed": failed,
        "end": end,
    }


def _loaded(body: bytes) -> Any:
    return json.loads(body) if body else None


def _ops(seen: Seen) -> list[Op]:
    """Return what the answer asks for; what cannot be read is left out, the server will say so."""
    if seen.status != 206:
        return []
    found = []
    for i, raw in enumerate(json.loads(seen.body)):
        try:
            found.append(decode_op(raw, f"[{i}]"))
        except ProtocolError:
            continue
    return found


def _steps(seen: Seen, ops: list[Op]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the steps, and the failed attempts: of the answer, and of what was saved before it."""
    steps: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    reported = {op.id for op in ops}
    for hashed, ran in seen.ran.items():
        if hashed not in reported and hashed not in seen.known and ran.error is None:
            steps.append(_done(seen, hashed, ran.name, ran.op, ran.data))
    for op in ops:
        if op.op in (Opcode.STEP_RUN, Opcode.STEP):
            steps.append(_done(seen, op.id, _title(op), op.op.value, op.data))
        elif op.op in (Opcode.STEP_ERROR, Opcode.STEP_FAILED) and op.error is not None:
            error = dumps(shown_error(op.error, seen))
            failed.append({"hash": op.id, "error": error})
            if op.op is Opcode.STEP_FAILED or seen.is_last:
                step = _row(seen, op.id, _title(op), op.op.value, "failed")
                steps.append({**step, "memo": f'{{"error":{error}}}'})
        elif op.op in _OPENED:
            steps.append(_opened(seen, op))
    return steps, failed


def _row(seen: Seen, hashed: str, name: str, op: str, status: str) -> dict[str, Any]:
    ran = seen.ran.get(hashed)
    is_over = status in ("done", "failed")
    return {
        "hash": hashed,
        "name": name.replace("\x00", "")[:500],
        "op": op,
        "status": status,
        "attempt": seen.attempt,
        "since_ms": seen.ms_ago(ran.since if ran else seen.began if is_over else seen.now),
        "until_ms": (seen.ms_ago(ran.until) if ran else 0.0) if is_over else None,
    }


def _done(seen: Seen, hashed: str, name: str, op: str, data: Any) -> dict[str, Any]:
    text = _payload(data, seen)
    memo = None if text is None else f'{{"data":{text}}}'
    return {**_row(seen, hashed, name, op, "done"), "memo": memo}


def _opened(seen: Seen, op: Op) -> dict[str, Any]:
    status, kind = _OPENED[op.op]
    opts = op.opts or {}
    what: object = None
    until: object = opts.get("timeout")
    if op.op is Opcode.SLEEP:
        until = opts.get("duration") or op.name
    elif op.op is Opcode.WAIT_FOR_EVENT:
        what = opts.get("event") or op.name
    elif op.op is Opcode.WAIT_FOR_SIGNAL:
        what = opts.get("signal")
    elif op.op is Opcode.INVOKE_FUNCTION:
        what = opts.get("function_id")
    condition = opts.get("if") if kind == "event" else None
    return {
        **_row(seen, op.id, _title(op), op.op.value, status),
        "kind": kind,
        "what": redact_text(what, seen.secrets)[:500] if isinstance(what, str) else None,
        # A condition may have a value of the event in it.
        "condition": redact_text(condition, seen.secrets)[:2000]
        if seen.payloads and isinstance(condition, str)
        else None,
        **_due(until),
    }


def _due(until: object) -> dict[str, Any]:
    if not isinstance(until, str):
        return {}
    try:
        return {"due_in_ms": parse_duration(until).total_seconds() * 1000}
    except ValueError:
        pass
    try:
        return {"due_at": datetime.fromisoformat(until).isoformat()}
    except ValueError:
        return {}


def _title(op: Op) -> str:
    return op.display_name or op.userland_id or op.name or op.id


def _payload(value: Any, seen: Seen) -> str | None:
    """Return a value as JSON text if payloads are asked for."""
    if not seen.payloads:
        return None
    text = dumps(redact(value, seen.secrets))
    size = len(text.encode())
    return text if size <= MAX_PAYLOAD_BYTES else dumps({"not_reported": f"{size} bytes"})


def shown_error(error: Mapping[str, Any], seen: Seen, depth: int = 0) -> dict[str, Any]:
    """Return an error object that may be stored: its name, and as much of the rest as is wanted."""
    shown: dict[str, Any] = {"name": str(error.get("name") or "Error")[:200]}
    if seen.messages:
        message = redact_text(str(error.get("message") or ""), seen.secrets)
        stack = redact_text(str(error.get("stack") or ""), seen.secrets)
        shown |= {"message": message[:MAX_MESSAGE], "stack": stack[-MAX_STACK:]}
    cause = error.get("cause")
    if isinstance(cause, dict) and depth < _MAX_CAUSES:
        shown["cause"] = shown_error(cause, seen, depth + 1)
    return shown


def shown_event(event: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """Return an event for the report; a sender's id that is no ULID becomes one, always the same."""
    given, name = event.get("id"), str(event.get("name") or "")
    given = given if isinstance(given, str) and given else None
    ts = event.get("ts")
    if not isinstance(ts, int) or isinstance(ts, bool) or not 0 <= ts < 1 << 47:
        ts = ulid_ms(seen.run_id) if is_ulid(seen.run_id) else 0
    entropy = hashlib.sha256(f"{name}\n{given or seen.run_id}".encode()).digest()[:10]
    is_own = given is not None and is_ulid(given)
    payload: dict[str, Any] = {"name": name, "id": given, "ts": ts}
    if seen.payloads:
        full = _payload(dict(event), seen)
        payload = payload if full is None else json.loads(full)
    return {
        "id": given if is_own else ulid(ts, entropy),
        "event_id": given,
        "name": name,
        "ts": ts,
        "payload": dumps(payload),
    }


def _invoked_by(event: Mapping[str, Any]) -> str | None:
    """Return "run.step" of the step that invoked the run, as servers write it into the event."""
    data = event.get("data")
    about = data.get("_inngest") if isinstance(data, dict) else None
    found = about.get("correlation_id") if isinstance(about, dict) else None
    return found if isinstance(found, str) else None

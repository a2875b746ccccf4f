"""A run's trace: its steps as spans, their failed attempts below them.

Nothing is measured for this. Spans are made of the rows of runs, steps and attempts, and a span's id says
where its output lies. A step that has only failed so far is not stored, so it goes by its hash.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from stepbase.engine.api.answers import iso
from stepbase.protocol import names
from stepbase.protocol.ids import is_ulid
from stepbase.protocol.op import Opcode

Span = dict[str, object]

RUN_STATUS: Mapping[str, str] = {
    "Scheduled": "QUEUED",
    "Running": "RUNNING",
    "Completed": "COMPLETED",
    "Failed": "FAILED",
    "Cancelled": "CANCELLED",
    "Skipped": "SKIPPED",
}
_STEP_STATUS: Mapping[str, str] = {
    "done": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "sleeping": "WAITING",
    "waiting": "WAITING",
    "invoking": "RUNNING",
}
_STEP_OP: Mapping[str, str] = {
    Opcode.SLEEP: "SLEEP",
    Opcode.WAIT_FOR_EVENT: "WAIT_FOR_EVENT",
    Opcode.WAIT_FOR_SIGNAL: "WAIT_FOR_SIGNAL",
    Opcode.INVOKE_FUNCTION: "INVOKE",
    Opcode.AI_GATEWAY: "AI_GATEWAY",
}
_HASHED_VALUE = 64


@dataclass(frozen=True, slots=True)
class OutputId:
    """Where an output lies: with a run, one of its steps, or a failed attempt.

    Written as the run's id, and behind it nothing, `/<hash>` or `#<number>`.
    """

    run_id: str
    kind: Literal["run", "step", "attempt"]
    key: str = ""

    def __str__(self) -> str:
        """Write it."""
        return self.run_id + {"run": "", "step": "/", "attempt": "#"}[self.kind] + self.key

    @classmethod
    def parse(cls, text: str) -> "OutputId | None":
        """Read it; None if it is none of ours."""
        run_id, mark, key = text[:26], text[26:27], text[27:]
        if not is_ulid(run_id):
            return None
        if mark == "#" and key.isascii() and key.isdecimal() and len(key) < 19:
            return cls(run_id, "attempt", key)
        if mark == "/" and key and "\x00" not in key:
            return cls(run_id, "step", key)
        return None if mark else cls(run_id, "run")


def trace(
    run: "asyncpg.Record",
    name: str,
    steps: "Sequence[asyncpg.Record]",
    attempts: "Sequence[asyncpg.Record]",
    slug_of: Callable[[UUID], str | None],
) -> Span:
    """Return the root span of a run, `name` being its function's."""
    root = _span(
        OutputId(run["run_id"], "run"),
        name,
        RUN_STATUS[run["status"]],
        run["created_at"],
        run["ended_at"],
        started=run["started_at"],
    )
    tried = _by_hash(attempts)
    stored = {step["hash"] for step in steps}
    children = [_step(run, step, tried.get(step["hash"], ()), slug_of) for step in steps]
    children += [
        _trying(run, hashed, rows)
        for hashed, rows in tried.items()
        if hashed is not None and hashed not in stored
    ]
    children += _between_steps(run, tried.get(None, ()))
    for child in children:
        child["parentSpanID"] = root["spanID"]
    return root | {"isRoot": True, "childrenSpans": children}


def _by_hash(
    attempts: "Sequence[asyncpg.Record]",
) -> "dict[str | None, list[asyncpg.Record]]":
    found: dict[str | None, list[asyncpg.Record]] = {}
    for each in attempts:
        found.setdefault(each["hash"], []).append(each)
    return found


def _step(
    run: "asyncpg.Record",
    step: "asyncpg.Record",
    failed: "Sequence[asyncpg.Record]",
    slug_of: Callable[[UUID], str | None],
) -> Span:
    status = _STEP_STATUS.get(step["status"]) or ("RUNNING" if step["is_leased"] else "QUEUED")
    op = _STEP_OP.get(step["op"], "RUN")
    span = _span(
        OutputId(run["run_id"], "step", step["hash"]),
        step["name"],
        status,
        step["started_at"],
        step["ended_at"],
        started=None if status == "QUEUED" else step["started_at"],
        attempt=step["attempt"],
    )
    attempted = _attempts(run, failed)
    if attempted and status == "COMPLETED":
        attempted.append(span | {"name": f"Attempt {step['attempt']}", "metadata": []})
    return span | {
        "stepOp": op,
        "stepType": op,
        "stepID": step["hash"],
        "stepInfo": _info(op, step, slug_of),
        "childrenSpans": attempted,
    }


def _trying(run: "asyncpg.Record", hashed: str, failed: "Sequence[asyncpg.Record]") -> Span:
    status = {"Cancelled": "CANCELLED", "Failed": "FAILED"}.get(run["status"], "RUNNING")
    span = _span(
        OutputId(run["run_id"], "step", hashed),
        hashed,
        status,
        failed[0]["at"],
        run["ended_at"],
        attempt=failed[-1]["attempt"],
    )
    return span | {
        "outputID": None,
        "stepOp": "RUN",
        "stepType": "RUN",
        "stepID": hashed,
        "childrenSpans": _attempts(run, failed),
    }


def _between_steps(run: "asyncpg.Record", failed: "Sequence[asyncpg.Record]") -> list[Span]:
    """Return the span of the function's own code: how it ended, or how it failed so far."""
    if run["status"] not in ("Completed", "Failed") and not failed:
        return []
    is_completed = run["status"] == "Completed"
    span = _span(
        OutputId(run["run_id"], "run"),
        "function success" if is_completed else "function error",
        RUN_STATUS[run["status"]],
        failed[0]["at"] if failed else run["ended_at"],
        run["ended_at"],
        attempt=failed[-1]["attempt"] + (1 if is_completed else 0) if failed else 0,
    )
    span["spanID"] = f"{run['run_id']}.end"
    return [span | {"stepType": "FINALIZATION", "childrenSpans": _attempts(run, failed)}]


def _attempts(run: "asyncpg.Record", failed: "Sequence[asyncpg.Record]") -> list[Span]:
    return [
        _span(
            OutputId(run["run_id"], "attempt", str(each["id"])),
            f"Attempt {each['attempt']}",
            "FAILED",
            each["at"],
            each["at"],
            attempt=each["attempt"],
        )
        for each in failed
    ]


def _span(
    output: OutputId,
    name: str,
    status: str,
    queued: datetime,
    ended: datetime | None,
    *,
    started: datetime | None = None,
    attempt: int = 0,
) -> Span:
    started = started or (queued if ended or status == "RUNNING" else None)
    has_output = status in ("COMPLETED", "FAILED") or (
        output.kind == "run" and status in ("CANCELLED", "SKIPPED")
    )
    return {
        "runID": output.run_id,
        "spanID": str(output),
        "name": name,
        "status": status,
        "attempts": attempt,
        "duration": round((ended - started).total_seconds() * 1000) if ended and started else None,
        "queuedAt": iso(queued),
        "startedAt": iso(started) if started else None,
        "endedAt": iso(ended) if ended else None,
        "outputID": str(output) if has_output else None,
        "isRoot": False,
        "childrenSpans": [],
        "metadata": [],
    }


def _info(
    op: str, step: "asyncpg.Record", slug_of: Callable[[UUID], str | None]
) -> dict[str, object]:
    is_over = step["status"] in ("done", "failed")
    due = step["due_at"] if step["ended_at"] is None else step["ended_at"]
    if op == "SLEEP":
        return {"__typename": "SleepStepInfo", "sleepUntil": iso(due) if due else None}
    if op == "INVOKE":
        timed_out = step["error_name"] == names.INVOKE_TIMEOUT
        slug = slug_of(step["child_function"]) if step["child_function"] else None
        return {
            "__typename": "InvokeStepInfo",
            "triggeringEventID": step["child_event"],
            "functionID": slug,
            "runID": step["child_run"],
        } | _patience(is_over, timed_out, due)
    if op == "WAIT_FOR_EVENT":
        return {
            "__typename": "WaitForEventStepInfo",
            "eventName": step["event_name"] or step["found_name"],
            "expression": _expression(step),
            "foundEventID": step["found_id"],
        } | _patience(is_over, not step["has_data"], due)
    if op == "WAIT_FOR_SIGNAL":
        return {
            "__typename": "WaitForSignalStepInfo",
            "signal": step["event_name"],
        } | _patience(is_over, not step["has_data"], due)
    return {"__typename": "RunStepInfo", "type": _TYPE.get(step["op"])}


_TYPE: Mapping[str, str] = {
    Opcode.GATEWAY: "step.fetch",
    Opcode.AI_GATEWAY: "step.ai.infer",
}


def _patience(is_over: bool, timed_out: bool, due: datetime | None) -> dict[str, object]:
    """Say when a wait is given up, and whether it was; when it would have been is not stored."""
    is_known = due is not None and (timed_out or not is_over)
    return {
        "timeout": iso(due) if due is not None and is_known else None,
        "timedOut": timed_out if is_over else None,
    }


def _expression(step: "asyncpg.Record") -> str | None:
    """Write the condition of an open wait again; None if there is none, or if only its hash is kept."""
    parts = []
    if step["path"]:
        value: str = step["value"] or ""
        if len(value) == _HASHED_VALUE and not value.startswith('"'):
            return None
        parts.append(f"async.{step['path']} == {value}")
    if step["residual"] not in (None, "true"):
        parts.append(step["residual"])
    return " && ".join(parts) or None

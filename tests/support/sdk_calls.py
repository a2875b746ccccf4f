"""Call requests as a server writes them, and replies as a server reads them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FN_ID = "6f5b201f-ce08-56ec-9be7-dc8bb78243ae"
RUN_ID = "01M84KVXAAXFDZB1D48JGNR1MF"
EVENT = {
    "data": {},
    "id": "01M84KVX38JPCMMRT4N20BAT41",
    "name": "case/start",
    "ts": 1_795_451_384_936,
    "user": {},
}


def hashed(step_id: str, index: int = 0) -> str:
    """Return the wire's id of a step, computed apart from the code under test."""
    text = f"{step_id}:{index}" if index else step_id
    return hashlib.sha1(text.encode()).hexdigest()


def event(**fields: Any) -> dict[str, Any]:
    """Return an event as functions see it."""
    return {**EVENT, **fields}


def call_object(
    first: Mapping[str, Any] | None = None,
    *,
    steps: Mapping[str, Any] | None = None,
    events: Sequence[Mapping[str, Any]] | None = None,
    stack: Sequence[str] | None = None,
    step_id: str = "step",
    attempt: int = 0,
    max_attempts: int | None = 4,
    is_planning: bool = False,
    run_id: str = RUN_ID,
    may_checkpoint: bool = False,
    generation_id: int = 1,
) -> dict[str, Any]:
    """Return the JSON object of a call; without the function's id it ends after a step."""
    shown = dict(first or EVENT)
    memos = dict(steps or {})
    order = list(memos if stack is None else stack)
    return {
        "ctx": {
            "attempt": attempt,
            "disable_immediate_execution": is_planning,
            "env": "",
            **({"fn_id": FN_ID} if may_checkpoint else {}),
            "generation_id": generation_id,
            "job_id": "d9bdcxu2vhk8",
            "max_attempts": max_attempts,
            "qi_id": "ZDliZGN4dTJ2aGs4OjpkZWZhdWx0",
            "request_id": "01M84KVXCCWDKE4KJAF4JWGP8K",
            "run_id": run_id,
            "stack": {"current": len(order), "stack": order},
            "step_id": step_id,
            "use_api": False,
        },
        "defers": {},
        "event": shown,
        "events": [dict(each) for each in events] if events is not None else [shown],
        "steps": memos,
        "use_api": False,
        "version": 2 if memos else -1,
    }


def call_body(first: Mapping[str, Any] | None = None, **options: Any) -> bytes:
    """Return the bytes of a call; see `call_object`."""
    return json.dumps(call_object(first, **options)).encode()


@dataclass(frozen=True)
class Reply:
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The parsed JSON body."""
        return json.loads(self.content)

    @property
    def op(self) -> Any:
        """The only op of a 206."""
        assert self.status == 206, (self.status, self.content)
        (op,) = self.body
        return op


def untimed(body: Any) -> Any:
    """Return a reply without when its steps ran: two calls of one step take different times."""
    if isinstance(body, list):
        return [untimed(each) for each in body]
    if not isinstance(body, dict) or "op" not in body:
        return body
    return {key: value for key, value in body.items() if key != "timing"}

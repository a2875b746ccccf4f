"""Calls: the body a server posts to a function, and how to read it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a function (vector `03-call-first…`).

    Attributes:
        event: The first event, as an object.
        events: All events (more than one only for batches).
        steps: Memos by hashed step id, undecoded.
        run_id: The run.
        fn_id: The server's id of the function, or None.
        step_id: `"step"`, or the hashed id of the one planned step this call is for.
        attempt: From 0.
        max_attempts: Retries + 1, or None if the server does not say.
        stack: Hashed step ids in the order their results were stored.
        is_planning: Report new steps as planned instead of running them
            (`disable_immediate_execution`).
        use_api: Events and steps are missing here and must be fetched.
        version: Execution version of the run; -1 before its first reply.
        generation_id: The lease's fence; 0 if not sent.
        qi_id: The server's id of the queue item, or None.
        request_id: The server's id of this request, or None.
        is_together: Steps beside each other may run in this call; only stepbase's engine says so.
    """

    event: Mapping[str, object]
    events: Sequence[Mapping[str, object]]
    steps: Mapping[str, object]
    run_id: str
    fn_id: str | None
    step_id: str
    attempt: int
    max_attempts: int | None
    stack: Sequence[str]
    is_planning: bool
    use_api: bool
    version: int
    generation_id: int
    qi_id: str | None
    request_id: str | None
    is_together: bool = False

    @property
    def is_targeted(self) -> bool:
        """True if the call is for one planned step."""
        return self.step_id != names.STEP


def decode_call(body: object) -> Call:
    """Read a call's parsed JSON body; only what can break the SDK is checked.

    Raises:
        ProtocolError: If the body is not a call; the message names the field.
    """
    raw = _mapping(body, "the body")
    ctx = _mapping(raw.get("ctx"), "'ctx'")
    use_api = bool(raw.get("use_api") or ctx.get("use_api"))
    event = raw.get("event")
    events = raw.get("events")
    if not isinstance(events, list):
        events = [event] if event is not None else []
    if event is None and events:
        event = events[0]
    if event is None and not use_api:
        raise ProtocolError("the call has no 'event': expected a JSON object")
    steps = raw.get("steps")
    stack = ctx.get("stack")
    stack = stack.get("stack") if isinstance(stack, dict) else None
    step_id = ctx.get("step_id")
    return Call(
        event=_mapping(event if event is not None else {}, "'event'"),
        events=[_mapping(each, f"'events[{i}]'") for i, each in enumerate(events)],
        steps=_mapping(steps if steps is not None else {}, "'steps'"),
        run_id=_string(ctx.get("run_id"), "'ctx.run_id'"),
        fn_id=_optional_string(ctx.get("fn_id")),
        step_id=step_id if isinstance(step_id, str) and step_id else names.STEP,
        attempt=_integer(ctx.get("attempt"), "'ctx.attempt'", 0),
        max_attempts=_integer(ctx["max_attempts"], "'ctx.max_attempts'", 0)
        if ctx.get("max_attempts") is not None
        else None,
        stack=stack if isinstance(stack, list) else [],
        is_planning=bool(ctx.get("disable_immediate_execution")),
        use_api=use_api,
        version=_integer(raw.get("version"), "'version'", -1),
        generation_id=_integer(ctx.get("generation_id"), "'ctx.generation_id'", 0),
        qi_id=_optional_string(ctx.get("qi_id")),
        request_id=_optional_string(ctx.get("request_id")),
    )


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} of the call must be a JSON object, got {value!r:.60}")
    return value


def _string(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"{what} of the call must be a non-empty string, got {value!r:.60}")
    return value


def _optional_string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _integer(value: object, what: str, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProtocolError(f"{what} of the call must be an integer, got {value!r:.60}")
    return value


def members(memos: Iterable[tuple[str, str]]) -> str:
    """Write memos (hashed id, JSON text) as the members of a JSON object."""
    return ",".join(f"{dumps(hashed)}:{memo}" for hashed, memo in memos)


def encode_call(
    *,
    events: Sequence[str],
    memos: Sequence[tuple[str, str]],
    edits: Sequence[tuple[str, str]] = (),
    run_id: str,
    fn_id: str,
    step_id: str,
    attempt: int,
    max_attempts: int,
    is_planning: bool,
    version: int,
    generation_id: int,
    job_id: str,
    request_id: str,
    use_api: bool = False,
) -> bytes:
    """Write a call's body from JSON texts that are already stored, so old memos cost no encoding.

    Args:
        events: The events as JSON texts.
        memos: (hashed id, memo as JSON text), in the order of the stack.
        edits: (hashed id, `{"input": […]}`) of steps that are to run with another input; not of the stack.
    """
    ctx = dumps(
        {
            "attempt": attempt,
            "disable_immediate_execution": is_planning,
            "env": "",
            "fn_id": fn_id,
            "generation_id": generation_id,
            "job_id": job_id,
            "max_attempts": max_attempts,
            "qi_id": job_id,
            "request_id": request_id,
            "run_id": run_id,
            "stack": {"current": len(memos), "stack": [hashed for hashed, _ in memos]},
            "step_id": step_id,
            "use_api": use_api,
        }
    )
    all_events = "" if use_api else ",".join(events)
    steps = "" if use_api else members((*memos, *edits))
    return (
        f'{{"ctx":{ctx},"defers":{{}},"event":{events[0]},"events":[{all_events}],'
        f'"steps":{{{steps}}},"use_api":{"true" if use_api else "false"},"version":{version}}}'
    ).encode()

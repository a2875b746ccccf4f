"""The smallest server that can finish a run: one call after the other, memos in a dict.

It knows nothing of time (a sleep is over at once) and is no engine: it shows what a function answers.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.sdk_calls import Reply, call_body, event

Post = Callable[[str, bytes], Awaitable[Reply]]
"""Sends a call body with a query string."""

MOST_CALLS = 200


@dataclass
class Run:
    """A run that has ended, and how it got there.

    Attributes:
        output: What the function returned, or None.
        error: The error object it failed with, or None.
        replies: Every reply, in order.
        sleeps: Names of the Sleep ops (times as ISO text).
    """

    output: Any = None
    error: Any = None
    replies: list[Reply] = field(default_factory=list)
    memos: dict[str, Any] = field(default_factory=dict)
    sleeps: list[str] = field(default_factory=list)

    @property
    def ops(self) -> list[dict[str, Any]]:
        """Every op reported, in order."""
        return [op for reply in self.replies if reply.status == 206 for op in reply.body]

    @property
    def shown(self) -> list[str]:
        """The ops as short text, e.g. ``"StepRun one"``."""
        return [f"{op['op']} {op['displayName']}" for op in self.ops]


async def finish(
    post: Post,
    slug: str,
    first: Mapping[str, Any] | None = None,
    *,
    max_attempts: int = 4,
    memos: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """Call a function until its run has ended.

    Args:
        answers: The memo of each step that a server does (a wait, an invoke, …), by its id.
    """
    run = Run(memos=dict(memos or {}))
    attempt = 0
    shown = first or event()
    for _ in range(MOST_CALLS):
        body = call_body(
            shown, steps=run.memos, attempt=attempt, max_attempts=max_attempts, **options
        )
        reply = await post(f"fnId={slug}&stepId=step", body)
        run.replies.append(reply)
        if reply.status == 200:
            run.output = reply.body
            return run
        if reply.status == 206:
            is_last = attempt + 1 >= max_attempts
            attempt = attempt + 1 if _take(run, reply, answers or {}, is_last=is_last) else 0
            continue
        attempt += 1
        if reply.headers.get("x-inngest-no-retry") == "true" or attempt >= max_attempts:
            run.error = reply.body
            return run
    raise AssertionError(f"the run has not ended after {MOST_CALLS} calls: {run.shown}")


def _take(run: Run, reply: Reply, answers: Mapping[str, Any], *, is_last: bool) -> bool:
    """Apply a 206; returns True if the same step must be tried again."""
    op = reply.op
    hashed = op["id"]
    assert hashed not in run.memos, f"step {op['displayName']} is reported twice"
    if op["op"] == "StepError" and not is_last:
        assert reply.headers.get("x-inngest-no-retry") != "true"
        return True
    if op["op"] in ("StepError", "StepFailed"):
        kept = ("name", "message", "stack", "cause")
        run.memos[hashed] = {"error": {k: op["error"][k] for k in kept if op["error"].get(k)}}
    elif op["op"] == "StepRun":
        run.memos[hashed] = {"data": op["data"]}
    elif op["op"] == "Sleep":
        run.memos[hashed] = None
        run.sleeps.append(op["name"])
    elif op["displayName"] in answers:
        run.memos[hashed] = answers[op["displayName"]]
    else:
        raise AssertionError(f"the mini server does not know {op['op']}")
    return False

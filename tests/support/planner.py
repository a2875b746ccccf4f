"""A server for parallel steps in one test: plans, calls for planned steps, keeps the order of results.

Which of the calls that are due goes next is the test's choice, so every interleaving can be had.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.sdk_calls import Reply, call_body

Post = Callable[[str, bytes], Awaitable[Reply]]
Choose = Callable[[list[str]], str]
"""Chooses among due calls: hashed ids of planned steps, or "step"."""

MOST_CALLS = 2_000


def first(due: list[str]) -> str:
    """Choose what has been due longest."""
    return due[0]


@dataclass
class Planner:
    """One run.

    Attributes:
        memos: Stored results, in the order in which they were stored.
        due: Calls that may be made.
        ended: The last reply, once the run has ended.
        replies: Every reply, with the call it answers.
        planned: Every step that was ever planned.
    """

    post: Post
    slug: str
    choose: Choose = first
    max_attempts: int = 4
    memos: dict[str, Any] = field(default_factory=dict)
    due: list[str] = field(default_factory=lambda: ["step"])
    ended: Reply | None = None
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    planned: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def shown(self) -> list[list[str]]:
        """The ops of each reply as short text."""
        return [
            [f"{op['op']} {op['displayName']}" for op in reply.body] if reply.status == 206 else []
            for _, reply in self.replies
        ]

    async def finish(self) -> Any:
        """Call until the run has ended; return its output.

        Raises:
            AssertionError: If the run failed, or does not end.
        """
        for _ in range(MOST_CALLS):
            if self.ended is not None:
                assert self.ended.status == 200, self.ended.body
                return self.ended.body
            assert self.due, f"the run is stuck: {self.shown[-3:]}"
            await self.call(self.choose(self.due))
        raise AssertionError(f"the run does not end: {self.shown[-3:]}")

    async def call(self, what: str) -> Reply:
        """Make one of the due calls, and take its reply."""
        self.due.remove(what)
        reply = await self.ask(what)
        self.take(what, reply)
        return reply

    async def ask(self, what: str) -> Reply:
        """Make a call without taking the reply."""
        attempt = self.attempts.get(what, 0)
        is_planning = bool(self.planned - self.memos.keys())
        body = call_body(
            steps=self.memos,
            attempt=attempt,
            max_attempts=self.max_attempts,
            is_planning=is_planning,
        )
        return await self.post(f"fnId={self.slug}&stepId={what}", body)

    def take(self, what: str, reply: Reply) -> None:
        """Take a reply as the server does."""
        self.replies.append((what, reply))
        if reply.status != 206:
            self._end_or_retry(what, reply)
            return
        if not any(op["op"] == "StepError" for op in reply.body):
            self.attempts.pop(what, None)
        for op in reply.body:
            self._take_op(what, op)

    def _end_or_retry(self, what: str, reply: Reply) -> None:
        self.attempts[what] = self.attempts.get(what, 0) + 1
        is_final = reply.headers.get("x-inngest-no-retry") == "true"
        if reply.status == 200 or is_final or self.attempts[what] >= self.max_attempts:
            self.ended = self.ended or reply
        else:
            self.due.append(what)

    def _take_op(self, what: str, op: dict[str, Any]) -> None:
        hash_, code = op["id"], op["op"]
        if code == "StepError":
            self.attempts[what] = self.attempts.get(what, 0) + 1
            self.due.append(what)
        elif code == "StepPlanned":
            if hash_ not in self.planned and hash_ not in self.memos:
                self.planned.add(hash_)
                self.due.append(hash_)
        elif hash_ not in self.memos:
            self.memos[hash_] = _memo(op)
            if "step" not in self.due:
                self.due.append("step")


def _memo(op: dict[str, Any]) -> Any:
    if op["op"] == "StepRun":
        return {"data": op["data"]}
    if op["op"] == "StepFailed":
        return {"error": op["error"]}
    return None

"""A server that does to a run whatever a server may: any order, calls repeated, lost, late and at once.

And one that watches: every call and every reply is judged by what must hold for each of them.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tests.support.sdk_calls import call_body, untimed

from stepbase.sdk.message import Response

MOST_CALLS = 1_000
MOST_TURNS = 40
LONGEST_CALL = 5.0
DONE_HERE = ("StepRun", "StepError", "StepFailed")


@dataclass
class Seen:
    """What a handler did in one call.

    Attributes:
        effects: What it did outside of steps until the call was over.
        works: The ids of the steps whose work was begun.
        is_new: Says whether an effect is one that no earlier call has come to, as far as that is known.
    """

    effects: list[Any] = field(default_factory=list)
    works: list[str] = field(default_factory=list)


seen: ContextVar[Seen] = ContextVar("seen")
"""Of the call that is made; handlers write into it."""

Post = Callable[[str, bytes], Awaitable[Response]]


@dataclass
class Item:
    """A call that is due: for a planned step, or for what comes next."""

    what: str
    attempt: int = 0


@dataclass
class Answer:
    """A call that was made.

    Attributes:
        stack: The steps whose results it carried, in order.
    """

    item: Item
    stack: list[str]
    status: int
    no_retry: bool
    body: Any
    seen: Seen


class Unruly:
    """One run.

    Args:
        choices: What it does when several things may be done; once they are used up it is orderly.
    """

    def __init__(
        self,
        post: Post,
        slug: str,
        choices: bytes,
        *,
        max_attempts: int,
        is_ordered: bool,
    ) -> None:
        self._post = post
        self._slug = slug
        self._choices = list(choices)
        self._max_attempts = max_attempts
        self._is_ordered = is_ordered
        self.memos: dict[str, Any] = {}
        self.due = [Item("step")]
        self.asleep: list[str] = []
        self.flying: list[Answer] = []
        self.planned: set[str] = set()
        self.known: set[str] = set()
        self.calls = 0
        self.longest: list[Any] = []
        self.end: Answer | None = None

    async def finish(self) -> Answer:
        """Go on until the run has ended; return the last call."""
        while self.end is None:
            assert self.calls < MOST_CALLS, "the run does not end"
            await self._something()
        await self._afterwards(self.end)
        return self.end

    def _choose(self, number: int) -> int:
        return self._choices.pop(0) % number if self._choices else 0

    async def _something(self) -> None:
        number = len(self.flying) + len(self.due) + len(self.asleep)
        assert number, "the run is stuck"
        chosen = self._choose(number)
        if chosen < len(self.flying):
            self._take(self.flying.pop(chosen))
            return
        chosen -= len(self.flying)
        if chosen < len(self.due):
            await self._call(self.due[chosen])
            return
        hash_ = self.asleep.pop(chosen - len(self.due))
        self._store(hash_, None)

    async def _call(self, item: Item) -> None:
        fault = self._choose(9)
        if fault == 8 and len(self.due) > 1:
            others = [each for each in self.due if each is not item]
            await self._at_once([item, others[self._choose(len(others))]])
            return
        (answer,) = await self._ask([item])
        if fault == 5:
            return  # nobody saw the reply: the same call is made again
        if fault == 6:
            (again,) = await self._ask([item])
            assert (again.status, untimed(again.body)) == (answer.status, untimed(answer.body))
        self.due.remove(item)
        if fault == 7:
            self.flying.append(answer)
            return
        self._take(answer)

    async def _at_once(self, items: list[Item]) -> None:
        answers = await self._ask(items)
        for item in items:
            self.due.remove(item)
        if self._choose(2):
            answers.reverse()
        for answer in answers:
            self._take(answer)

    async def _ask(self, items: list[Item]) -> list[Answer]:
        """Make calls at the same time, and judge them."""
        before = asyncio.all_tasks()
        async with asyncio.timeout(LONGEST_CALL):
            answers = list(await asyncio.gather(*map(self._ask_one, items)))
        turns = 0
        while asyncio.all_tasks() != before and turns < MOST_TURNS:
            turns += (
                1  # a task that has not come to a step is not ended, but it comes to its end there
            )
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"a call has left tasks behind: {left}"
        for answer in answers:
            self._judge(answer)
        return answers

    async def _ask_one(self, item: Item) -> Answer:
        self.calls += 1
        stack = list(self.memos)
        body = call_body(
            steps=self.memos,
            attempt=item.attempt,
            max_attempts=self._max_attempts,
            is_planning=bool(self.planned - self.memos.keys()),
        )
        record = Seen()
        seen.set(record)
        response = await self._post(f"fnId={self._slug}&stepId={item.what}", body)
        return Answer(
            item=item,
            stack=stack,
            status=response.status,
            no_retry=response.headers.get("x-inngest-no-retry") == "true",
            body=comparable(json.loads(response.body)),
            seen=record,
        )

    def _judge(self, answer: Answer) -> None:
        ops = answer.body if answer.status == 206 else []
        ids = [op["id"] for op in ops]
        assert len(ids) == len(set(ids)), "a reply names a step twice"
        assert not set(ids) & set(answer.stack), "a finished step was reported again"
        here = [op for op in ops if op["op"] in DONE_HERE]
        assert answer.seen.works == [op["displayName"] for op in here], "work without a report"
        if answer.item.what != "step":
            assert set(ids) <= {answer.item.what}, "a call was for another step"
        elif answer.status == 206:
            assert ops, "a call found nothing to do"
        if answer.status == 500:
            assert answer.body["code"] != "step_unexpected", answer.body
        if self._is_ordered:
            told = answer.seen.effects
            short, long = sorted((told, self.longest), key=len)
            assert long[: len(short)] == short, "things happened in another order than before"
            self.longest = long

    def _take(self, answer: Answer) -> None:
        item = answer.item
        if answer.status != 206:
            self._end_or_retry(answer)
            return
        if not answer.body:
            self.planned.discard(item.what)
        for op in answer.body:
            hash_ = op["id"]
            if op["op"] == "StepError":
                self.due.append(Item(item.what, item.attempt + 1))
            elif op["op"] == "StepPlanned":
                if hash_ not in self.known and hash_ not in self.memos:
                    self.planned.add(hash_)
                    self.due.append(Item(hash_))
            elif op["op"] == "Sleep":
                if hash_ not in self.known and hash_ not in self.memos:
                    self.asleep.append(hash_)
            else:
                failed = op["op"] == "StepFailed"
                self._store(hash_, {"error": op["error"]} if failed else {"data": op["data"]})
            self.known.add(hash_)

    def _store(self, hash_: str, memo: Any) -> None:
        self.memos.setdefault(hash_, memo)
        if not any(each.what == "step" for each in self.due):
            self.due.append(Item("step"))

    def _end_or_retry(self, answer: Answer) -> None:
        item = Item(answer.item.what, answer.item.attempt + 1)
        if answer.status == 200 or answer.no_retry or item.attempt >= self._max_attempts:
            self.end = self.end or answer
        else:
            self.due.append(item)

    async def _afterwards(self, end: Answer) -> None:
        """Make the calls that are still due, and one more: they change nothing any more."""
        for answer in self.flying:
            self._judge(answer)
        for item in self.due[:3]:
            await self._ask([item])
        (again,) = await self._ask([Item("step", end.item.attempt)])
        assert (again.status, again.body) == (end.status, end.body)


def comparable(body: Any) -> Any:
    """Return a reply without what may differ between two answers to one call."""
    for each in body if isinstance(body, list) else []:
        if isinstance(each, dict) and each.get("op") == "Sleep":
            each["name"] = ""
    return body

"""A server that takes results while a call goes on, and does to the call and to them whatever may happen.

What `unruly` says of replies holds here too: they are late, lost or repeated. And of the results on their
way some are refused, some are taken with nobody told, and sometimes the call is given up in between: then
a later one begins with what was saved by then.
"""

import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.fake_api import Answer as ApiAnswer
from tests.support.fake_api import Received
from tests.support.sdk_calls import call_body
from tests.support.unruly import MOST_CALLS, Answer, Item, Seen, Unruly, comparable, seen

from stepbase.protocol.ids import hash_step_id
from stepbase.sdk.message import Response

COMPLETE = hash_step_id("complete", 0)
HEADERS = {"x-stepbase-together": "true"}
Post = Callable[[str, bytes, dict[str, str]], Awaitable[Response]]


class Saving(Unruly):
    """One run, on a server that takes checkpoints and lets steps beside each other run in one call.

    Attributes:
        saves: How many requests with results came.
        beside: How many results came with others in one request or reply.
        has_lost: True once something was lost: what has happened may then happen in another order.
    """

    def __init__(self, post: Post, slug: str, choices: bytes, *, max_attempts: int) -> None:
        async def with_headers(query: str, body: bytes) -> Response:
            return await post(query, body, HEADERS)

        super().__init__(with_headers, slug, choices, max_attempts=max_attempts, is_ordered=False)
        self._lock = threading.Lock()
        self._fence = 0
        self._stored: list[str] = []
        self.saves = 0
        self.beside = 0
        self.has_lost = False

    def save(self, request: Received) -> ApiAnswer:
        """Take the results of a call that goes on; runs in the API's thread."""
        with self._lock:
            self.saves += 1
            body = request.body
            if body["generation_id"] != self._fence:
                return 409, {}
            fault = self._choose(16)
            if fault in (12, 13):
                self.has_lost = True
                return 413, {}
            if fault in (14, 15):
                self.has_lost = True
                self._fence += 1  # another call goes on with the run
                return 409, {}
            self.beside += len(body["steps"]) if len(body["steps"]) > 1 else 0
            for op in body["steps"]:
                assert op["op"] == "StepRun", "only results are saved on the way"
                assert op["id"] not in self.memos, "a result was saved twice"
                self._stored.append(op["displayName"])
                self.memos[op["id"]] = {"data": op["data"]}
            return 200, {}

    async def _call(self, item: Item) -> None:
        fault = self._choose(9)
        answer = await self._ask_alone(item)
        if fault == 5:
            self.has_lost = True
            return  # nobody saw the reply: the same call is made again, with what was saved
        self.due.remove(item)
        if fault == 7 and item.what != "step":
            self.flying.append(answer)
            return
        self._take(answer)

    async def _ask_alone(self, item: Item) -> Answer:
        (answer,) = await self._ask([item])
        return answer

    async def _ask_one(self, item: Item) -> Answer:
        self.calls += 1
        assert self.calls < MOST_CALLS, "the run does not end"
        with self._lock:
            self._fence += 1
            self._stored = []
        stack = list(self.memos)
        record = Seen()
        seen.set(record)
        body = call_body(
            steps=self.memos,
            attempt=item.attempt,
            max_attempts=self._max_attempts,
            is_planning=bool(self.planned - self.memos.keys()),
            may_checkpoint=True,
            generation_id=self._fence,
        )
        response = await self._post(f"fnId={self._slug}&stepId={item.what}", body)
        no_retry = response.headers.get("x-inngest-no-retry") == "true"
        return Answer(
            item, stack, response.status, no_retry, comparable(json.loads(response.body)), record
        )

    def _judge(self, answer: Answer) -> None:
        if answer.status == 500 and answer.body["code"] == "call_stale":
            return
        ops = answer.body if answer.status == 206 else []
        ids = [op["id"] for op in ops]
        assert len(ids) == len(set(ids)), "a reply names a step twice"
        assert not set(ids) & set(answer.stack), "a finished step was reported again"
        told = [op["displayName"] for op in ops if _has_run(op)]
        self.beside += len(told) if len(told) > 1 else 0
        if not self.has_lost:
            ran, known = Counter(answer.seen.works), Counter([*self._stored, *told])
            assert known - ran == Counter(), "a result without work"
            assert answer.status != 206 or ran == known, "work without a report"
        if answer.item.what != "step":
            assert set(ids) <= {answer.item.what}, "a call was for another step"
        elif answer.status == 206:
            assert ops, "a call found nothing to do"
        if answer.status == 500:
            assert answer.body["code"] != "step_unexpected", answer.body

    def _take(self, answer: Answer) -> None:
        if answer.status == 500 and answer.body["code"] == "call_stale":
            self.due.append(answer.item)
            return
        ops = answer.body if answer.status == 206 else []
        for op in ops:
            if op["op"] == "StepPlanned" and op.get("error"):
                self.known.add(op["id"])
                self.planned.add(op["id"])
                self.due.append(Item(op["id"], 1))
        if answer.status == 206 and not ops and not any(each.what == "step" for each in self.due):
            self.due.append(Item("step"))  # a step that nobody wants is closed: the run goes on
        if answer.status != 206:
            answer.stack = list(self.memos)  # what was saved before the handler ended counts too
        finals = [op for op in ops if op["op"] == "RunComplete"]
        if not finals:
            super()._take(answer)
            return
        for op in ops:
            if op not in finals:
                self.memos[op["id"]] = {"data": op["data"]}
        self.end = Answer(answer.item, list(self.memos), 200, False, finals[0]["data"], answer.seen)

    async def _afterwards(self, end: Answer) -> None:
        with self._lock:
            self._choices = []
        if end.status == 200:
            again = await self._ask_alone(Item("step", end.item.attempt))
            assert (again.status, again.body) == (200, end.body)


def _has_run(op: dict[str, Any]) -> bool:
    is_planned = op["op"] == "StepPlanned" and bool(op.get("error"))
    return is_planned or op["op"] in ("StepRun", "StepError", "StepFailed")

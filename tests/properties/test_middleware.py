"""Hooks keep their order, once a call, whatever a handler does and whatever gets lost.

And what a middleware does to results on their way out, it can undo on their way in.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given, settings
from tests.properties.test_replay import CHOICES, DEV, build, run
from tests.support.parallel_programs import SEQUENTIAL, plain

from stepbase import Middleware
from stepbase.middleware import Input, Output, Response, StepInfo
from stepbase.sdk.endpoint import Endpoint

ORDER = re.compile(
    r"\{ input memoization (replayed )?(new )?(step \. )?(ended )?(output |handed )?\} response"
)


class Wrapped(Middleware):
    """Wraps every result, and tells the hooks of each call as one line."""

    lines: list[str]

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.said: list[str] = []

    @contextmanager
    def around_call(self) -> Iterator[None]:
        self.said.append("{")
        yield
        self.said.append("}")

    def transform_input(self, input: Input) -> None:
        self.said.append("input")
        for memo in input.steps.values():
            if memo is not None and "data" in memo:
                memo["data"] = memo["data"]["wrapped"]

    def before_memoization(self) -> None:
        self.said.append("memoization")

    def after_memoization(self) -> None:
        self.said.append("replayed")

    def before_execution(self) -> None:
        self.said.append("new")

    @contextmanager
    def around_step(self, step: StepInfo) -> Iterator[None]:
        self.said.append("step")
        try:
            yield
        finally:
            self.said.append(".")

    def after_execution(self) -> None:
        self.said.append("ended")

    def transform_output(self, output: Output) -> None:
        self.said.append("output")
        output.data = {"wrapped": output.data}

    def transform_step_input(self, step: StepInfo) -> None:
        self.said.append("handed")

    def before_response(self, response: Response) -> None:
        self.lines.append(" ".join([*self.said, "response"]))


@settings(max_examples=60, deadline=None)
@given(SEQUENTIAL, CHOICES)
def test_hooks_keep_their_order_and_results_survive(program: Any, choices: bytes) -> None:
    async def check(kind: str) -> None:
        lines: list[str] = []
        endpoint = Endpoint(build(program, Wrapped.factory(lines)), framework="test", settings=DEV)

        answer = await run(endpoint, kind, choices)

        end = await plain(program, answer.stack)
        if answer.status == 200:
            assert (answer.body, None) == ({"wrapped": end.log}, end.error)
        else:
            assert [answer.body["name"], answer.body["message"]] == end.error
        for line in lines:
            assert ORDER.fullmatch(line), line
            assert ("new" in line) == ("ended" in line)

    asyncio.run(check("async"))
    asyncio.run(check("sync"))

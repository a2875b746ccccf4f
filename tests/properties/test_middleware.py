"""Hooks keep their order, once a call, whatever a handler does and whatever gets lost.

And what a middleware does to results on their way out, it can undo on their way in.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given, settings
from tests.properties.test_replay import DEV, FAULTS, PROGRAMS, add_async, add_sync, plain, serve

from stepbase import App, Middleware
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
@given(PROGRAMS, FAULTS)
def test_hooks_keep_their_order_and_results_survive(program: Any, faults: list[str]) -> None:
    async def check() -> None:
        expected = plain(program)
        lines: list[str] = []
        app = App("p", middleware=[Wrapped.factory(lines)])
        add_async(app, program)
        add_sync(app, program)
        endpoint = Endpoint(app, framework="test", settings=DEV)

        ends = [(await serve(endpoint, kind, faults)).end for kind in ("async", "sync")]

        for end in ends:
            assert (end["wrapped"] if isinstance(end, dict) else end) == expected
        for line in lines:
            assert ORDER.fullmatch(line), line
            assert ("new" in line) == ("ended" in line)

    asyncio.run(check())

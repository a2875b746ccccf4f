"""Replay keeps the promise: whatever gets lost, repeated or late, a run ends as the plain program would.

Programs are random: steps that fail some times or for good, sleeps, loops, branches on results, caught
errors, clean-up, and all of these beside each other in every way asyncio has; with few ids, so that they
repeat. Each runs as an async and as a plain handler against a server that does what it likes
(`tests/support/unruly.py`), and as a program without any durability, whose steps end in the order that
the server has recorded.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.parallel_programs import (
    MAX_ATTEMPTS,
    PROGRAMS,
    SAVED,
    AsyncProgram,
    End,
    Run,
    plain,
)
from tests.support.sync_programs import PlainSyncSteps, ReadAsSync, SyncProgram
from tests.support.unruly import Answer, Unruly, seen

from stepbase import App, Context, Step, SyncStep
from stepbase.config import InngestConfig
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request, Response
from stepbase.sdk.work import current_step

DEV = InngestConfig(
    is_dev=True,
    api_origin="http://127.0.0.1:1",
    event_origin="http://127.0.0.1:1",
    serve_origin=None,
    serve_path=None,
    env=None,
    event_key=None,
    signing_key=None,
    signing_key_fallback=None,
)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
EXAMPLES = {"async": 600, "sync": 420}
CHOICES = st.binary(max_size=100)


def build(program: Any, *middleware: Any) -> App:
    """Return an app that runs the program as an async and as a plain handler."""
    app = App("p", middleware=list(middleware))

    @app.function("async", on="x", checkpointing=False)
    async def handler(step: Step, ctx: Context) -> list[Any]:
        record, replay = seen.get(), step._replay

        def effect(what: Any) -> None:
            if not replay.is_over:
                record.effects.append(what)

        running = AsyncProgram(
            step, lambda node: work_of(node, ctx.attempt, step), effect, lambda: replay.is_over
        )
        await running.go(program)
        return list(running.log)

    @app.function("sync", on="x", checkpointing=False)
    def sync_handler(step: SyncStep, ctx: Context) -> list[Any]:
        running = SyncProgram(step, lambda node: work_of(node, ctx.attempt, step))
        running.go(program)
        return running.log

    return app


def work_of(node: Run, attempt: int, step: Step | SyncStep) -> Callable[[], Any]:
    """Return what a step runs: every other one is async."""
    work = partial(plain_work, node, attempt, step)
    return partial(async_work, work) if node.value % 2 and isinstance(step, Step) else work


def plain_work(node: Run, attempt: int, step: Step | SyncStep) -> int:
    seen.get().works.append(current_step() or "")
    assert not step._replay.is_replaying, "new work, and yet this is said to be a replay"
    if attempt < node.failures:
        raise ValueError(f"{node.id} failed")
    return node.value


async def async_work(work: Callable[[], Any]) -> Any:
    await asyncio.sleep(0)
    return work()


async def run(endpoint: Endpoint, kind: str, choices: bytes) -> Answer:
    """Run a function to its end; everything a call could leave behind is an error."""

    async def post(query: str, body: bytes) -> Response:
        response = await endpoint.ahandle(Request("POST", "http://x/", query, {}, body))
        assert isinstance(response, Response)
        return response

    server = Unruly(
        post, f"p-{kind}", choices, max_attempts=MAX_ATTEMPTS, is_ordered=kind == "async"
    )
    return await server.finish()


async def verify(program: Any, kind: str, choices: bytes) -> End:
    """Compare a program's run with what it does by itself."""
    endpoint = Endpoint(build(program), framework="test", settings=DEV)
    answer = await run(endpoint, kind, choices)
    if kind == "async":
        end = await plain(program, answer.stack)
        if end.error is None:
            assert answer.seen.effects[: len(end.log)] == end.log
    else:
        end = await plain(program, answer.stack, PlainSyncSteps(), ReadAsSync)
    if answer.status == 200:
        assert (answer.body, None) == (end.log, end.error)
    else:
        assert [answer.body["name"], answer.body["message"]] == end.error
    return end


class Troubles:
    """What an event loop has complained of."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.found: list[str] = []
        loop.set_exception_handler(lambda _, context: self.found.append(str(context)))

    def check(self) -> None:
        """Look for what only shows once the garbage is gone."""
        gc.collect()
        assert self.found == []


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_run_ends_as_the_plain_program_whatever_the_server_does(
    loop: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tally: Counter[str] = Counter()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        troubles = Troubles(runner.get_loop())

        def check(program: Any, choices: bytes) -> None:
            end = runner.run(verify(program, kind, choices))
            assert troubles.found == []
            count(tally, end)

        for programs in (PROGRAMS, SAVED):
            half = settings(max_examples=EXAMPLES[kind] // 2, deadline=None)
            half(given(programs, CHOICES)(check))()
        troubles.check()
    with capfd.disabled():
        print(f"\n{kind} handlers on {loop}: {shown(tally)}")
    total = tally["programs"]
    assert total >= EXAMPLES[kind]
    assert tally["of three branches or more"] >= 0.3 * total
    assert tally["with a caught error"] >= 0.2 * total


def count(tally: Counter[str], end: End) -> None:
    """Count what a program came by."""
    widths = [fact for fact in end.facts if isinstance(fact, int)]
    tally["programs"] += 1
    tally["of three branches or more"] += max(widths, default=0) >= 3
    tally["with branches"] += bool(widths)
    tally["with a caught error"] += "caught" in end.facts
    tally["that fail"] += end.error is not None


def shown(tally: Counter[str]) -> str:
    """Write a tally as one line."""
    shares = [f"{tally[each]} {each}" for each in tally if each != "programs"]
    return f"{tally['programs']} programs, {', '.join(shares)}"

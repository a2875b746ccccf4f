"""Steps that run beside each other in one call end as with a call for each, whatever gets lost on the way.

The programs and their plain reading are those of `test_replay`; the server takes results while calls go on
(`tests/support/saving.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from tests.properties.test_replay import (
    CHOICES,
    DEV,
    LOOPS,
    Troubles,
    count,
    shown,
    work_of,
)
from tests.support.fake_api import FakeApi, fake_api
from tests.support.parallel_programs import (
    MAX_ATTEMPTS,
    PROGRAMS,
    SAVED,
    AsyncProgram,
    End,
    Limit,
    Run,
    Sleep,
    plain,
)
from tests.support.saving import Saving
from tests.support.sync_programs import PlainSyncSteps, ReadAsSync, SyncProgram
from tests.support.unruly import seen

from stepbase import App, Checkpointing, Context, Step, SyncStep
from stepbase.sdk import ask, post
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request, Response

EXAMPLES = {"async": 240, "sync": 300}
OPTIONS = (Checkpointing(), Checkpointing(buffered_steps=4))
Tries = Counter[tuple[str, int]]
"""How often the work of a step (as text) was begun, by attempt."""


def local(node: Any) -> Any:
    """Return a program without what only a server can do: a step instead, and no races."""
    if isinstance(node, Sleep):
        return Run(node.id, len(node.id), 0, node.ticks)
    if isinstance(node, Limit):
        return local(node.body)
    if isinstance(node, tuple):
        return tuple(local(each) for each in node)
    if not is_dataclass(node):
        return node
    fields = {each.name: local(getattr(node, each.name)) for each in dataclass_fields(node)}
    if fields.get("kind") in ("race", "first-only"):
        fields["kind"] = "gather"
    made: Any = type(node)
    return made(**fields)


LOCAL = PROGRAMS.map(local)


def build(program: Any, option: Checkpointing, tries: Tries) -> App:
    """Return an app that runs the program as an async and as a plain handler."""
    app = App("p", checkpointing=option)

    def work(node: Run, ctx: Context, step: Step | SyncStep) -> Any:
        inner = work_of(node, ctx.attempt, step)
        if asyncio.iscoroutinefunction(inner):

            async def awork() -> Any:
                tries[repr(node), ctx.attempt] += 1
                return await inner()

            return awork

        def plain_work() -> Any:
            tries[repr(node), ctx.attempt] += 1
            return inner()

        return plain_work

    @app.function("async", on="x")
    async def handler(step: Step, ctx: Context) -> list[Any]:
        record, replay = seen.get(), step._replay

        def effect(what: Any) -> None:
            if not replay.is_over:
                record.effects.append(what)

        running = AsyncProgram(
            step, lambda node: work(node, ctx, step), effect, lambda: replay.is_over
        )
        await running.go(program)
        return list(running.log)

    @app.function("sync", on="x")
    def sync_handler(step: SyncStep, ctx: Context) -> list[Any]:
        running = SyncProgram(step, lambda node: work(node, ctx, step))
        running.go(program)
        return running.log

    return app


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    monkeypatch.setattr(ask, "FIRST_PAUSE_SECONDS", 0.001)
    with fake_api() as made:
        yield made
        post.close()


async def verify(program: Any, kind: str, choices: bytes, api: FakeApi, tally: Counter[str]) -> End:
    """Compare a program's run with what it does by itself."""
    tries: Tries = Counter()
    option = OPTIONS[len(choices) % 2]
    settings = replace(DEV, api_origin=api.url)
    endpoint = Endpoint(build(program, option, tries), framework="test", settings=settings)

    async def send(query: str, body: bytes, headers: dict[str, str]) -> Response:
        response = await endpoint.ahandle(Request("POST", "http://x/", query, headers, body))
        assert isinstance(response, Response)
        return response

    server = Saving(send, f"p-{kind}", choices, max_attempts=MAX_ATTEMPTS)
    api.answer = server.save
    answer = await server.finish()
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
    if not server.has_lost:
        check_tries(tries, server)
    tally["requests"] += server.saves
    tally["results beside others"] += server.beside
    tally["with losses"] += server.has_lost
    tally["calls"] += server.calls
    return end


def check_tries(tries: Tries, server: Saving) -> None:
    """Where nothing was lost, no attempt was made twice and none was left out."""
    results = sum(isinstance(memo, dict) and "data" in memo for memo in server.memos.values())
    succeeded = 0
    for (text, attempt), times in tries.items():
        node: Run = eval(text)  # what this process has written
        later = tries[text, attempt + 1]
        assert attempt < MAX_ATTEMPTS
        if attempt < node.failures:
            assert later <= times, "more second attempts than first ones failed"
        else:
            succeeded += times
    assert succeeded == results, "a step that had returned ran again"


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("loop", LOOPS)
def test_steps_beside_each_other_end_as_the_plain_program(
    loop: str, kind: str, api: FakeApi, capfd: pytest.CaptureFixture[str]
) -> None:
    tally: Counter[str] = Counter()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        troubles = Troubles(runner.get_loop())

        def check(program: Any, choices: bytes) -> None:
            end = runner.run(verify(program, kind, choices, api, tally))
            assert troubles.found == []
            count(tally, end)

        for programs in (PROGRAMS, SAVED, LOCAL):
            third = settings(max_examples=EXAMPLES[kind] // 3, deadline=None)
            third(given(programs, CHOICES)(check))()
        troubles.check()
    with capfd.disabled():
        print(f"\n{kind} handlers on {loop}: {shown(tally)}")
    assert tally["programs"] >= EXAMPLES[kind]
    assert tally["results beside others"] >= tally["programs"]

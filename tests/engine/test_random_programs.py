"""Functions made up at random, many at once: each ends with every step's result, each step ran once.

A program comes in its event: stages one after another, each of branches side by side, each of steps in
sequence. The handler answers as an SDK does: it replays what is stored, runs a lone new step at once,
and reports several as planned.
"""

import random
from collections import Counter
from typing import Any

import pytest
from tests.engine.conftest import StartEngine
from tests.support.stub_host import Answer, StubHost, ops, step_run

Step = dict[str, Any]
Program = list[list[list[Step]]]

ERROR = {"name": "E", "message": "on purpose"}


def made_up(chance: random.Random) -> Program:
    """Return a program of up to a dozen steps."""
    ids = (f"s{i}" for i in range(100))
    kinds = ["run"] * 5 + ["flaky", "fails", "sleep", "sleep", "wait"]

    def branch() -> list[Step]:
        return [
            {"id": next(ids), "kind": chance.choice(kinds)}
            for _ in range(chance.choice([1, 1, 2, 3]))
        ]

    return [
        [branch() for _ in range(chance.choice([1, 1, 1, 2, 3]))]
        for _ in range(chance.randrange(1, 4))
    ]


class Interpreter:
    """The handler of all programs; counts what it ran."""

    def __init__(self, host: StubHost) -> None:
        self._host = host
        self.ran: Counter[tuple[str, str]] = Counter()

    def __call__(self, call: dict[str, Any]) -> Answer:
        target = self._host.requests[-1][0]["x-inngest-step-id"]
        program: Program = call["event"]["data"]["program"]
        memos = call["steps"]
        if target != "step":
            [step] = [s for stage in program for b in stage for s in b if s["id"] == target]
            return ops(self._outcome(step, call))
        for stage in program:
            pending = [next((s for s in b if s["id"] not in memos), None) for b in stage]
            new = [step for step in pending if step is not None]
            if len(new) == 1:
                return ops(self._outcome(new[0], call))
            if new:
                return ops(*(_reported(step) for step in new))
        return Answer(200, {"memos": memos, "stack": call["ctx"]["stack"]["stack"]})

    def _outcome(self, step: Step, call: dict[str, Any]) -> dict[str, Any]:
        if step["kind"] in ("sleep", "wait"):
            return _reported(step)
        attempt = call["ctx"]["attempt"]
        if step["kind"] == "fails" or (step["kind"] == "flaky" and attempt == 0):
            opcode = "StepFailed" if attempt == 1 else "StepError"
            return {"op": opcode, "id": step["id"], "displayName": step["id"], "error": ERROR}
        self.ran[call["ctx"]["run_id"], step["id"]] += 1
        return step_run(step["id"], step["id"].upper())


def _reported(step: Step) -> dict[str, Any]:
    named = {"id": step["id"], "displayName": step["id"]}
    if step["kind"] == "sleep":
        return {**named, "op": "Sleep", "name": "5ms"}
    if step["kind"] == "wait":
        return {**named, "op": "WaitForEvent", "name": "app/never", "opts": {"timeout": "5ms"}}
    return {**named, "op": "StepPlanned"}


def expected(program: Program) -> dict[str, object]:
    """Return the memos a program must end with."""
    memos: dict[str, object] = {}
    for step in (s for stage in program for branch in stage for s in branch):
        memo = {"data": step["id"].upper()}
        results = {"sleep": None, "wait": None, "fails": {"error": ERROR}}
        memos[step["id"]] = results.get(step["kind"], memo)
    return memos


@pytest.mark.parametrize("max_calls", [64, 3])
async def test_every_program_ends_with_each_of_its_steps_once(
    start_engine: StartEngine, host: StubHost, max_calls: int
) -> None:
    chance = random.Random(max_calls)
    programs = [made_up(chance) for _ in range(40)]
    interpreter = Interpreter(host)
    host.handlers["app-f"] = interpreter

    async with (
        start_engine(max_calls=max_calls, retry_interval=0.01) as (client, _),
        start_engine(max_calls=max_calls, retry_interval=0.01) as (other, _),
    ):
        await client.register(host.registration(host.function("app-f", retries=1)))
        ids = []
        for i in range(0, len(programs), 10):
            sender = (client, other)[i // 10 % 2]
            ids += await sender.send(
                *({"name": "app/f", "data": {"program": p}} for p in programs[i : i + 10])
            )
        for event_id, program in zip(ids, programs, strict=True):
            run = await client.result(event_id)
            assert run["status"] == "Completed", (program, run["output"])
            assert run["output"]["memos"] == expected(program)
            assert sorted(run["output"]["stack"]) == sorted(expected(program))

    assert set(interpreter.ran.values()) == {1}

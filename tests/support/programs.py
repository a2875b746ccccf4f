"""Functions made up at random, and a handler that answers for all of them as an SDK does.

A program comes in its event: stages one after another, each of branches side by side, each of steps in
sequence. The handler replays what is stored, runs a lone new step at once, and reports several as planned.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Step = dict[str, Any]
Program = list[list[list[Step]]]
Op = dict[str, Any]

CHILD = "app-child"
"""The function that steps of the kind invoke call; its result is their data's word in capitals."""

ERROR = {"name": "E", "message": "on purpose"}


def made_up(chance: random.Random) -> Program:
    """Return a program of up to a dozen steps."""
    ids = (f"s{i}" for i in range(100))
    kinds = ["run"] * 5 + ["flaky", "fails", "sleep", "sleep", "wait", "look", "invoke"]

    def branch() -> list[Step]:
        return [
            {"id": next(ids), "kind": chance.choice(kinds)}
            for _ in range(chance.choice([1, 1, 2, 3]))
        ]

    return [
        [branch() for _ in range(chance.choice([1, 1, 1, 2, 3]))]
        for _ in range(chance.randrange(1, 4))
    ]


def expected(program: Program) -> dict[str, object]:
    """Return the memos a program must end with."""
    memos: dict[str, object] = {}
    for step in (s for stage in program for branch in stage for s in branch):
        memo = {"data": step["id"].upper()}
        results = {"sleep": None, "wait": None, "look": None, "fails": {"error": ERROR}}
        memos[step["id"]] = results.get(step["kind"], memo)
    return memos


@dataclass
class Interpreter:
    """The handler; counts by run and step what it ran."""

    ran: Counter[tuple[str, str]] = field(default_factory=Counter)

    def answer(self, call: dict[str, Any], target: str) -> list[Op] | None:
        """Return the ops that answer a call of the program, or None if it is done."""
        program: Program = call["event"]["data"]["program"]
        memos = call["steps"]
        if target != "step":
            [step] = [s for stage in program for b in stage for s in b if s["id"] == target]
            return [self._outcome(step, call)]
        for stage in program:
            pending = [next((s for s in b if s["id"] not in memos), None) for b in stage]
            new = [step for step in pending if step is not None]
            if len(new) == 1:
                return [self._outcome(new[0], call)]
            if new:
                return [_reported(step) for step in new]
        return None

    def _outcome(self, step: Step, call: dict[str, Any]) -> Op:
        if step["kind"] in ("sleep", "wait", "look", "invoke"):
            return _reported(step)
        attempt = call["ctx"]["attempt"]
        named = {"id": step["id"], "displayName": step["id"]}
        if step["kind"] == "fails" or (step["kind"] == "flaky" and attempt == 0):
            opcode = "StepFailed" if attempt == 1 else "StepError"
            return {**named, "op": opcode, "error": ERROR}
        self.ran[call["ctx"]["run_id"], step["id"]] += 1
        return {**named, "op": "StepRun", "data": step["id"].upper()}


def _reported(step: Step) -> Op:
    named = {"id": step["id"], "displayName": step["id"]}
    if step["kind"] == "sleep":
        return {**named, "op": "Sleep", "name": "5ms"}
    if step["kind"] in ("wait", "look"):
        waits = {"timeout": "5ms", "lookBack": "1h" if step["kind"] == "look" else None}
        return {**named, "op": "WaitForEvent", "name": "app/never", "opts": waits}
    if step["kind"] == "invoke":
        opts = {"function_id": CHILD, "payload": {"data": {"word": step["id"]}}}
        return {**named, "op": "InvokeFunction", "opts": opts}
    return {**named, "op": "StepPlanned"}


def child(call: dict[str, Any]) -> str:
    """Return the result of a call of the invoked function."""
    word: str = call["event"]["data"]["word"]
    return word.upper()

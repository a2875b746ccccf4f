"""The server in memory ends the same programs as the engine's test does, in any order, whatever is lost.

Calls overlap: several are leased before any is answered. Replies get lost, come twice, or come after the
call was made again.
"""

import json
import random
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.programs import CHILD, Interpreter, Program, child, expected, made_up
from tests.unit.testing.test_server import function

from stepbase.engine import expr
from stepbase.protocol.event import EventIn
from stepbase.protocol.op import decode_op
from stepbase.protocol.reply import Ops, Output, Reply
from stepbase.testing.server import Server
from stepbase.testing.state import Leased

MOST_TURNS = 2_000


def serve(programs: list[Program]) -> Server:
    server = Server(
        [function("f"), function(CHILD, triggers=[])],
        datetime(2030, 1, 1, tzinfo=UTC),
        holds=expr.holds,
        check=expr.compile_expression,
        retry_interval=1,
    )
    server.accept([EventIn("f", {"program": each}) for each in programs])
    return server


def reply_to(interpreter: Interpreter, leased: Leased) -> Reply:
    call = json.loads(leased.body)
    if leased.slug == CHILD:
        return Output(json.dumps(child(call)), 2)
    found = interpreter.answer(call, leased.step_id)
    if found is None:
        return Output(json.dumps(call["steps"]), 2)
    return Ops(tuple(decode_op(each, "[0]") for each in found), False, None, 2)


def turn(server: Server, chance: random.Random, under_way: list[tuple[Leased, Reply]]) -> None:
    """Take one reply, perhaps losing it, repeating it, or keeping it for much later."""
    leased, reply = under_way.pop(chance.randrange(len(under_way)))
    fate = chance.choice(["taken", "taken", "taken", "lost", "repeated", "late"])
    if fate in ("lost", "late"):
        server.lose(leased)
    if fate == "late":
        under_way.append((leased, reply))
    if fate in ("taken", "repeated"):
        server.settle(leased, reply)
    if fate == "repeated":
        assert server.settle(leased, reply) is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_every_program_ends_with_each_of_its_results(seed: int, count: int) -> None:
    chance = random.Random(seed)
    programs = [made_up(chance) for _ in range(count)]
    server, interpreter = serve(programs), Interpreter()
    under_way: list[tuple[Leased, Reply]] = []

    for _ in range(MOST_TURNS):
        ready = server.ready()
        chance.shuffle(ready)
        for item in ready[: chance.randrange(len(ready) + 1)]:
            leased = server.lease(item)
            under_way.append((leased, reply_to(interpreter, leased)))
        due = server.next_due()
        if due is not None and due - server.now > timedelta(days=1):
            due = None  # an invoke that would be given up: what it waits for is on its way
        if under_way and (not due or chance.random() < 0.8):
            turn(server, chance, under_way)
        elif due is not None and not ready:
            server.advance(due)
        if all(run.ended_at for run in server.runs.values()):
            break

    own = [run for run in server.runs.values() if run.slug == "f"]
    for run, program in zip(own, programs, strict=True):
        assert run.status == "Completed", (run, program)
        memos = json.loads(run.output or "null")
        assert memos == expected(program)
        assert sorted(run.stack) == sorted(memos)
    assert server.items == {}

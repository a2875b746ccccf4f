"""Waits that look back, in the server in memory, against a few lines that say what they should give."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.testing.test_server import function

from stepbase.engine import expr
from stepbase.protocol.event import EventIn
from stepbase.protocol.op import decode_op
from stepbase.protocol.reply import Ops, Output, Reply
from stepbase.testing.server import Server
from stepbase.testing.state import Leased

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
FOREVER = "300d"


@dataclass
class Model:
    """Which event each wait gets: the oldest in its window that the run has not had, else the next one."""

    waits: list[tuple[int, int]]
    arrived: list[tuple[int, int, int]] = field(default_factory=list)  # second, key, number
    given: list[int] = field(default_factory=list)
    begun: int = 0

    def begin(self, now: int) -> None:
        """A wait begins: it may be over at once, and the next one begins."""
        self.begun = now
        while len(self.given) < len(self.waits):
            key, window = self.waits[len(self.given)]
            found = [
                number
                for at, its_key, number in self.arrived
                if its_key == key and at >= now - window and number not in self.given
            ]
            if not found or not window:
                return
            self.given.append(found[0])

    def arrive(self, now: int, key: int, number: int) -> None:
        """An event comes."""
        self.arrived.append((now, key, number))
        if len(self.given) < len(self.waits) and self.waits[len(self.given)][0] == key:
            self.given.append(number)
            self.begin(now)


def reply_to(leased: Leased, waits: list[tuple[int, int]]) -> Reply:
    """Wait for one event after the other."""
    memos = json.loads(leased.body)["steps"]
    place = len(memos)
    if place == len(waits):
        return Output(json.dumps([memos[f"w{n}"]["data"]["number"] for n in range(place)]), 2)
    key, window = waits[place]
    opts = {"if": f"async.data.key == {key}", "timeout": FOREVER}
    if window:
        opts["lookBack"] = f"{window}s"
    op = {"op": "WaitForEvent", "id": f"w{place}", "name": "go", "opts": opts}
    return Ops((decode_op(op, "[0]"),), False, None, 2)


KEYS = st.integers(0, 1)
WAITS = st.lists(st.tuples(KEYS, st.sampled_from([0, 2, 60])), min_size=1, max_size=5)
# Seconds that pass, and the key of the event that comes then; None: the run starts.
ACTIONS = st.lists(st.tuples(st.integers(0, 3), KEYS), max_size=12)


@settings(max_examples=300, deadline=None)
@given(waits=WAITS, before=ACTIONS, after=ACTIONS)
def test_each_wait_gets_the_oldest_event_it_may_have(
    waits: list[tuple[int, int]], before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    server = Server([function("f")], NOON, holds=expr.holds, check=expr.compile_expression)
    model = Model(waits)

    def settle_all() -> None:
        while server.ready():
            leased = server.lease(server.ready()[0])
            server.settle(leased, reply_to(leased, waits))

    now = 0
    for number, (seconds, key) in enumerate([*before, (0, -1), *after]):
        now += seconds
        server.advance(NOON + timedelta(seconds=now))
        if key < 0:
            server.accept([EventIn("f", {})])
            settle_all()
            model.begin(now)
            continue
        server.accept([EventIn("go", {"key": key, "number": number})])
        settle_all()
        if number < len(before):
            model.arrived.append((now, key, number))
        else:
            model.arrive(now, key, number)

    [run] = server.runs.values()
    given = [json.loads(run.steps[hashed].memo)["data"]["number"] for hashed in run.stack]
    assert given == model.given
    assert (run.status == "Completed") == (len(given) == len(waits))

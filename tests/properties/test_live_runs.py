"""Whatever a function answers, its run ends or waits for something: nothing hangs, nothing is left behind."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.test_engine_decide import REPLY
from tests.unit.testing.test_server import function

from stepbase.engine import expr
from stepbase.errors import ProtocolError
from stepbase.protocol.event import EventIn
from stepbase.protocol.reply import Reply
from stepbase.testing.server import Server
from stepbase.testing.state import RunState

TURN = st.tuples(
    st.sampled_from(["settle", "settle", "settle", "lose", "advance", "event", "signal"]),
    st.integers(0, 5),
    REPLY,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TURN, max_size=25))
def test_every_live_run_has_a_future_and_every_open_step_its_item(
    turns: list[tuple[str, int, Reply | ProtocolError]],
) -> None:
    server = Server(
        [function("f"), function("g", triggers=[])],
        datetime(2026, 11, 24, 6, tzinfo=UTC),
        holds=expr.holds,
        check=expr.compile_expression,
        retry_interval=1,
    )
    server.accept([EventIn("f", {}), EventIn("f", {})])

    for kind, place, reply in turns:
        ready = server.ready()
        if kind == "event":
            server.accept([EventIn("app/e", {"x": 1})])
        elif kind == "signal":
            server.signal("s", 1)
        elif kind == "advance" or not ready:
            due = server.next_due()
            if due is not None:
                server.advance(due)
        else:
            leased = server.lease(ready[place % len(ready)])
            if kind == "lose":
                server.lose(leased)
            else:
                server.settle(leased, reply)
        for run in server.runs.values():
            _is_sound(server, run)


def _is_sound(server: Server, run: RunState) -> None:
    items = {job: item for (run_id, job), item in server.items.items() if run_id == run.id}
    pauses = {hashed for run_id, hashed in server._store.pauses if run_id == run.id}
    if run.ended_at is not None:
        assert not items and not pauses
        assert not run.has_open_step
        return
    open_ = {hashed for hashed, step in run.steps.items() if step.is_open}
    asleep = {item.step for item in items.values() if item.kind == "sleep"}
    for hashed in open_:
        assert (hashed in items) != (hashed in asleep), "one item ends each open step"
    assert pauses <= open_
    assert any(item.due is not None for item in items.values()), "something happens next"
    calls = {job for job in items if job == "main" or job.startswith("after:")}
    assert "main" in calls
    if items["main"].due is None:
        assert open_ or len(calls) > 1, "a parked run waits for a step, or for a call of a race"

"""What holds for every reply a function can send, in every state a run can be in."""

import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from stepbase.engine.decide import decide
from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.opening import State
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.reply import NoAnswer, Reply, decode_reply

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
HASHES = st.sampled_from(["a", "b", "c", "d"])

# As a parser leaves it, NaN and infinities included: nothing says that an SDK sends good JSON.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "error", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
OPCODES = st.sampled_from(
    ["StepRun", "Step", "StepError", "StepFailed", "Sleep", "StepPlanned", "WaitForEvent"] * 4
    + ["InvokeFunction", "WaitForSignal", "RunComplete", "None"] * 2
    + ["DiscoveryRequest", "Gateway", "AIGateway", "Bogus"]
)
WHEN = st.sampled_from(["1s", "0s", "2h", "400d", "banana", "2020-01-01", "2026-11-24T07:00:00Z"])
OP = st.fixed_dictionaries(
    {"op": OPCODES, "id": HASHES},
    optional={
        "data": JSON,
        "error": JSON | st.just({"name": "E", "message": "m"}),
        "name": WHEN | JSON,
        "displayName": st.text(max_size=3) | JSON,
        "opts": st.fixed_dictionaries(
            {},
            optional={
                "duration": WHEN | JSON,
                "timeout": WHEN | JSON,
                "event": st.just("app/e") | JSON,
                "if": st.sampled_from(["async.data.x == 1", "event.data.x == 1", "1 +"]) | JSON,
                "function_id": st.sampled_from(["app-g", "app-none"]) | JSON,
                "signal": st.just("s") | JSON,
                "payload": JSON,
                "parallelMode": st.just("race") | JSON,
            },
        )
        | JSON,
    },
)
SPANS = st.sampled_from(["1s", "2h", "0s", "2020-01-01", "2026-11-24T07:00:00Z"])
GOOD_OP = st.fixed_dictionaries(
    {
        "op": st.sampled_from(
            ["StepRun", "StepError", "StepFailed", "Sleep", "StepPlanned", "WaitForEvent"] * 3
            + ["InvokeFunction", "WaitForSignal", "None", "RunComplete"]
        ),
        "id": HASHES,
        "data": st.integers(),
        "error": st.just({"name": "E", "message": "m"}),
        "name": SPANS,
        "opts": st.fixed_dictionaries(
            {
                "timeout": SPANS,
                "function_id": st.sampled_from(["app-g", "app-none"]),
                "signal": st.just("s"),
            },
            optional={
                "if": st.sampled_from(["async.data.x == 1", "event.data.x == 1"]),
                "parallelMode": st.just("race"),
            },
        ),
    }
)
GOOD_BODY = st.lists(GOOD_OP, max_size=3).map(lambda ops: json.dumps(ops).encode())
BODY = (
    st.lists(OP, max_size=4).map(lambda ops: json.dumps(ops).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20)
    | st.integers(90, 3000).map(lambda n: b"[" * n + b"]" * n)
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        names.SDK: st.just("stub:v1"),
        names.NO_RETRY: st.sampled_from(["true", "false", "maybe"]),
        names.RETRY_AFTER: st.sampled_from(["3", "nan", "-inf", "1e400", "soon", "2027-01-01"])
        | st.text(max_size=8),
        names.REQ_VERSION: st.sampled_from(["2", "1", "x", "²"]),
    },
)


@st.composite
def states(draw: st.DrawFn) -> State:
    """A state a run can be in: steps are closed, open or unknown; a target is an open one."""
    known = draw(st.frozensets(HASHES))
    open_ = draw(st.frozensets(HASHES)) - known
    target = draw(st.sampled_from([None, *sorted(open_)]))
    return State(
        attempt=draw(st.integers(0, 20)),
        max_attempts=draw(st.integers(1, 21)),
        known=known,
        state_bytes=draw(st.sampled_from([0, 0, names.MAX_STATE_BYTES])),
        outage=draw(st.floats(0, 10_000)),
        now=NOW,
        chance=draw(st.floats(0, 1, exclude_max=True)),
        retry_interval=draw(st.none() | st.floats(0.01, 10)),
        open=open_,
        target=target,
        is_request=target is not None and draw(st.booleans()),
        is_main=draw(st.booleans()) if target is None else False,
        run_id="R",
        function="app-f",
        functions=frozenset({"app-g"}),
    )


STATE = states()


def decoded(status: int, headers: dict[str, str], body: bytes) -> Reply | ProtocolError:
    """Read a reply as the caller does."""
    try:
        return decode_reply(status, headers, body)
    except ProtocolError as error:
        return error


GOOD_HEADERS = st.fixed_dictionaries(
    {names.SDK: st.just("stub:v1")}, optional={names.NO_RETRY: st.sampled_from(["true", "false"])}
)
ODD_REPLY = st.builds(
    decoded,
    st.sampled_from([200, 201, 204, 206, 206, 206, 302, 400, 401, 500, 502, 503]),
    HEADERS | GOOD_HEADERS,
    BODY,
)
REPLY = st.builds(decoded, st.just(206), GOOD_HEADERS, GOOD_BODY) | ODD_REPLY


@settings(max_examples=400, deadline=None)
@given(state=STATE, reply=REPLY)
def test_every_state_and_reply_has_one_settlement_that_the_store_can_write(
    state: State, reply: Reply | ProtocolError
) -> None:
    settled = decide(state, reply)

    _is_consistent(state, settled)
    _waits_for_something(state, settled)
    _makes_progress(state, settled)
    for text in (settled.output, settled.error, *(step.memo for step in settled.steps)):
        if text is not None:
            json.loads(text, parse_constant=_refuse)


def _is_consistent(state: State, settled: Settlement) -> None:
    if settled.verdict is Verdict.END:
        assert settled.status in ("Completed", "Failed")
        assert (settled.output is None) == (settled.status == "Failed")
        assert (settled.error is None) == (settled.status == "Completed")
    else:
        assert settled.status is settled.output is settled.error is None
    if settled.verdict is Verdict.TIMER:
        assert (settled.due is None) != (settled.delay is None)
        assert settled.delay is None or 0 < settled.delay <= names.MAX_SLEEP_SECONDS
        assert settled.due is None or settled.due > NOW
        assert settled.kind in ("sleep", "step", "gateway") or settled.step is None
        if settled.kind in ("step", "gateway"):
            assert settled.step == state.target and settled.step is not None
            assert (settled.kind == "gateway") == state.is_request
    assert len({step.hash for step in settled.steps}) == len(settled.steps)
    for step in settled.steps:
        assert step.hash and "\x00" not in step.hash + step.name


def _waits_for_something(state: State, settled: Settlement) -> None:
    """Nothing hangs: whatever is open has an item that ends it, and the item is not dropped early."""
    items = {item.hash for item in settled.items}
    opened = {s.hash for s in settled.steps if s.status not in ("done", "failed")}
    closed = {s.hash for s in settled.steps} - opened
    if settled.verdict is not Verdict.END:
        assert opened == items | ({settled.step} if settled.kind == "sleep" else set())
    assert {pause.hash for pause in settled.pauses} <= items
    assert {event.hash for event in settled.events} <= items
    if settled.verdict is Verdict.PARK:
        assert state.is_main and (items or state.open - closed)
    if settled.verdict is Verdict.DONE and state.target is None:
        assert not state.is_main and (items or state.open)
    if settled.verdict is Verdict.DONE and state.target is not None:
        assert state.target in closed


def _makes_progress(state: State, settled: Settlement) -> None:
    """Nothing goes on for ever: each settlement ends the run, stores a step, or uses something up."""
    assert not state.known & {step.hash for step in settled.steps}
    is_try = settled.verdict is Verdict.TIMER and settled.kind != "sleep"
    if settled.verdict is Verdict.CONTINUE:
        assert settled.steps and settled.attempt == 0
    elif is_try and not settled.is_outage:
        assert settled.attempt == state.attempt + 1 < state.max_attempts
    elif is_try:
        assert settled.attempt - state.attempt == (state.outage >= 3600)


def _refuse(constant: str) -> object:
    raise AssertionError(f"{constant} is no JSON")


@settings(max_examples=200, deadline=None)
@given(
    attempts=st.integers(1, 4),
    replies=st.lists(
        REPLY.filter(lambda reply: not (isinstance(reply, NoAnswer) and reply.is_outage)),
        min_size=1,
        max_size=6,
    ),
)
def test_a_host_that_answers_always_the_same_ends_its_run(
    attempts: int, replies: list[Reply | ProtocolError]
) -> None:
    """Four step ids and so many attempts for each stretch between them: no run is longer."""
    known: set[str] = set()
    attempt = 0
    for i in range(5 * attempts):
        state = State(attempt, attempts, frozenset(known), 0, 0.0, NOW, 0.0)
        settled = decide(state, replies[i % len(replies)])
        if settled.verdict is Verdict.END:
            return
        known |= {step.hash for step in settled.steps}
        attempt = settled.attempt

    raise AssertionError("the run went on for ever")

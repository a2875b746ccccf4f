"""Monitor: what a database knows of runs whose server is another one, and what it costs if it cannot know."""

import asyncio
import json
import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from tests.monitor.conftest import Play
from tests.support.fake_api import Received, fake_api
from tests.support.gateway import RunningGateway
from tests.support.planner import Planner
from tests.support.real_hosts import serving_asgi
from tests.support.sdk_calls import RUN_ID, call_body, event, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, DefinitionError, NonRetriableError, Step, SyncStep, asgi
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.middleware import EncryptionMiddleware, Monitor, monitor
from stepbase.protocol.ids import ulid_ms
from stepbase.sdk import background, http

app = App("shop", middleware=[Monitor])
told = App("shop", middleware=[Monitor.factory(payloads=True)])
tries = {"flaky": 0}


async def charge() -> dict[str, Any]:
    return {"paid": 5, "api_key": "sk_live_0123456789abcdef0123"}


def fail_once() -> str:
    tries["flaky"] += 1
    if tries["flaky"] % 2:
        raise ValueError("card 4711 was declined")
    return "at last"


@app.function("order", on="order/paid")
async def order(step: Step) -> str:
    await step.run("charge", charge)
    await step.run("flaky", fail_once)
    await step.sleep("nap", "1h")
    found = await step.wait_for_event("refund", "order/refunded", timeout="2d", match="data.id")
    return "refunded" if found else "kept"


told.function("order", on="order/paid")(order.handler)


@app.function("order-sync", on="order/paid")
def order_sync(step: SyncStep) -> str:
    step.run("charge", lambda: {"paid": 5})
    step.run("flaky", fail_once)
    step.sleep("nap", "1h")
    found = step.wait_for_event("refund", "order/refunded", timeout="2d")
    return "refunded" if found else "kept"


@app.function("broken", on="order/paid")
async def broken(step: Step) -> None:
    await step.run("charge", charge)
    raise NonRetriableError("there is no order 7 for sb_secret_abcdefgh12345678")


EVENT = event(name="order/paid", id="order-42", data={"id": 42, "token": "t0p"})


async def timeline(look: asyncpg.Connection, run_id: str = RUN_ID) -> list[tuple[Any, ...]]:
    rows = await look.fetch(
        "select what, name, status, attempt from stepbase.run_timeline where run_id = $1", run_id
    )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("slug", ["shop-order", "shop-order-sync"])
async def test_a_run_on_another_server_shows_like_our_own(
    play: Play, look: asyncpg.Connection, slug: str
) -> None:
    tries["flaky"] = 0
    run = await play(app, slug, EVENT, answers={"refund": None})

    assert run.output == "kept"
    assert await timeline(look) == [
        ("run", "scheduled", "event", None),
        ("step", "charge", "done", 0),
        ("failed attempt", "flaky", "HTTP 206", 0),
        ("step", "flaky", "done", 1),
        ("step", "nap", "done", 0),
        ("step", "refund", "done", 0),
        ("run", "completed", "Completed", None),
    ]
    row = await look.fetchrow(
        "select function, status, event, event_id, cause, created_at, steps, failed_attempts, waits, output"
        " from stepbase.run_overview"
    )
    assert row is not None
    made = datetime.fromtimestamp(ulid_ms(RUN_ID) / 1000, UTC)
    assert tuple(row) == (
        *(slug, "Completed", "order/paid", "order-42", "event", made, 4, 1, None, None),
    )
    assert await look.fetchval("select count(*) from stepbase.recorded_waits") == 0


async def test_it_agrees_with_what_our_engine_would_have_stored(
    play: Play, look: asyncpg.Connection
) -> None:
    """Names, statuses and order of the steps are those that tests/engine see for the same function."""
    tries["flaky"] = 0
    await play(app, "shop-order", EVENT, answers={"refund": None})

    rows = await look.fetch(
        "select name, op, status, memo, pos from stepbase.steps order by started_at, pos"
    )
    assert [tuple(row)[:4] for row in rows] == [
        ("charge", "StepRun", "done", None),
        ("flaky", "StepRun", "done", None),
        ("nap", "Sleep", "done", None),
        ("refund", "WaitForEvent", "done", None),
    ]
    assert await look.fetchval("select step_count from stepbase.runs") == 4


async def test_a_live_run_says_what_it_waits_for(look: asyncpg.Connection) -> None:
    ask = ask_asgi(asgi(app))
    memos = {hashed("charge"): {"data": {}}, hashed("flaky"): {"data": "x"}}
    for known in (memos, {**memos, hashed("nap"): None}):
        await ask("POST", query="fnId=shop-order&stepId=step", body=call_body(EVENT, steps=known))

    waits = await look.fetch("select kind, what, condition, due_at from stepbase.recorded_waits")
    [wait] = [tuple(row) for row in waits]
    assert wait[:3] == ("event", "order/refunded", None)
    assert timedelta(hours=47) < wait[3] - datetime.now(UTC) < timedelta(hours=49)
    # Steps whose reports were lost are counted, and told from those that are known.
    assert (await timeline(look))[1:] == [
        ("step", "", "done", 0),
        ("step", "", "done", 0),
        ("step", "nap", "done", 0),
        ("step", "refund", "waiting", 0),
    ]
    assert (
        await look.fetchval("select status from stepbase.run_overview where run_id = $1", RUN_ID)
        == "Running"
    )


async def test_a_failed_run_has_its_error_without_keys(
    play: Play, look: asyncpg.Connection
) -> None:
    run = await play(app, "shop-broken", EVENT)

    assert run.error["name"] == "NonRetriableError"
    row = await look.fetchrow("select status, error from stepbase.run_overview")
    assert row is not None and row["status"] == "Failed"
    error = json.loads(row["error"])
    assert error["name"] == "NonRetriableError"
    assert error["message"] == "there is no order 7 for [redacted]"
    assert "sb_secret" not in row["error"]
    assert await look.fetchval("select function from stepbase.failing_functions") == "shop-broken"


async def test_payloads_are_stored_only_if_asked_for_and_without_keys(
    play: Play, look: asyncpg.Connection
) -> None:
    tries["flaky"] = 0
    await play(app, "shop-order", EVENT, answers={"refund": None})
    bare = await look.fetchval("select payload from stepbase.events")
    await look.execute("delete from stepbase.events")
    await look.execute("delete from stepbase.runs")
    await look.execute("delete from stepbase.steps")
    await play(told, "shop-order", EVENT, answers={"refund": None})

    assert json.loads(bare) == {"name": "order/paid", "id": "order-42", "ts": EVENT["ts"]}
    full = json.loads(await look.fetchval("select payload from stepbase.events"))
    assert full["data"] == {"id": 42, "token": "[redacted]"}
    memo = await look.fetchval("select memo from stepbase.steps where name = 'charge'")
    assert json.loads(memo) == {"data": {"paid": 5, "api_key": "[redacted]"}}
    assert await look.fetchval("select output from stepbase.runs") == '"kept"'


async def test_messages_of_errors_can_be_left_out(play: Play, look: asyncpg.Connection) -> None:
    quiet = App("shop", middleware=[Monitor.factory(messages=False)])
    quiet.function("broken", on="order/paid")(broken.handler)
    await play(quiet, "shop-broken", EVENT)

    assert json.loads(await look.fetchval("select error from stepbase.runs")) == {
        "name": "NonRetriableError"
    }


async def test_put_first_it_stores_what_is_encrypted_as_it_is(
    play: Play, look: asyncpg.Connection
) -> None:
    sealed = App(
        "shop",
        middleware=[Monitor.factory(payloads=True), EncryptionMiddleware.factory("a key")],
    )

    async def secretive(step: Step) -> str:
        return await step.run("one", lambda: "psst")

    sealed.function("secretive", on="order/paid")(secretive)
    await play(sealed, "shop-secretive", EVENT)

    stored = await look.fetchval("select string_agg(memo::text, '') from stepbase.steps")
    stored += await look.fetchval("select output::text from stepbase.runs")
    assert "psst" not in stored and stored.count("__ENCRYPTED__") == 2


async def test_a_run_that_a_step_invoked_is_linked_to_it(
    play: Play, look: asyncpg.Connection
) -> None:
    step = hashed("call")
    data = {"_inngest": {"correlation_id": f"01M84KVXAAXFDZB1D48JGNR1ME.{step}"}}
    await play(app, "shop-broken", event(name="inngest/function.invoked", data=data))

    row = await look.fetchrow("select cause, parent_run, parent_hash from stepbase.runs")
    assert row is not None
    assert tuple(row) == ("invoke", "01M84KVXAAXFDZB1D48JGNR1ME", step)


async def test_a_batch_keeps_all_of_its_events(play: Play, look: asyncpg.Connection) -> None:
    events = [event(id=f"e{i}", name="order/paid") for i in range(3)]
    await play(app, "shop-broken", events[0], events=events)

    assert await look.fetchval("select cardinality(event_ids) from stepbase.runs") == 3
    assert await look.fetchval("select count(*) from stepbase.events") == 3
    assert await look.fetchval(
        "select array_agg(distinct reason) from stepbase.not_started_events where run_id = $1",
        RUN_ID,
    ) == ["batched"]


async def test_the_engines_own_calls_are_not_reported(
    gateway: RunningGateway, look: asyncpg.Connection
) -> None:
    await ask_asgi(asgi(app))(
        "POST",
        query="fnId=shop-broken&stepId=step",
        headers={"user-agent": "stepbase"},
        body=call_body(EVENT),
    )

    assert await look.fetchval("select count(*) from stepbase.runs") == 0


async def test_a_run_of_this_databases_engine_is_left_alone_whoever_calls(
    play: Play, look: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await look.execute(
        "insert into stepbase.runs (run_id, function_id, fn_version, event_id, created_at)"
        " values ($1, gen_random_uuid(), 1, 'E', now())",
        RUN_ID,
    )
    with caplog.at_level(logging.DEBUG, "stepbase.middleware.monitor"):
        await play(app, "shop-broken", EVENT)

    assert await look.fetchval("select status from stepbase.runs") == "Scheduled"
    assert await look.fetchval("select count(*) from stepbase.steps") == 0
    # It is asked once, and then left in peace.
    said = [r.message for r in caplog.records if r.name == "stepbase.middleware.monitor"]
    assert said == ["the database's own engine has the run: nothing to report"]


@pytest.mark.parametrize("slug", ["shop-order", "shop-order-sync"])
async def test_a_database_that_hangs_costs_a_second_and_then_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, slug: str
) -> None:
    impatient = App("shop", middleware=[Monitor.factory(seconds=0.3)])
    impatient.function("order", on="order/paid")(order.handler)
    impatient.function("order-sync", on="order/paid")(order_sync.handler)
    tries["flaky"] = 1
    monkeypatch.setattr(monitor, "_lines", {})
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SUPABASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        ask = ask_asgi(asgi(impatient))
        took = []
        for _ in range(monitor.MOST_FAILURES + 3):
            began = time.monotonic()
            reply = await ask("POST", query=f"fnId={slug}&stepId=step", body=call_body(EVENT))
            took.append(time.monotonic() - began)
            assert (reply.status, reply.op["op"]) == (206, "StepRun")
        await http.aclose()
        http.close()
        await asyncio.to_thread(background.stop)

    slow = [seconds for seconds in took if seconds >= 0.3]
    assert len(slow) == monitor.MOST_FAILURES and max(took) < 1.2
    said = [r.getMessage() for r in caplog.records if r.name == "stepbase.middleware.monitor"]
    assert len(said) == monitor.MOST_FAILURES and "no answer within 0.3 s" in said[0]
    assert "no call is reported for 30 s" in said[-1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {"code": "PGRST202", "message": "not found"}), "apply stepbase's migrations"),
        ((401, {"code": "42501", "message": "permission denied"}), "must be the secret key"),
        ((502, b"<html>"), "HTTP 502"),
    ],
)
async def test_a_refusal_is_logged_with_what_to_do(
    answer: Any, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(monitor, "_lines", {})
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")

    def refuse(_: Received) -> Any:
        return answer

    with fake_api(refuse) as api:
        monkeypatch.setenv("SUPABASE_URL", api.url)
        reply = await ask_asgi(asgi(app))(
            "POST", query="fnId=shop-order&stepId=step", body=call_body(EVENT)
        )
        await http.aclose()

    assert reply.op["op"] == "StepRun"
    assert said in caplog.text and "sb_secret_x" not in caplog.text
    assert api.received[0].path == "/rest/v1/rpc/stepbase_record"


async def test_without_a_project_nothing_is_reported_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(monitor, "_lines", {})
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(app))
    for _ in range(2):
        await ask("POST", query="fnId=shop-order&stepId=step", body=call_body(EVENT))

    said = [r.getMessage() for r in caplog.records if r.name == "stepbase.middleware.monitor"]
    assert len(said) == 1 and "SUPABASE_URL is not set" in said[0]


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(DefinitionError, match="between 0 and 10"):
        Monitor(seconds=0)


async def test_steps_saved_on_the_way_are_reported_with_their_times(
    gateway: RunningGateway, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = App("shop", middleware=[Monitor])

    async def several(step: Step) -> str:
        for name in ("one", "two", "three"):
            await step.run(name, lambda: asyncio.sleep(0.02))
        return "done"

    goes_on.function("several", on="order/paid")(several)
    body = call_body(EVENT, may_checkpoint=True)
    with fake_api() as server:
        monkeypatch.setenv("INNGEST_BASE_URL", server.url)
        reply = await ask_asgi(asgi(goes_on))(
            "POST", query="fnId=shop-several&stepId=step", body=body
        )

    assert reply.status == 206 and len(server.received) == 2  # two saved, the third with the end
    assert len(reply.body) == 2
    assert (await timeline(look))[1:] == [
        ("step", "one", "done", 0),
        ("step", "two", "done", 0),
        ("step", "three", "done", 0),
        ("run", "completed", "Completed", None),
    ]
    times = await look.fetch("select ended_at - started_at as took from stepbase.steps")
    assert all(timedelta(milliseconds=15) < row["took"] < timedelta(seconds=2) for row in times)


async def test_parallel_steps_are_planned_and_then_done(
    gateway: RunningGateway, look: asyncpg.Connection
) -> None:
    wide = App("shop", middleware=[Monitor])

    async def both(step: Step) -> tuple[int, int]:
        return await asyncio.gather(step.run("a", lambda: 1), step.run("b", lambda: 2))

    wide.function("both", on="order/paid")(both)
    ask = ask_asgi(asgi(wide))
    planner = Planner(lambda query, body: ask("POST", query=query, body=body), "shop-both")

    assert await planner.finish() == [1, 2]
    rows = await look.fetch("select name, op, status from stepbase.steps order by name")
    assert [(row["name"], row["status"]) for row in rows] == [("a", "done"), ("b", "done")]
    assert await look.fetchval("select status from stepbase.runs") == "Completed"
    assert await look.fetchval("select count(*) from stepbase.recorded_waits") == 0


async def test_under_our_own_engine_not_one_request_is_made(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_lines", {})
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    quick = App("quick", middleware=[Monitor])

    @quick.function("f", on="order/paid")
    async def f(step: Step) -> int:
        return await step.run("one", lambda: 1)

    async with serving(Settings(database_url=database, port=0)) as (_, port, _):
        monkeypatch.setenv("INNGEST_DEV", f"http://127.0.0.1:{port}")
        with fake_api() as project, serving_asgi(asgi(quick)) as origin:
            monkeypatch.setenv("SUPABASE_URL", project.url)
            connection = await asyncpg.connect(database)
            async with httpx.AsyncClient() as web, asyncio.timeout(30):
                assert (await web.put(f"{origin}/api/inngest")).status_code == 200
                await web.post(f"http://127.0.0.1:{port}/e/k", json={"name": "order/paid"})
                ended = "select count(*) from stepbase.runs where status = 'Completed'"
                while not await connection.fetchval(ended):
                    await asyncio.sleep(0.02)
            await connection.close()
    await asyncio.to_thread(background.stop)

    assert project.received == []

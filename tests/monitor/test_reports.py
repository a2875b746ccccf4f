"""public.stepbase_record: whatever happens to reports on their way, the record of a run ends up the same."""

import asyncio
import itertools
import json
import random
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.monitor.conftest import Play
from tests.support.fake_api import fake_api
from tests.support.gateway import RunningGateway
from tests.support.real_hosts import serving_asgi
from tests.support.sdk_calls import RUN_ID, event

from stepbase import App, Step, asgi
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.middleware import Monitor, monitor
from stepbase.sdk import background, http

app = App("shop", middleware=[Monitor])
plain = App("shop")
tries = {"flaky": 0}


def fail_once() -> str:
    tries["flaky"] += 1
    if tries["flaky"] % 2:
        raise ValueError("not yet")
    return "at last"


@app.function("order", on="order/paid", checkpointing=False)
async def order(step: Step) -> str:
    await step.run("charge", lambda: 5)
    await step.run("flaky", fail_once)
    await step.sleep("nap", "20ms")
    await step.wait_for_event("refund", "order/refunded", timeout="1s")
    await step.run("last", lambda: None)
    raise KeyError("no such order")


plain.function("order", on="order/paid", checkpointing=False, retries=1)(order.handler)
EVENT = event(name="order/paid", id="order-42")
Report = dict[str, Any]

STATE = """
select jsonb_build_object(
  'runs', (select jsonb_agg(jsonb_build_array(run_id, status, step_count, error ->> 'name', ended_at is null))
             from stepbase.runs),
  'steps', (select jsonb_agg(jsonb_build_array(name, op, status, attempt, ended_at is null) order by name)
              from stepbase.steps),
  'attempts', (select jsonb_agg(jsonb_build_array(hash, attempt, http_status, error ->> 'name')
                 order by hash, attempt) from stepbase.attempts),
  'events', (select jsonb_agg(jsonb_build_array(id, event_id, name)) from stepbase.events),
  'waits', (select count(*) from stepbase.recorded_waits))
"""


@pytest.fixture
async def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """The reports of one run that failed at its end, in order."""
    monkeypatch.setattr(monitor, "_lines", {})
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    tries["flaky"] = 0
    with fake_api(lambda _: (200, "recorded")) as api:
        monkeypatch.setenv("SUPABASE_URL", api.url)
        await _play(app, max_attempts=2)
        await http.aclose()
    found = [received.body["p_report"] for received in api.received]
    assert len(found) == 8, [[r["attempt"], r["http"], r["failed"], r["end"]] for r in found]
    return found


async def _play(app: App, **options: Any) -> None:
    from tests.support import mini_server
    from tests.support.sdk_hosts import ask_asgi

    ask = ask_asgi(asgi(app))
    await mini_server.finish(
        lambda query, body: ask("POST", query=query, body=body), "shop-order", EVENT,
        answers={"refund": None}, **options,
    )  # fmt: skip


async def send(db: asyncpg.Connection, report: Report) -> Any:
    return await db.fetchval("select public.stepbase_record($1)", json.dumps(report))


async def state_after(db: asyncpg.Connection, order: list[Report]) -> Any:
    """Return what is stored after these reports, and forget them."""
    transaction = db.transaction()
    await transaction.start()
    for report in order:
        assert await send(db, report) == "recorded"
    state = json.loads(await db.fetchval(STATE))
    await transaction.rollback()
    return state


async def test_reports_may_come_twice_late_and_in_any_order(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    wanted = await state_after(db, reports)
    assert wanted["runs"] == [[RUN_ID, "Failed", 5, "KeyError", False]]
    assert [step[:3] for step in wanted["steps"]] == [
        ["charge", "StepRun", "done"],
        ["flaky", "StepRun", "done"],
        ["last", "StepRun", "done"],
        ["nap", "Sleep", "done"],
        ["refund", "WaitForEvent", "done"],
    ]
    assert len(wanted["attempts"]) == 3 and wanted["waits"] == 0

    chance = random.Random(5)
    for _ in range(60):
        order = reports + [each for each in reports if chance.random() < 0.5]
        chance.shuffle(order)
        assert await state_after(db, order) == wanted, [each["attempt"] for each in order]


async def test_no_report_changes_a_run_of_an_engine(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    await db.execute(
        "insert into stepbase.runs (run_id, function_id, fn_version, event_id, created_at)"
        " values ($1, gen_random_uuid(), 1, 'E', now())",
        RUN_ID,
    )
    before = json.loads(await db.fetchval(STATE))

    answers = {await send(db, report) for report in reports}

    assert json.loads(await db.fetchval(STATE)) == before
    assert answers == {"owned"}


async def test_any_reports_that_are_lost_cost_no_more_than_what_they_said(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    wanted = await state_after(db, reports)

    for kept in itertools.combinations(reports[:-1], 4):
        state = await state_after(db, [*kept, reports[-1]])
        # The last call names all steps before it: none is missing, some have no name.
        assert state["runs"] == wanted["runs"]
        known = [step for step in state["steps"] if step[0]]
        assert len(state["steps"]) == 5 and all(step in wanted["steps"] for step in known)


async def test_the_same_error_twice_at_different_places_is_two_attempts(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    first = {**reports[0], "steps": [], "failed": [{"hash": None, "error": '{"name": "E"}'}]}
    for name in ("one", "one", "two"):
        await send(db, {**first, "report": name})

    assert await db.fetchval("select count(*) from stepbase.attempts") == 2


async def test_two_first_reports_at_once_make_one_run(
    connect: Connect, reports: list[Report]
) -> None:
    one, two = await connect(), await connect()
    transaction = one.transaction()
    await transaction.start()
    await send(one, reports[0])
    second = asyncio.ensure_future(send(two, reports[1]))
    async with asyncio.timeout(10):
        third = await connect()
        waiting = """
            select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
        """
        while not await third.fetchval(waiting):
            await asyncio.sleep(0.01)
    await transaction.commit()

    assert await second == "recorded"
    assert json.loads(await one.fetchval(STATE))["runs"] == [[RUN_ID, "Running", 1, None, True]]


@pytest.mark.parametrize(
    "change", [{"run": None}, {"ms": None}, {"report": None}, {"end": {"status": "Done"}}]
)
async def test_what_is_no_report_is_refused(
    db: asyncpg.Connection, reports: list[Report], change: Report
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="not a report of a call"):
        await send(db, {**reports[0], **change})


async def test_the_service_may_report_and_may_not_write_runs(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    await db.execute("set local role service_role")
    assert await send(db, reports[0]) == "recorded"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.transaction():
            await db.execute("update stepbase.runs set status = 'Completed'")
    for role in ("anon", "authenticated"):
        await db.execute(f"set local role {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction():
                await send(db, reports[0])


async def test_an_engine_sees_reported_functions_and_starts_nothing_of_them(
    database: str, reports: list[Report]
) -> None:
    connection = await asyncpg.connect(database)
    await send(connection, reports[0])
    async with serving(Settings(database_url=database, port=0)) as (engine, _, _):
        assert [f.config.slug for f in engine.registry.functions.by_id.values()] == ["shop-order"]
        assert await connection.fetchval("select count(*) from stepbase.queue") == 0
    await connection.close()


async def test_a_reported_run_looks_like_the_same_run_of_our_own_engine(
    database: str, play: Play, look: asyncpg.Connection, gateway: RunningGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen = """
        select what, name, status, attempt, error ->> 'name', ms is null
        from stepbase.run_timeline order by at, what, name
    """
    line = """
        select function, status, event, event_id, cause, steps, failed_attempts, waits, error ->> 'message'
        from stepbase.run_overview
    """
    tries["flaky"] = 0
    await play(app, "shop-order", EVENT, answers={"refund": None}, max_attempts=2)
    reported = [await look.fetch(seen), await look.fetch(line)]
    for table in ("runs", "steps", "attempts", "events", "functions", "apps"):
        await look.execute(f"delete from stepbase.{table}")

    tries["flaky"] = 0
    async with serving(Settings(database_url=database, port=0, retry_interval=0.01)) as (
        _,
        port,
        _,
    ):
        monkeypatch.setenv("INNGEST_DEV", f"http://127.0.0.1:{port}")
        import httpx

        with serving_asgi(asgi(plain)) as origin:
            async with httpx.AsyncClient() as web, asyncio.timeout(30):
                assert (await web.put(f"{origin}/api/inngest")).status_code == 200
                await web.post(f"http://127.0.0.1:{port}/e/k", json={**EVENT, "ts": None})
                ended = "select count(*) from stepbase.runs where ended_at is not null"
                while not await look.fetchval(ended):
                    await asyncio.sleep(0.02)
    background.stop()
    own = [await look.fetch(seen), await look.fetch(line)]

    assert [sorted(map(tuple, rows), key=repr) for rows in reported] == [
        sorted(map(tuple, rows), key=repr) for rows in own
    ]


SECRETS = ("charge-4711", "data-4711", "late-4711")


def telling(report: Report) -> Report:
    """Return a report with payloads and messages, as Monitor(payloads=True) makes them."""
    told: Report = json.loads(json.dumps(report))
    for sent in told["events"]:
        payload = {"name": sent["name"], "data": {"x": SECRETS[1]}, "user": {"id": "ann"}}
        sent["payload"] = json.dumps(payload)
    for step in told["steps"]:
        step["memo"] = json.dumps({"data": SECRETS[0]}) if step["status"] == "done" else None
    for failed in told["failed"]:
        failed["error"] = json.dumps({"name": "CardError", "message": SECRETS[2]})
    if told["end"] is not None:
        told["end"]["error"] = json.dumps({"name": "CardError", "message": SECRETS[2]})
    return told


async def stored_text(db: asyncpg.Connection) -> str:
    text: str = await db.fetchval(
        "select (select coalesce(string_agg(e::text, ''), '') from stepbase.events e)"
        " || (select coalesce(string_agg(r::text, ''), '') from stepbase.runs r)"
        " || (select coalesce(string_agg(s::text, ''), '') from stepbase.steps s)"
        " || (select coalesce(string_agg(a::text, ''), '') from stepbase.attempts a)"
    )
    return text


async def test_a_report_that_comes_after_forgetting_writes_nothing_again(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    told = [telling(report) for report in reports]
    last = told[-1]
    await send(db, last)
    assert SECRETS[1] in await stored_text(db) and SECRETS[2] in await stored_text(db)
    await db.execute("select stepbase.forget('ann')")
    forgotten = await stored_text(db)
    assert not any(secret in forgotten for secret in SECRETS)

    # Those that were on their way, and the last one once more.
    for report in told:
        assert await send(db, report) == "recorded"

    after = await stored_text(db)
    assert not any(secret in after for secret in SECRETS), after
    rows = await db.fetch("select name, status from stepbase.steps where name <> ''")
    assert {"charge", "flaky", "last"} <= {row["name"] for row in rows}, "what happened stays"
    assert await db.fetchval("select error ->> 'name' from stepbase.runs") == "CardError"


async def test_a_run_first_heard_of_when_its_event_is_forgotten_writes_nothing(
    db: asyncpg.Connection, reports: list[Report]
) -> None:
    told = [telling(report) for report in reports]
    for report in told:
        await send(db, report)
    await db.execute("select stepbase.forget('ann')")

    for report in told:  # another function's run of the same event
        await send(db, {**report, "run": "01" + "Z" * 24})

    after = await stored_text(db)
    assert after.count("Z" * 24) > 3
    assert not any(secret in after for secret in SECRETS), after

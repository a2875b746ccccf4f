"""What a person does from a page, and that each is written down."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.console.conftest import Shown
from tests.support.stub_host import ops

from stepbase.protocol.ids import hash_step_id

MakeRun = Callable[..., Awaitable[dict[str, Any]]]


async def test_an_event_is_sent(shown: Shown, make_run: MakeRun) -> None:
    await make_run()

    answer = await shown.act("/send", name="app/f", data='{"id": 8}')
    event = answer.headers["location"].rpartition("/")[2]
    run = await shown.api.result(event)

    assert run["output"] == {"result": "one"}
    assert "sent app/f" in await shown.page(answer.headers["location"])
    assert "sent app/f" not in await shown.page(answer.headers["location"])


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": "a/b", "data": "{"}, "not JSON"),
        ({"name": "a/b", "data": "[1]"}, "object"),
        ({"name": "", "data": "{}"}, "name"),
        ({"name": "inngest/x", "data": "{}"}, "inngest/"),
    ],
)
async def test_a_bad_event_is_refused_with_the_reason(
    shown: Shown, form: dict[str, str], said: str
) -> None:
    answer = await shown.act("/send", **form)

    assert answer.status_code == 200 and said in answer.text
    assert (await shown.data("/events"))["events"] == []


async def test_a_run_is_cancelled(shown: Shown) -> None:
    wait = {
        "op": "Sleep", "id": hash_step_id("a"), "name": "2027-06-01T00:00:00Z", "displayName": "nap"
    }  # fmt: skip
    shown.host.handlers["app-f"] = lambda call: ops(wait)
    await shown.api.register(shown.host.registration(shown.host.function("app-f")))
    [event_id] = await shown.api.send({"name": "app/f", "data": {}})
    await shown.api.opened(event_id, "sleep")
    [run] = await shown.api.runs_of(event_id)
    assert "nap" in await shown.page("/waiting")

    await shown.act(f"/runs/{run['run_id']}/cancel")
    again = await shown.act(f"/runs/{run['run_id']}/cancel")

    assert (await shown.api.result(event_id))["status"] == "Cancelled"
    assert "it had ended already" in await shown.page(again.headers["location"])


async def test_a_run_is_made_again_also_from_a_step(shown: Shown, make_run: MakeRun) -> None:
    run = await make_run()
    hashed = hash_step_id("a")

    whole = await shown.act(f"/runs/{run['run_id']}/rerun")
    part = await shown.act(f"/runs/{run['run_id']}/rerun", step=hashed, input='["other"]')
    refused = await shown.act(f"/runs/{run['run_id']}/rerun", step=hashed, input='{"no": 1}')
    runs = await shown.api.ended(run["event_id"], 3)

    assert {each["run_id"] for each in runs} == {run["run_id"]} | {
        answer.headers["location"].rpartition("/")[2] for answer in (whole, part)
    }
    assert "must be a JSON list" in await shown.page(refused.headers["location"])
    page = await shown.page(whole.headers["location"])
    assert "repeats" in page and run["run_id"] in page


async def test_a_function_is_paused_and_resumed(shown: Shown, make_run: MakeRun) -> None:
    await make_run()

    await shown.act("/functions/app-f/pause")
    assert "Resume" in await shown.page("/functions/app-f")
    [event_id] = await shown.api.send({"name": "app/f", "data": {}})
    assert (await shown.api.runs_of(event_id))[0]["status"] == "Scheduled"
    await shown.act("/functions/app-f/resume")

    assert (await shown.api.result(event_id))["status"] == "Completed"


async def test_dead_letters_are_requeued(
    shown: Shown, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await asyncpg.connect(database)
    async with connection.transaction():
        await connection.execute("select stepbase.emit('app/f', '{}', id => 'mine')")
        await connection.execute(
            "update stepbase.outbox set dead_at = now(), error = 'receiver said no', tries = 3"
        )
    assert "receiver said no" in await shown.page("/outbox")

    with caplog.at_level(logging.INFO, "stepbase.console.audit"):
        await shown.act("/outbox/requeue", id="mine")

    assert (
        await connection.fetchval("select count(*) from stepbase.outbox where dead_at is not null")
        == 0
    )
    [line] = [each for each in caplog.records if each.name == "stepbase.console.audit"]
    assert line.__dict__["path"] == "/outbox/requeue" and "1 due again" in line.__dict__["outcome"]
    await connection.close()


async def test_an_app_that_is_away_is_said(shown: Shown, make_run: MakeRun) -> None:
    await make_run()
    await shown.host.stop()

    answer = await shown.act("/apps/app/resync")

    assert "could not be synced" in await shown.page(answer.headers["location"])

"""What a person does from a page, and that each is written down."""

import html
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
    form = f"/runs/{run['run_id']}/again"

    whole = await shown.act(f"/runs/{run['run_id']}/rerun")
    part = await shown.act(form, step=hashed, **{"argument-0": '"other"', "argument-1": "{}"})
    own = await shown.act(form, step=hashed, **{"argument-0": " "})
    runs = await shown.api.ended(run["event_id"], 4)

    made = [answer.headers["location"].rpartition("/")[2] for answer in (whole, part, own)]
    assert {each["run_id"] for each in runs} == {run["run_id"], *made}
    outputs = {each["run_id"]: each["output"]["result"] for each in runs}
    assert [outputs[each] for each in made] == ["one", ["other", {}], "one"]
    page = await shown.page(whole.headers["location"])
    assert "repeats" in page and run["run_id"] in page
    first = await shown.page(f"/runs/{run['run_id']}")
    assert "repeated as" in first and made[0] in first


async def test_arguments_given_before_stand_in_the_form(shown: Shown, make_run: MakeRun) -> None:
    run = await make_run()
    hashed = hash_step_id("a")
    part = await shown.act(
        f"/runs/{run['run_id']}/again",
        step=hashed,
        **{"argument-0": '{"id": 7}', "argument-1": "2"},
    )
    await shown.api.ended(run["event_id"], 2)

    page = await shown.page(f"{part.headers['location']}/again?step={hashed}")

    assert "&#34;id&#34;: 7" in page and page.count("<textarea") == 2


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            {"argument-0": "seven"},
            "Argument 1 is not JSON: Expecting value in line 1, column 1: a text",
        ),
        ({"argument-0": "1", "argument-1": "{", "argument-2": "[3]"}, "Argument 2 is not JSON"),
        ({"argument-0": "", "argument-1": "2"}, "Argument 1 is empty"),
        ({"argument-0": '"\\u0000"'}, "Argument 1 "),
        ({"argument-0": "NaN"}, "Argument 1 is not JSON"),
    ],
)
async def test_what_is_no_argument_comes_back_as_it_was_typed(
    shown: Shown, make_run: MakeRun, typed: dict[str, str], said: str
) -> None:
    run = await make_run()

    answer = await shown.act(f"/runs/{run['run_id']}/again", step=hash_step_id("a"), **typed)

    page = html.unescape(answer.text)
    assert answer.status_code == 422 and said in page and 'aria-invalid="true"' in page
    for text in typed.values():
        assert f">{text}</textarea>" in page
    assert len((await shown.data("/runs"))["runs"]) == 1


async def test_a_database_that_is_away_takes_no_arguments(
    shown: Shown, make_run: MakeRun, database: str
) -> None:
    run = await make_run()
    typed = {"step": hash_step_id("a"), "argument-0": '{"id": 7}', "argument-1": '"two"'}
    connection = await asyncpg.connect(database)
    await connection.execute("alter table stepbase.runs rename to away")
    try:
        away = await shown.act(f"/runs/{run['run_id']}/again", **typed)
        more = await shown.act(f"/runs/{run['run_id']}/again", more="1", **typed)
    finally:
        await connection.execute("alter table stepbase.away rename to runs")
        await connection.close()
    again = await shown.act(f"/runs/{run['run_id']}/again", **typed)

    for answer, count in ((away, 2), (more, 3)):
        page = html.unescape(answer.text)
        assert answer.status_code == 503 and page.count("<textarea") == count
        assert '>{"id": 7}</textarea>' in page and '>"two"</textarea>' in page
        assert f'name="step" value="{typed["step"]}"' in page and 'role="alert"' in page
    assert "Not made again: " in away.text
    assert "made again as" in await shown.page(again.headers["location"])


async def test_one_more_argument_is_asked_for(shown: Shown, make_run: MakeRun) -> None:
    run = await make_run()

    answer = await shown.act(
        f"/runs/{run['run_id']}/again", step=hash_step_id("a"), more="1", **{"argument-0": "{7"}
    )

    assert answer.text.count("<textarea") == 2 and "{7</textarea>" in answer.text


@pytest.mark.parametrize("step", ["", "none"])
async def test_a_step_that_is_not_there_has_no_form(
    shown: Shown, make_run: MakeRun, step: str
) -> None:
    run = await make_run()

    answer = await shown.web.get(f"/runs/{run['run_id']}/again?step={step}")
    acted = await shown.act(f"/runs/{run['run_id']}/again", step=step)

    assert answer.status_code == acted.status_code == 404


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

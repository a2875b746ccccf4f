"""The form that sends an event, and the pages of event types, with scripts off."""

import html
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.console.conftest import Shown
from tests.support.stub_host import Answer, ops, step_run

from stepbase.protocol.ids import hash_step_id

MakeRun = Callable[..., Awaitable[dict[str, Any]]]

SCHEMA = {
    "properties": {
        "id": {"type": "integer", "minimum": 1, "description": "The order's <number>"},
        "note": {"type": "string", "default": "hi"},
        "at": {"type": "string", "format": "date-time"},
        "kind": {"enum": ["big", "small"]},
        "to": {"properties": {"city": {"type": "string"}}, "required": ["city"], "type": "object"},
    },
    "required": ["id"],
    "type": "object",
}


@pytest.fixture
async def typed(shown: Shown) -> Shown:
    """The console, with a function whose event has a class."""
    shown.host.handlers["app-f"] = lambda call: Answer(200, "done")
    body = shown.host.registration(shown.host.function("app-f"))
    told = {"app-f": {"app/f": {"model": "Order", "schema": SCHEMA}}}
    await shown.api.register({**body, "stepbase": {"schemas": told}})
    return shown


async def sent(shown: Shown) -> list[dict[str, Any]]:
    """Return the data of the events that came."""
    events = (await shown.data("/events"))["events"]
    found = [(await shown.data(f"/events/{each['id']}"))["event"]["payload"] for each in events]
    return [json.loads(payload)["data"] for payload in found]


async def test_the_form_has_a_labelled_control_for_each_property(typed: Shown) -> None:
    page = await typed.page("/send?name=app/f")

    for name in ("id", "note", "at", "kind", "to.city"):
        assert f'<label for="f-data.{name}">' in page, name
    assert 'id="f-data.id" name="data.id" required aria-describedby=" h-f-data.id"' in page
    assert "The order&#39;s &lt;number&gt;; at least 1" in page
    assert 'type="datetime-local"' in page and "<legend>to" in page
    assert '<option value="&#34;small&#34;">small</option>' in page
    assert 'value="hi"' in page and "<code>Order</code>" in page


async def test_what_is_typed_is_sent_as_its_types(typed: Shown) -> None:
    form = {"by": "form", "name": "app/f", "data.id": "7", "data.at": "2026-11-24T09:30",
            "data.kind": '"big"', "data.to.city": "Trang"}  # fmt: skip

    answer = await typed.act("/send", **form)

    assert answer.headers["location"].startswith("/events/")
    assert await sent(typed) == [
        {"id": 7, "at": "2026-11-24T09:30:00Z", "kind": "big", "to": {"city": "Trang"}}
    ]


async def test_a_wrong_value_comes_back_as_typed_with_the_error_beside_it(
    typed: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "stepbase.console.audit"):
        answer = await typed.act(
            "/send", by="form", name="app/f", **{"data.id": "<7", "data.note": "keep me"}
        )
    page = html.unescape(answer.text)

    assert answer.status_code == 200
    assert 'value="<7"' in page and 'value="keep me"' in page
    assert '<p class="problem" id="e-f-data.id">id must be a whole number' in page
    assert 'aria-invalid="true" aria-describedby="e-f-data.id h-f-data.id"' in page
    assert '<a href="#f-data.id">data.id</a>' in page
    assert await sent(typed) == []
    [line] = [each for each in caplog.records if each.name == "stepbase.console.audit"]
    assert "app/f" in line.__dict__["outcome"] and "keep me" not in line.__dict__["outcome"]


async def test_form_and_json_turn_into_each_other_without_losing_what_was_typed(
    typed: Shown,
) -> None:
    form = {"name": "app/f", "data.id": "nine", "data.note": "x"}
    as_json = await typed.act("/send", by="form", switch="json", **form)
    assert '"id": "nine"' in html.unescape(as_json.text)

    data = json.dumps({"id": 9, "note": "x", "more": [1]})
    as_form = await typed.act("/send", by="json", switch="form", name="app/f", data=data)
    page = html.unescape(as_form.text)
    assert (
        'name="data.id" required aria-describedby=" h-f-data.id" inputmode="numeric" value="9"'
        in page
    )
    assert "not sent by it: more" in page
    assert await sent(typed) == []


async def test_the_last_ones_data_stand_in_the_form_but_no_secrets(typed: Shown) -> None:
    await typed.api.send({"name": "app/f", "data": {"id": 41, "token": "tok-secret"}})

    page = await typed.page("/send?name=app/f")
    raw = await typed.page("/send?name=app/f&as=json")
    refused = await typed.act("/send", name="app/f", data='{"id": 1, "token": "[redacted]"}')

    assert (
        'value="41"' in page and "but for its secrets" in page and "not sent by it: token" in page
    )
    assert "tok-secret" not in page + raw and "[redacted]" in raw
    assert refused.status_code == 200 and "a secret was taken out" in refused.text
    assert 'value="41"' not in await typed.page("/send?name=app/f&from=none")


async def test_event_types_say_what_is_known(shown: Shown, typed: Shown, database: str) -> None:
    hashed = hash_step_id("send")
    other = {"id": ""}

    def sends(call: dict[str, Any]) -> Answer:
        return Answer(200, "x") if hashed in call["steps"] else ops(step_run(hashed, [other["id"]]))

    connection = await asyncpg.connect(database)
    await connection.execute("create table public.orders (id int primary key, status text)")
    await connection.execute(
        "select stepbase.track('orders', 'app/tracked', $$ new.status = 'paid' $$)"
    )
    await connection.close()
    [other["id"]] = await typed.api.send(
        {"name": "app/made", "data": {}, "id": "01234567-89ab-5def-8123-456789abcdef"}
    )
    typed.host.handlers["app-g"] = sends
    f, g = typed.host.function("app-f"), typed.host.function(
        "app-g", cancel=[{"event": "app/stop"}],
        triggers=[{"event": "app/tracked"}, {"event": "app/w*", "expression": "event.data.x == 1"}],
    )  # fmt: skip
    await typed.api.register(typed.host.registration(f, g))
    [event_id] = await typed.api.send({"name": "app/tracked", "data": {}})
    await typed.api.result(event_id)
    await typed.api.send({"name": "app/wild", "data": {"x": 1}})

    types = {each["name"]: each for each in (await shown.data("/event-types"))["event_types"]}

    assert types["app/f"]["models"] == ["Order"] and types["app/f"]["functions"] == ["app-f"]
    assert types["app/tracked"]["senders"] == [
        "table orders when (new.status = 'paid'::text)", "your app, over HTTP"
    ]  # fmt: skip
    assert types["app/made"]["senders"] == ["app-g"]
    assert types["app/wild"]["functions"] == ["app-g"] and types["app/stop"]["cancels"] == ["app-g"]
    page = html.unescape(await shown.page("/event-types/app/f"))
    assert '"description": "The order\'s <number>"' in page and "starts" in page
    assert "event.data.x == 1" in await shown.page("/event-types/app/wild")
    assert (await shown.web.get("/event-types/no/such")).status_code == 404
    assert 'href="/event-types/app/f"' in await shown.page("/event-types")


async def test_without_a_class_an_event_is_json(shown: Shown, make_run: MakeRun) -> None:
    await make_run()

    page = await shown.page("/send?name=app/f")

    assert "<textarea" in page and "so it is JSON" in page
    assert "app/f" in await shown.page("/send")


async def test_a_database_that_is_away_takes_nothing_of_what_was_typed(
    typed: Shown, database: str
) -> None:
    form = {"by": "form", "name": "app/f", "of": "app-f", "data.id": "7", "data.note": "two\n<lines>",
            "data.kind": '"big"', "data.to.city": "Trang"}  # fmt: skip
    [token] = re.findall(r'name="csrf" value="(.+?)"', await typed.page("/send?name=app/f"))
    as_json = {"csrf": token, "by": "json", "name": "app/f", "data": '{"id": <7'}
    connection = await asyncpg.connect(database)
    await connection.execute("alter table stepbase.functions rename to away")
    try:
        away = await typed.web.post("/send", data={"csrf": token, **form})
        json_away = await typed.web.post("/send", data=as_json)
    finally:
        await connection.execute("alter table stepbase.away rename to functions")
        await connection.close()
    page = html.unescape(away.text)
    fields = dict(re.findall(r'(?:input|textarea) [^>]*name="([^"]+)"[^>]*?(?:value="|>\n)(.*?)(?:">|</t)',
                             away.text, re.DOTALL))  # fmt: skip

    assert away.status_code == json_away.status_code == 503
    assert "Not sent: the database does not answer" in page and 'role="alert"' in page
    assert '{"id": <7</textarea>' in html.unescape(json_away.text)
    assert await sent(typed) == []
    again = {key: html.unescape(value) for key, value in fields.items() if key != "csrf"}
    assert again == form
    answer = await typed.act("/send", **again)
    assert answer.headers["location"].startswith("/events/")
    assert await sent(typed) == [
        {"id": 7, "note": "two\n<lines>", "kind": "big", "to": {"city": "Trang"}}
    ]


async def test_lines_and_microseconds_are_sent_like_the_last_ones(typed: Shown) -> None:
    data = {"id": 1, "note": "\none\ntwo\n", "at": "2026-11-24T09:30:00.123456Z"}
    await typed.api.send({"name": "app/f", "data": data})

    page = await typed.page("/send?name=app/f")

    assert ">\n\none\ntwo\n</textarea>" in page
    assert 'type="text" value="2026-11-24T09:30:00.123456"' in page


@pytest.mark.parametrize(
    "form",
    [
        {"by": "form", "data.id": "tok-of-ann"},
        {"by": "form", "data.id": "1", "data.at": "tok-of-ann"},
        {"by": "json", "data": '["tok-of-ann"]'},
        {"by": "json", "data": "1e999"},
    ],
)
async def test_what_was_typed_is_not_logged(
    typed: Shown, form: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "stepbase.console.audit"):
        await typed.act("/send", name="app/f", **form)

    [line] = [each for each in caplog.records if each.name == "stepbase.console.audit"]
    said = line.__dict__["outcome"]
    assert said.startswith("app/f: ") and "tok-of-ann" not in said and "1e999" not in said
    if form["by"] == "form":
        assert ("data.at" if "data.at" in form else "data.id") in said

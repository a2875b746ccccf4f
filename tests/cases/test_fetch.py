"""step.fetch lets the server make a request, and gives its answer."""

from typing import Any

import pytest
from pydantic import BaseModel
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, Step, StepError, SyncStep

app = App("case")


class Price(BaseModel):
    cents: int


URL = "https://shop.example/price?of=7"
CALLS: dict[str, dict[str, Any]] = {
    "get": {},
    "post": {"method": "post", "headers": {"X-A": "b"}, "body": '{"q":1}'},
    "json": {"method": "POST", "json": {"q": [1, None]}},
    "json null": {"method": "POST", "json": None, "headers": {"Content-Type": "x/y"}},
    "no url": {"url": "shop.example"},
    "no method": {"method": "GET /"},
    "two bodies": {"body": "a", "json": 1},
    "bytes": {"body": b"a"},
    "header": {"headers": {"X-A": 1}},
    "no JSON": {"json": float("nan")},
}


def asked(name: str) -> tuple[str, dict[str, Any]]:
    options = dict(CALLS[name])
    return options.pop("url", URL), options


def shown(response: Any, data: dict[str, Any]) -> Any:
    if data.get("read"):
        price = response.json(Price)
        return [type(price).__name__, price, response.json()]
    return [response.url, response.status, response.headers, response.body]


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> Any:
    url, options = asked(event.data["do"])
    try:
        return shown(await step.fetch("price", url, **options), event.data)
    except StepError as error:
        return error.message


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    url, options = asked(event.data["do"])
    try:
        return shown(step.fetch("price", url, **options), event.data)
    except StepError as error:
        return error.message


@pytest.mark.parametrize(
    ("do", "opts"),
    [
        ("get", {"method": "GET", "headers": {}}),
        ("post", {"method": "POST", "headers": {"X-A": "b"}, "body": '{"q":1}'}),
        (
            "json",
            {
                "method": "POST",
                "headers": {"content-type": "application/json"},
                "body": '{"q":[1,null]}',
            },
        ),
        ("json null", {"method": "POST", "headers": {"Content-Type": "x/y"}, "body": "null"}),
    ],
)
async def test_a_fetch_is_reported(call: Call, do: str, opts: dict[str, Any]) -> None:
    reply = await call(call_body(event(data={"do": do})))

    assert (reply.op["op"], reply.op["displayName"]) == ("Gateway", "price")
    assert reply.op["opts"] == {"url": URL, **opts}


ANSWER = {
    "body": '{"cents": 5}',
    "headers": {"Content-Type": "application/json", "Set-Cookie": ["a", "b"]},
    "status_code": 200,
    "url": URL,
}


async def test_the_answer_comes_back(drive: Drive) -> None:
    run = await drive(event(data={"do": "get"}), answers={"price": {"data": ANSWER}})

    headers = {"content-type": "application/json", "set-cookie": "a, b"}
    assert run.output == [URL, 200, headers, '{"cents": 5}']


async def test_the_body_is_read_as_json(drive: Drive) -> None:
    run = await drive(event(data={"do": "get", "read": True}), answers={"price": {"data": ANSWER}})

    assert run.output == ["Price", {"cents": 5}, {"cents": 5}]


@pytest.mark.parametrize(
    ("body", "says"),
    [("<html>", f"the body of {URL} is not JSON"), ("{}", f"the body of {URL}: cents: Field required")],
)  # fmt: skip
async def test_a_body_that_does_not_fit_is_final(drive: Drive, body: str, says: str) -> None:
    answer = {"data": {**ANSWER, "body": body}}

    run = await drive(event(data={"do": "get", "read": True}), answers={"price": answer})

    assert run.error["code"] == "output_invalid"
    assert says in run.error["message"]


async def test_a_failed_request_is_a_step_error(drive: Drive) -> None:
    failed = {"error": {"name": "Error", "message": "unexpected status code: 500"}}

    run = await drive(event(data={"do": "get"}), answers={"price": failed})

    assert run.output == "unexpected status code: 500"


async def test_what_is_no_answer_is_final(drive: Drive) -> None:
    run = await drive(event(data={"do": "get"}), answers={"price": {"data": "text"}})

    assert "the server gave no response: 'text'" in run.error["message"]


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("no url", "url=… must begin with http:// or https://"),
        ("no method", 'method=…: expected "GET" or so'),
        ("two bodies", "give body= or json=, not both"),
        ("bytes", "body=… is text, because the wire carries text; got b'a'"),
        ("header", "headers=… maps names to text, got 'X-A': 1"),
        ("no JSON", "json=… has a value that cannot be kept: $: nan"),
    ],
)
async def test_a_fetch_that_cannot_be_is_final(call: Call, do: str, says: str) -> None:
    reply = await call(call_body(event(data={"do": do})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert 'step "price": ' + says in reply.body["message"]

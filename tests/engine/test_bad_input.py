"""Bad input over real HTTP: each answer says what is wrong and what to do, and nothing is lost."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.sdk_hosts import ask_asgi
from tests.support.stub_host import Answer, Handler, StubHost, ops, step_run

from stepbase import App, asgi

MIB = 1024 * 1024

BAD_EVENTS: dict[str, tuple[object, str]] = {
    "malformed": ('{"name": "a/b", ', "the body is not JSON: "),
    "not utf-8": (b'{"name": "a/\xff"}', "the body is not JSON: "),
    "NaN": ('{"name": "a/b", "data": {"n": NaN}}', "the body is not JSON: NaN is not JSON"),
    "too deep": ("[" * 100_000, "the body is not JSON: "),
    "no object": (["a"], "an event must be a JSON object, got string"),
    "no name": ({"data": {}}, "event name is empty"),
    "empty name": ({"name": ""}, "event name is empty"),
    "name is a number": ({"name": 5}, "event name must be a string, got number"),
    "long name": (
        {"name": "n" * 513},
        "event name has 513 characters, 512 are allowed: " + "n" * 60 + "…",
    ),
    "reserved": ({"name": "inngest/x"}, "event name is reserved for internal use: inngest/x"),
    "data is a list": (
        {"name": "a/b", "data": [1]},
        "event field 'data' must be a JSON object, got array",
    ),
    "user is text": (
        {"name": "a/b", "user": "me"},
        "event field 'user' must be a JSON object, got string",
    ),
    "id is a number": ({"name": "a/b", "id": 5}, "event field 'id' must be a string, got number"),
    "ts in seconds": (
        {"name": "a/b", "ts": 1_700_000_000},
        "event field 'ts' must lie between 1980 and 2100 in milliseconds, got 1700000000",
    ),
    "ts too late": (
        {"name": "a/b", "ts": 10**15},
        "event field 'ts' must lie between 1980 and 2100 in milliseconds, got 1000000000000000",
    ),
    "ts is text": (
        {"name": "a/b", "ts": "now"},
        "event field 'ts' must be whole milliseconds since 1970, got 'now'",
    ),
    "NUL in a value": (
        {"name": "a/b", "data": {"a": [1, {"b": "x\x00y"}]}},
        "event.data.a[1].b contains a NUL character, which Postgres cannot keep",
    ),
    "NUL in a key": (
        {"name": "a/b", "data": {"x\x00": 1}},
        "a key of event.data contains a NUL character, which Postgres cannot keep",
    ),
    "half a character": (
        '{"name": "a/b", "data": {"a": "\\ud83d"}}',
        "event.data.a contains half a surrogate pair, which is no character",
    ),
    "half a character in the name": (
        '{"name": "a/\\ud83d"}',
        "event.name contains half a surrogate pair, which is no character",
    ),
}


async def test_bad_event_is_refused_and_stored_nowhere(
    client: EngineClient, connect: Connect
) -> None:
    for what, (body, message) in BAD_EVENTS.items():
        status, answer = await client.request("POST", "/e/test", body)

        assert status == 400, what
        assert answer["ids"] == [""] and answer["status"] == 400, what
        assert answer["error"].startswith(message), (what, answer["error"])
    assert await (await connect()).fetchval("select count(*) from stepbase.events") == 0


async def test_event_over_three_mebibytes_is_refused_with_its_size(client: EngineClient) -> None:
    event = {"name": "a/b", "data": {"big": "x" * (3 * MIB)}}
    size = len(json.dumps(event, separators=(",", ":")))

    status, answer = await client.request("POST", "/e/test", event)

    assert status == 400
    assert answer["error"] == f"Event is over the max size: Max {3 * MIB} bytes / Size {size} bytes"


async def test_events_of_less_than_the_limit_may_be_more_together(client: EngineClient) -> None:
    event = {"name": "a/b", "data": {"big": "x" * (2 * MIB)}}

    assert len(await client.send(event, event)) == 2


async def test_more_than_five_thousand_events_in_one_request(client: EngineClient) -> None:
    status, answer = await client.request("POST", "/e/test", [{"name": "a/b"}] * 5001)

    assert status == 400
    assert answer["ids"] == [""]
    assert answer["error"] == (
        "5001 events in one request, 5000 are allowed: send them in several requests"
    )


async def test_events_before_a_bad_one_are_accepted_and_run(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["data"]["n"])
    await client.register(host.registration(host.function("app-f")))
    events = [{"name": "app/f", "data": {"n": n}} for n in (1, 2)]

    status, answer = await client.request("POST", "/e/test", [*events, {"data": {}}, events[0]])
    outputs = [(await client.result(event_id))["output"] for event_id in answer["ids"]]

    assert status == 400
    assert answer["error"] == "event name is empty"
    assert outputs == [1, 2]


async def test_empty_list_is_accepted_and_does_nothing(client: EngineClient) -> None:
    assert await client.request("POST", "/e/test", []) == (200, {"ids": [""], "status": 200})


async def test_integers_beyond_two_to_the_53_arrive_exactly(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["data"])
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f", "data": {"n": 2**53 + 1, "m": -(10**30)}})
    run = await client.result(event_id)

    assert run["output"] == {"n": 2**53 + 1, "m": -(10**30)}


async def test_unknown_event_key_is_refused(start_engine: StartEngine) -> None:
    async with start_engine(signing_keys=("ab12",), event_keys=("one", "two")) as (client, _):
        for key in ("three", "on", "ONE"):
            status, answer = await client.request("POST", f"/e/{key}", {"name": "a/b"})

            assert status == 401
            assert answer == {"status": 401, "message": "", "error": "Event key not found"}
        for key in ("one", "two"):
            await client.send({"name": "a/b"}, key=key)


# -- replies ---------------------------------------------------------------------------------------


async def failed(client: EngineClient, host: StubHost, answer: Answer, **options: Any) -> Any:
    """Run a function that always answers this; return the error of the failed run."""
    host.handlers["app-f"] = lambda call: answer
    await client.register(host.registration(host.function("app-f", **options)))
    host.calls.clear()
    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)
    assert run["status"] == "Failed", run
    return run["output"]


BROKEN_REPLIES: dict[str, tuple[Callable[[], Answer], str]] = {
    "unknown opcode": (
        lambda: ops({"op": "Dance", "id": "d"}),
        "op [0] has the unknown opcode 'Dance'; known: StepRun, Step, ",
    ),
    "known, but not here": (
        lambda: ops({"op": "DeferAdd", "id": "d", "displayName": "ask"}),
        "opcode DeferAdd (step 'ask') is not supported by this engine; ",
    ),
    "no id": (lambda: ops({"op": "StepRun"}), "op [0] (StepRun) has no id: "),
    "an op that is no object": (
        lambda: Answer(206, [5]),
        "op [0] must be a JSON object, got 5",
    ),
    "206 without body": (
        lambda: Answer(206, text=""),
        "a 206 reply has no body: expected a list of ops",
    ),
    "206 that is no JSON": (lambda: Answer(206, text="[{"), "a 206 reply is not JSON: "),
    "206 that is text": (
        lambda: Answer(206, "no"),
        "a 206 reply must be a list of ops, got 'no'",
    ),
    "too many ops": (
        lambda: ops(*(step_run(f"s{i}", i) for i in range(1001))),
        "a reply has 1001 ops, 1000 are allowed: split the work over several functions",
    ),
    "sleep without a time": (
        lambda: ops({"op": "Sleep", "id": "z", "displayName": "nap", "name": "soon"}),
        "step 'nap': a sleep of 'soon' was asked for: expected a duration like \"2h\" or an ISO",
    ),
    "error without an error": (
        lambda: ops({"op": "StepError", "id": "s", "displayName": "pay"}),
        "StepError for 'pay' came without an error",
    ),
    "step output over 4 MiB": (
        lambda: ops(step_run("big", "x" * (4 * MIB))),
        f"step 'big' returned {4 * MIB + 11} bytes, {4 * MIB} are allowed: store it and return",
    ),
}


async def test_reply_that_breaks_the_protocol_fails_the_run_at_once(
    client: EngineClient, host: StubHost
) -> None:
    for what, (answer, message) in BROKEN_REPLIES.items():
        error = await failed(client, host, answer())

        assert error["name"] == "ProtocolError", what
        assert error["message"].startswith(message), (what, error["message"])
        assert len(host.calls) == 1, what


async def test_reply_over_eight_mebibytes_fails_the_run(
    client: EngineClient, host: StubHost
) -> None:
    error = await failed(client, host, Answer(200, "x" * (8 * MIB)))

    assert error["name"] == "ProtocolError"
    assert error["message"].startswith("the reply has ")
    assert error["message"].endswith(
        f"{8 * MIB} are allowed: return less, or store it and return a reference"
    )


async def test_function_output_over_four_mebibytes_fails_the_run(
    client: EngineClient, host: StubHost
) -> None:
    error = await failed(client, host, Answer(200, "x" * (4 * MIB)))

    assert error == {
        "name": "OutputTooLarge",
        "message": f"the function returned {4 * MIB + 2} bytes, {4 * MIB} are allowed: "
        "store the result and return a reference",
    }


async def test_step_reported_for_ever_ends_when_the_retries_are_used_up(
    client: EngineClient, host: StubHost
) -> None:
    error = await failed(client, host, ops(step_run("same", 1)), retries=2)

    assert error == {
        "name": "NoProgress",
        "message": "the function neither finished nor went on: it reported the stored step 'same' "
        "again. Step ids must be the same at every call.",
    }
    assert [call["ctx"]["attempt"] for call in host.calls] == [0, 0, 1, 2]


async def test_reply_that_asks_for_nothing_ends_when_the_retries_are_used_up(
    client: EngineClient, host: StubHost
) -> None:
    error = await failed(client, host, ops(), retries=1)

    assert "it asked for nothing" in error["message"]
    assert len(host.calls) == 2


async def test_output_that_is_no_json_is_kept_as_text(client: EngineClient, host: StubHost) -> None:
    texts = ["<p>hello</p>", '{"half": ', "NaN", "1e999"]
    host.handlers["app-f"] = lambda call: Answer(200, text=texts[call["event"]["data"]["n"]])
    await client.register(host.registration(host.function("app-f")))

    sent = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(len(texts))))

    assert [(await client.result(each))["output"] for each in sent] == texts


async def test_step_results_with_nul_and_half_characters_are_kept(
    client: EngineClient, host: StubHost
) -> None:
    odd = {"nul": "a\x00b", "half": "\ud83d", "\x00": 1}
    host.handlers["app-f"] = lambda call: (
        Answer(200, call["steps"]["s"]["data"]) if call["steps"] else ops(step_run("s", odd))
    )
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})

    assert (await client.result(event_id))["output"] == odd


async def test_step_named_with_characters_no_database_keeps(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    odd = {**step_run("s", 1), "displayName": "a\x00b\ud83d"}
    host.handlers["app-f"] = lambda call: Answer(200, "ok") if call["steps"] else ops(odd)
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})

    assert (await client.result(event_id))["output"] == "ok"
    assert await (await connect()).fetchval("select name from stepbase.steps") == "ab?"


def forwarding(host: StubHost, app: App) -> Callable[[dict[str, Any]], Awaitable[Answer]]:
    """Return a handler that hands calls as they came to an app of our SDK."""
    ask = ask_asgi(asgi(app))

    async def handler(call: dict[str, Any]) -> Answer:
        headers, raw = host.requests[-1]
        query = f"fnId=app-f&stepId={call['_step_id']}"
        reply = await ask("POST", query=query, headers=headers, body=raw)
        kept = {name: value for name, value in reply.headers.items() if name != "content-length"}
        return Answer(reply.status, text=reply.content.decode(), headers=kept)

    return handler


def changing(first: Handler, then: Handler) -> Handler:
    """Return a handler for an app that is mended after two attempts."""
    tries = iter((first, first))
    return lambda call: next(tries, then)(call)


def working() -> App:
    """Return an app whose function `f` works."""
    app = App("app")

    @app.function("f", on="app/f")
    async def f() -> str:
        return "done"

    return app


async def attempts(connection: asyncpg.Connection) -> list[str]:
    """Return the messages of the failed attempts, in order."""
    rows = await connection.fetch("select error from stepbase.attempts order by id")
    return [json.loads(row["error"])["message"] for row in rows]


async def test_function_the_app_does_not_have_is_retried_until_it_has(
    client: EngineClient, host: StubHost, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    host.handlers["app-f"] = changing(forwarding(host, App("app")), forwarding(host, working()))
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})

    assert (await client.result(event_id))["output"] == "done"
    # No attempt is used up while apps and servers are deployed, and the first try alone is told.
    [message] = await attempts(await connect())
    assert message.startswith("function app-f not found: app 'app' has ")


async def test_app_with_another_key_is_retried_until_the_keys_agree(
    start_engine: StartEngine,
    host: StubHost,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "signkey-prod-" + "ab" * 16
    keys = {"strange": "signkey-prod-" + "cd" * 16, "right": key}
    apps = {name: forwarding(host, working()) for name in keys}  # each reads its key once

    tries = iter(("strange", "strange"))

    async def mended(call: dict[str, Any]) -> Answer:
        which = next(tries, "right")
        monkeypatch.setenv("INNGEST_SIGNING_KEY", keys[which])
        return await apps[which](call)

    host.handlers["app-f"] = mended
    async with start_engine(key, signing_keys=(key,), event_keys=("test",)) as (client, _):
        await client.register(host.registration(host.function("app-f")))
        [event_id] = await client.send({"name": "app/f"})

        assert (await client.result(event_id))["output"] == "done"
    message = (
        "the request was not signed with this app's signing key: check that INNGEST_SIGNING_KEY "
        "here and on the server are the same"
    )
    assert await attempts(await connect()) == [message]


async def test_odd_characters_in_a_path_or_query_are_no_fault_of_the_engine(
    client: EngineClient,
) -> None:
    for path, reason in (
        ("/v0/runs/%00/actions", "invalid byte sequence"),
        ("/v1/runs/%00/jobs", "Invalid run ID"),
        ("/v1/events?name=%00", "invalid byte sequence"),
    ):
        status, answer = await client.request("GET", path)

        assert status == 400, path
        assert reason in answer["error"]
    status, _ = await client.request("POST", "/v1/signals", {"signal": "\x00"})
    assert status == 400

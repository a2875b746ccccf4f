"""EncryptionMiddleware: what it opens and seals, and what it says when it cannot."""

import base64
import logging
from typing import Any

import pytest
from tests.support.sdk_calls import Reply, call_body, event, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, DefinitionError, Event, EventData, Middleware, Step, SyncStep, asgi
from stepbase.middleware import DecryptionError, EncryptionMiddleware, Input, Output, StepInfo

KEY = "a passphrase"


class Note(EventData, name="note/added"):
    title: str
    encrypted: dict[str, str]


app = App("case", middleware=[EncryptionMiddleware.factory(KEY)])


@app.function("async", on=Note)
async def read(event: Event[Note], step: Step) -> Any:
    first = await step.run("one", lambda: event.data.encrypted["text"])
    return [first, await step.run("two", lambda: 2)]


@app.function("sync", on=Note)
def read_sync(event: Event[Note], step: SyncStep) -> Any:
    first = step.run("one", lambda: event.data.encrypted["text"])
    return [first, step.run("two", lambda: 2)]


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")


def sealed(value: Any, key: str | bytes = KEY) -> Any:
    output = Output(None, value, None)
    EncryptionMiddleware(key).transform_output(output)
    return output.data


def opened(value: Any, key: str | bytes = KEY) -> Any:
    input = Input("run", 0, 4, [], {"x": {"data": value}})
    EncryptionMiddleware(key).transform_input(input)
    return input.steps["x"]["data"]


async def call(kind: str, data: Any, steps: Any = None, app: App = app) -> Reply:
    body = call_body(event(name="note/added", data=data), steps=steps)
    return await ask_asgi(asgi(app))("POST", query=f"fnId=case-{kind}&stepId=step", body=body)


DATA = {"title": "t", "encrypted": {"text": "psst"}}


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_typed_events_are_opened_before_they_are_checked(kind: str) -> None:
    data = {**DATA, "encrypted": sealed(DATA["encrypted"])}
    reply = await call(kind, data)

    assert b"psst" not in reply.content
    assert opened(reply.op["data"]) == "psst"
    reply = await call(
        kind, data, {hashed("one"): {"data": sealed("psst")}, hashed("two"): {"data": 2}}
    )
    assert opened(reply.body) == ["psst", 2]


@pytest.mark.parametrize(
    "value",
    [None, False, 0, "", "text", [], {}, {"a": [1.5, None, "é\u2028"]}, 2**53, "🎈"],
)
def test_every_json_value_comes_back(value: Any) -> None:
    assert opened(sealed(value)) == value and sealed(value) != sealed(value)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_lost_key_is_an_error_that_says_so_and_nothing_is_logged(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = sealed(DATA["encrypted"], "another key")
    with caplog.at_level(logging.DEBUG):
        reply = await call(kind, {**DATA, "encrypted": other})

    assert (reply.status, reply.body["code"], reply.body["name"]) == (
        500, "decryption_failed", "DecryptionError",
    )  # fmt: skip
    assert reply.body["message"] == (
        'event "note/added": data.encrypted cannot be decrypted with any of the 1 keys at hand: give the key '
        "it was encrypted with as one of fallback_keys=[…]"
    )
    assert "x-inngest-no-retry" not in reply.headers  # a deploy may bring the key
    assert other["data"] not in reply.content.decode() and KEY not in caplog.text
    assert other["data"] not in caplog.text


@pytest.mark.parametrize("data", ["no base64!", "", base64.b64encode(b"short").decode()])
def test_broken_ciphertext_is_an_error(data: str) -> None:
    with pytest.raises(DecryptionError):
        opened({**sealed(1), "data": data})


def test_what_only_looks_like_it_stays() -> None:
    for value in (
        {"__ENCRYPTED__": True, "data": "x"},
        {**sealed(1), "data": 7},
        {"data": {"a": 1}},
    ):
        assert opened(value) == value


def test_a_result_that_was_encrypted_already_is_not_encrypted_again() -> None:
    once = sealed("x")

    assert sealed(once) == once


def test_an_awaited_event_is_opened_and_so_is_the_event_of_a_failure() -> None:
    inner = {"name": "note/added", "data": {"n": 1, "encrypted": sealed("psst")}}
    failure = {"name": "inngest/function.failed", "data": {"event": inner, "error": {"name": "E"}}}
    input = Input(
        "run", 0, 4, [failure], {"bare": dict(inner), "wrapped": {"data": dict(inner)}, "nap": None}
    )
    EncryptionMiddleware(KEY).transform_input(input)

    plain = {"name": "note/added", "data": {"n": 1, "encrypted": "psst"}}
    assert input.steps == {"bare": {"data": plain}, "wrapped": {"data": plain}, "nap": None}
    assert input.events[0]["data"]["event"] == plain


def test_what_an_invoked_function_gets_is_encrypted() -> None:
    given = {"function_id": "a-f", "payload": {"data": {"n": 1, "secret": "psst"}}}
    step = StepInfo("call", "h", "InvokeFunction", given)
    EncryptionMiddleware(KEY, event_fields=["secret", "other"]).transform_step_input(step)

    assert step.opts is not None
    data = step.opts["payload"]["data"]
    assert (data["n"], opened(data["secret"]), step.opts["function_id"]) == (1, "psst", "a-f")
    assert given["payload"] == {"data": {"n": 1, "secret": "psst"}}  # the handler's own stays


def test_errors_stay_readable() -> None:
    output = Output(None, None, {"name": "E", "message": "m"})
    EncryptionMiddleware(KEY).transform_output(output)

    assert (output.data, output.error) == (None, {"name": "E", "message": "m"})


@pytest.mark.parametrize("key", ["", b"short", b"x" * 64, 7, None])
def test_what_is_no_key_is_refused_without_being_shown(key: Any) -> None:
    with pytest.raises(DefinitionError, match="a key is a text that is not empty") as caught:
        App("a", middleware=[EncryptionMiddleware.factory(key)])

    assert "short" not in str(caught.value)


def test_a_key_may_be_bytes() -> None:
    raw = bytes(range(32))

    assert opened(sealed(1, raw), raw.hex().encode()) == 1


async def test_a_result_too_large_once_encrypted_is_refused() -> None:
    big = App("case", middleware=[EncryptionMiddleware.factory(KEY)])

    @big.function("async", on=Note)
    async def run(step: Step) -> None:
        await step.run("one", lambda: "x" * 3_500_000)

    reply = await call("async", {**DATA}, app=big)

    assert (reply.status, reply.body["code"]) == (500, "output_too_large")


async def test_a_failing_transformation_never_lets_the_plain_result_out() -> None:
    class Broken(Middleware):
        def transform_output(self, output: Output) -> None:
            raise LookupError("no key")

    open_app = App("case", middleware=[Broken])

    @open_app.function("async", on=Note)
    async def run(step: Step) -> None:
        await step.run("one", lambda: "psst")

    reply = await call("async", DATA, app=open_app)

    assert reply.status == 500 and b"psst" not in reply.content


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_invokes_and_waits_carry_encrypted_fields(kind: str) -> None:
    bank = App("case", middleware=[EncryptionMiddleware.factory(KEY)])

    @bank.function("async", on="note/start")
    async def run(step: Step) -> Any:
        found = await step.invoke("ask", "other-function", {"n": 1, "encrypted": "psst"})
        note = await step.wait_for_event("note", Note, timeout="1h")
        return [found, note.data.encrypted["text"] if note else None]

    @bank.function("sync", on="note/start")
    def run_sync(step: SyncStep) -> Any:
        found = step.invoke("ask", "other-function", {"n": 1, "encrypted": "psst"})
        note = step.wait_for_event("note", Note, timeout="1h")
        return [found, note.data.encrypted["text"] if note else None]

    op = (await call(kind, {}, app=bank)).op
    data = op["opts"]["payload"]["data"]
    assert (op["op"], data["n"], opened(data["encrypted"])) == ("InvokeFunction", 1, "psst")

    note = event(name="note/added", data={**DATA, "encrypted": sealed(DATA["encrypted"])})
    answered = {hashed("ask"): {"data": sealed("found")}, hashed("note"): note}
    assert opened((await call(kind, {}, answered, bank)).body) == ["found", "psst"]

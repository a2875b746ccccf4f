"""step.ai lets the server ask a model: any provider by its format, OpenAI's chat API typed."""

from typing import Any

import pytest
from pydantic import BaseModel
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, Step, SyncStep

app = App("case")


class Answer(BaseModel):
    id: str


MESSAGES = [{"role": "user", "content": "hi"}]
INFER: dict[str, Any] = {
    "format": "anthropic",
    "url": "https://api.example/v1/messages",
    "auth_key": "sk-test",
    "body": {"max_tokens": 9},
}
CALLS: dict[str, dict[str, Any]] = {
    "infer": {**INFER, "model": "m1", "headers": {"x-extra": "1"}},
    "own model": {**INFER, "model": "m1", "body": {"model": "m2"}},
    "typed": {**INFER, "returns": Answer},
    "no format": {**INFER, "format": ""},
    "no url": {**INFER, "url": "api.example"},
    "no key": {**INFER, "auth_key": None},
    "no object": {**INFER, "body": [1]},
    "openai": {"model": "gpt-test", "messages": MESSAGES, "auth_key": "sk-test", "temperature": 0},
    "openai, env": {"model": "gpt-test", "messages": MESSAGES},
    "openai, elsewhere": {
        "model": "m",
        "messages": MESSAGES,
        "auth_key": "k",
        "base_url": "http://localhost:11434/v1/",
        "headers": {"x-extra": "1"},
    },
}


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> Any:
    name = event.data["do"]
    if name.startswith("openai"):
        return await step.ai.openai("ask", **CALLS[name])
    found = await step.ai.infer("ask", **CALLS[name])
    return [type(found).__name__, found]


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    name = event.data["do"]
    if name.startswith("openai"):
        return step.ai.openai("ask", **CALLS[name])
    found = step.ai.infer("ask", **CALLS[name])
    return [type(found).__name__, found]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


OPENAI = {
    "type": "step.ai.infer",
    "url": "https://api.openai.com/v1/chat/completions",
    "auth_key": "sk-test",
    "format": "openai-chat",
    "headers": {},
    "body": {"model": "gpt-test", "messages": MESSAGES},
}


@pytest.mark.parametrize(
    ("do", "opts"),
    [
        (
            "infer",
            {
                "type": "step.ai.infer",
                "url": "https://api.example/v1/messages",
                "auth_key": "sk-test",
                "format": "anthropic",
                "headers": {"x-extra": "1"},
                "body": {"model": "m1", "max_tokens": 9},
            },
        ),
        ("openai", {**OPENAI, "body": {**OPENAI["body"], "temperature": 0}}),  # type: ignore[dict-item]  # it is a dict
        (
            "openai, elsewhere",
            {
                **OPENAI,
                "url": "http://localhost:11434/v1/chat/completions",
                "auth_key": "k",
                "headers": {"x-extra": "1"},
                "body": {"model": "m", "messages": MESSAGES},
            },
        ),
    ],
)
async def test_a_question_is_reported(call: Call, do: str, opts: dict[str, Any]) -> None:
    reply = await call(call_body(event(data={"do": do})))

    assert (reply.op["op"], reply.op["name"]) == ("AIGateway", "ask")
    assert reply.op["opts"] == opts


async def test_the_bodys_model_comes_first(call: Call) -> None:
    reply = await call(call_body(event(data={"do": "own model"})))

    assert reply.op["opts"]["body"] == {"model": "m2"}


async def test_the_key_may_come_from_the_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    reply = await call(call_body(event(data={"do": "openai, env"})))

    assert reply.op["opts"] == OPENAI


@pytest.mark.parametrize(
    ("do", "output"),
    [
        ("infer", ["dict", {"id": "c1", "more": 1}]),
        ("typed", ["Answer", {"id": "c1"}]),
        ("openai, env", {"id": "c1", "more": 1}),
    ],
)
async def test_the_answer_comes_back(
    drive: Drive, do: str, output: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    run = await drive(event(data={"do": do}), answers={"ask": {"data": {"id": "c1", "more": 1}}})

    assert run.output == output


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("no format", 'format=… names the provider\'s API, e.g. "openai-chat"'),
        ("no url", "url=… must begin with http:// or https://"),
        ("no key", "no API key: give auth_key=…"),
        ("openai, env", "no API key: give auth_key=…; step.ai.openai takes it from OPENAI_API_KEY"),
        ("no object", "body=… is a dict, got [1]"),
    ],
)
async def test_a_question_that_cannot_be_is_final(call: Call, do: str, says: str) -> None:
    reply = await call(call_body(event(data={"do": do})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert 'step "ask": ' + says in reply.body["message"]

"""What JSON or a database cannot hold is refused in the process, naming the step and the path."""

from typing import Any

import pytest
from tests.cases.conftest import Drive
from tests.support.sdk_calls import event

from stepbase import App, Event, Step, SyncStep

app = App("case")
Data = Event[dict[str, str]]


def loop() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


VALUES: dict[str, tuple[Any, str]] = {
    "big integer": ({"a": [1, 2**53 + 1]}, "$.a[1]: the integer 9007199254740993 is beyond 2^53"),
    "nan": ({"a": {"b": float("nan")}}, "$.a.b: nan is not a JSON number"),
    "infinity": ([float("-inf")], "$[0]: -inf is not a JSON number"),
    "nul": ({"name": "a\x00b"}, "$.name: the string contains a NUL"),
    "nul in a key": ({"a\x00b": 1}, "(key): the string contains a NUL"),
    "surrogate": (["x", "\ud800"], "$[1]: the string contains a lone surrogate"),
    "object": ({"a": object()}, "$.a: object is not JSON"),
    "bytes": (b"abc", "$: bytes is not JSON"),
    "key": ({("a", 1): 1}, "$: the key ('a', 1) is no string"),
    "loop": (loop(), "nested too deeply, or contains itself"),
    "too large": ("x" * (4 * 1024 * 1024), "4194306 bytes of JSON, 4194304 are allowed"),
}


def value_of(name: str) -> Any:
    return VALUES[name][0]


@app.function("async", on="case/start")
async def handler(event: Data, step: Step) -> Any:
    if event.data["where"] == "handler":
        return value_of(event.data["name"])
    return await step.run("value", value_of, event.data["name"])


@app.function("sync", on="case/start")
def sync_handler(event: Data, step: SyncStep) -> Any:
    if event.data["where"] == "handler":
        return value_of(event.data["name"])
    return step.run("value", value_of, event.data["name"])


@pytest.mark.parametrize("name", VALUES)
async def test_a_steps_result_is_refused_for_good(drive: Drive, name: str) -> None:
    run = await drive(event(data={"where": "step", "name": name}))

    assert run.shown == ["StepFailed value"]
    assert 'step "value"' in run.error["message"]
    assert VALUES[name][1] in run.error["message"]
    assert len(run.error["message"]) < 500


@pytest.mark.parametrize("name", VALUES)
async def test_a_handlers_result_is_refused_for_good(drive: Drive, kind: str, name: str) -> None:
    run = await drive(event(data={"where": "handler", "name": name}))

    assert len(run.replies) == 1
    assert f'function "{kind}"' in run.error["message"]
    assert VALUES[name][1] in run.error["message"]

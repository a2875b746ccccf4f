"""What an app asks of its server while it answers a call, beside both official packages."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from tests.interop.differences import Sdk
from tests.interop.features import differing_documents
from tests.interop.test_sdk_differential import set_environment
from tests.support import peers
from tests.support.fake_api import FakeApi, Received
from tests.support.peers import KEY, Peers
from tests.support.sdk_calls import RUN_ID, call_object, event, hashed
from tests.support.typescript import TypeScript

from stepbase.protocol import signing
from stepbase.sdk import http

BIG = {
    f"/v0/runs/{RUN_ID}/batch": [event(data={"k": "twice"})],
    f"/v0/runs/{RUN_ID}/actions": {hashed("a"): {"data": 1}},
}

SHOWN = ("authorization", "x-inngest-env", "content-type")

CALLS: dict[str, tuple[Sdk, ...]] = {
    "request of send": ("python", "typescript"),
    "request of signal": ("typescript",),
    "request of big state": ("python", "typescript"),
}


def answer(request: Received) -> tuple[int, Any]:
    if request.path.startswith("/e/"):
        return 200, {"ids": ["01A"], "status": 200}
    if request.path in BIG:
        return 200, BIG[request.path]
    return 200, {"data": {"run_id": RUN_ID}}


def call_of(shape: str) -> dict[str, Any]:
    if shape == "request of big state":
        call = call_object(event(data={"k": "twice"}))
        call |= {"events": [], "steps": {}, "use_api": True}
        call["ctx"]["use_api"] = True
        call["ctx"]["stack"] = {"stack": [hashed("a")], "current": 1}
        return call
    return call_object(event(data={"k": "send" if shape == "request of send" else "send_signal"}))


def shown(received: list[Received]) -> dict[str, Any]:
    """Return the requests in the order of their paths: they may be made at the same time."""
    return {
        "requests": [
            {
                "method": each.method,
                "path": each.path,
                "is seeded": "x-inngest-event-id-seed" in each.headers,
                "body": each.body if each.content else None,
                **{name: each.headers[name] for name in SHOWN if name in each.headers},
            }
            for each in sorted(received, key=lambda each: each.path)
        ]
    }


@pytest_asyncio.fixture(params=["dev", "cloud"])
async def mode(
    request: pytest.FixtureRequest, running_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> str:
    set_environment(monkeypatch, request.param, running_api.url)
    running_api.answer = answer
    return str(request.param)


@pytest_asyncio.fixture
async def built(mode: str, running_api: FakeApi) -> AsyncIterator[Peers]:
    made = peers.build(is_dev=mode == "dev", origin=running_api.url)
    yield made
    await http.aclose()
    http.close()
    await made.client._http_client._http_client.aclose()
    made.client._http_client._http_client_sync.close()


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(
    ("sdk", "shape"), [(sdk, shape) for shape, sdks in CALLS.items() for sdk in sdks], indirect=["sdk"]
)  # fmt: skip
async def test_the_server_is_asked_alike(
    sdk: Sdk,
    shape: str,
    kind: str,
    mode: str,
    built: Peers,
    running_api: FakeApi,
    typescript_apps: TypeScript,
) -> None:
    body = signing.canonical_json(json.dumps(call_of(shape)).encode())
    now = int(datetime.now(UTC).timestamp())
    headers = {"x-inngest-signature": signing.sign(body, KEY, now)} if mode == "cloud" else {}
    made = []
    for ask in (built.ours, built.theirs if sdk == "python" else typescript_apps.asks(mode)):
        running_api.received.clear()
        query = f"fnId=app-{kind}&stepId=step"
        reply = await ask("POST", query=query, body=body, headers=headers)
        assert reply.status == 206, reply
        made.append(shown(running_api.received))

    assert made[0]["requests"]
    assert differing_documents(sdk, shape, *made) == []

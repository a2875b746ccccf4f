"""Keep-alive streams beside the official SDKs': what a server reads in them is equal."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from tests.interop.differences import Sdk
from tests.interop.features import differing, differing_documents
from tests.interop.test_sdk_differential import CALLS, accept, call_bytes, set_environment, signed
from tests.support import peers
from tests.support.fake_api import FakeApi
from tests.support.peers import KEY
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import Ask
from tests.support.typescript import TypeScript

from stepbase import clock
from stepbase.errors import SignatureError
from stepbase.protocol import signing
from stepbase.sdk import http

SHAPES = ("return", "return text", "run", "run text", "error of function", "error in step")


@dataclass(frozen=True)
class Pair:
    """Our app and an official SDK's, both streaming."""

    sdk: Sdk
    mode: str
    ours: Ask
    theirs: Ask

    async def call(
        self, shape: str, kind: str, headers: dict[str, str] | None = None
    ) -> tuple[Reply, Reply]:
        """Make the same call of both."""
        body = call_bytes(*CALLS[shape])
        given = signed(body) if headers is None and self.mode == "cloud" else headers
        query = f"fnId=app-{kind}&stepId=step"
        ours = await self.ours("POST", query=query, body=body, headers=given)
        return ours, await self.theirs("POST", query=query, body=body, headers=given)


@pytest.fixture(params=["dev", "cloud"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def both(
    sdk: Sdk,
    mode: str,
    running_api: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Any:
    running_api.answer = accept
    set_environment(monkeypatch, mode, running_api.url)
    built = peers.build(is_dev=mode == "dev", origin=running_api.url, streaming=True)
    theirs = built.theirs
    if sdk == "typescript":
        apps: TypeScript = request.getfixturevalue("typescript_apps")
        theirs = apps.asks(f"{mode}, streaming")
    yield Pair(sdk, mode, built.ours, theirs)
    await http.aclose()
    await built.client._http_client._http_client.aclose()
    built.client._http_client._http_client_sync.close()


def inside(reply: Reply) -> Reply:
    """Return what a server reads in a stream."""
    assert reply.status == 201, (reply.status, reply.content)
    shape = json.loads(reply.content)
    own = {name.lower(): value for name, value in shape["headers"].items()}
    return Reply(shape["status"], {**reply.headers, **own}, shape["body"].encode())


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_stream_ends_in_the_same_reply(both: Pair, kind: str, shape: str) -> None:
    ours, theirs = await both.call(shape, kind)

    if both.sdk == "python" and kind == "sync":
        documents = {"status": ours.status}, {"status": theirs.status}
        assert differing_documents(both.sdk, "stream of a def handler", *documents) == []
        assert theirs.status != 201
    else:
        theirs = inside(theirs)
    assert differing(both.sdk, f"streamed {shape}", inside(ours), theirs) == []


def signer(reply: Reply) -> str:
    """Say what of a stream is signed: the body in it, or something else."""
    found = inside(reply)
    try:
        signing.verify(found.headers["x-inngest-signature"], found.content, [KEY], clock.now_s())
    except SignatureError:
        return "something else"
    return "the body in it"


@pytest.mark.parametrize("mode", ["cloud"], indirect=True)
async def test_what_is_signed_is_the_body_in_the_stream(both: Pair) -> None:
    ours, theirs = await both.call("run", "async")

    documents = {"signed": signer(ours)}, {"signed": signer(theirs)}
    assert differing_documents(both.sdk, "signature of a stream", *documents) == []
    assert signer(ours) == "the body in it"


@pytest.mark.parametrize("mode", ["cloud"], indirect=True)
async def test_a_refusal_is_no_stream(both: Pair) -> None:
    ours, theirs = await both.call("run", "async", headers={})

    documents = {"status": ours.status}, {"status": theirs.status}
    assert differing_documents(both.sdk, "refusal of a stream", *documents) == []
    assert ours.status == 401

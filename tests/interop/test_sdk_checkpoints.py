"""What a server learns of a call that goes on after its steps, beside the official TypeScript package.

TypeScript saves every step by itself and ends with RunComplete; ours lets the last step travel with the
reply. So what is compared is what the server knows in the end: the ops saved on the way, then the reply's.
"""

import json
from typing import Any

import pytest
from tests.interop.differences import HEADERS
from tests.interop.features import differing_documents
from tests.support import peers
from tests.support.fake_api import FakeApi, Received
from tests.support.sdk_calls import Reply, call_object, event, hashed
from tests.support.sdk_hosts import Ask, ask_asgi
from tests.support.typescript import TypeScript

from stepbase import asgi
from stepbase.sdk import http

A = hashed("a")
ENVELOPE = ("run_id", "fn_id", "qi_id", "request_id", "generation_id")

CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "checkpoint one step": ({"k": "run"}, {}),
    "checkpoint two steps": ({"k": "twice"}, {}),
    "checkpoint after a memo": ({"k": "twice"}, {"steps": {A: {"data": 1}}}),
    "checkpoint a step, then a group": ({"k": "after"}, {}),
    "checkpoint a group at once": ({"k": "parallel"}, {}),
    "checkpoint a sleep at once": ({"k": "sleep_until"}, {}),
    "checkpoint a step that fails": ({"k": "run", "fail": "error"}, {}),
    "checkpoint a step that fails for good": ({"k": "run", "fail": "final"}, {}),
    "checkpoint a failure": ({"k": "raise", "fail": "error"}, {}),
    "checkpoint no step": ({"k": "return", "value": "text"}, {}),
    "checkpoint at a second attempt": ({"k": "twice"}, {"attempt": 1}),
    "checkpoint while planning": ({"k": "run"}, {"is_planning": True}),
    "checkpoint a planned step": ({"k": "run"}, {"step_id": A}),
    "checkpoint without fn_id": ({"k": "run"}, {}),
    "checkpoint given up": ({"k": "twice"}, {}),
    "checkpoint not saved": ({"k": "twice"}, {}),
}


def learned(reply: Reply, saved: list[Received]) -> dict[str, Any]:
    """Return what the server knows in the end."""
    body = json.loads(reply.content)
    ops = [op for each in saved for op in each.body["steps"]]
    return {
        "status": reply.status,
        "headers": {name: reply.headers[name] for name in HEADERS if name in reply.headers},
        "body": ops + body if reply.status == 206 else ops or body,
    }


async def ask_for(ask: Ask, api: FakeApi, shape: str, kind: str) -> tuple[Reply, list[Received]]:
    data, options = CALLS[shape]
    may = shape != "checkpoint without fn_id"
    call = call_object(event(data=data), may_checkpoint=may, **options)
    headers = {
        "x-request-id": call["ctx"]["request_id"],
        "x-inngest-generation-id": str(call["ctx"]["generation_id"]),
    }
    status = {"checkpoint given up": 409, "checkpoint not saved": 500}.get(shape, 200)
    api.received.clear()
    api.answer = lambda _: (status, {"error": "no", "status": status})
    query = f"fnId=app-{kind}&stepId={options.get('step_id', 'step')}"
    reply = await ask("POST", query=query, body=json.dumps(call).encode(), headers=headers)
    saved = list(api.received)
    for each in saved:
        assert each.path == f"/v1/checkpoint/{call['ctx']['run_id']}/async"
        found = {name: each.body.get(name) for name in ENVELOPE}
        assert found == {name: call["ctx"][name] for name in ENVELOPE}
        assert each.body["request_started_at"] <= each.body["ts"]
    return reply, saved if status == 200 else []


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("shape", CALLS)
async def test_the_server_learns_the_same(
    shape: str,
    kind: str,
    typescript_apps: TypeScript,
    running_api: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INNGEST_DEV", running_api.url)
    ours = ask_asgi(asgi(peers.our_app()))
    theirs = typescript_apps.asks("checkpointing")

    mine = await ask_for(ours, running_api, shape, kind)
    other = await ask_for(theirs, running_api, shape, kind)
    http.close()
    await http.aclose()

    assert differing_documents("typescript", shape, learned(*mine), learned(*other)) == []

"""Start rules from a sync to the calls that follow, on a running engine."""

from typing import Any

from tests.conftest import Connect
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops


async def test_rate_limits_and_idempotency_drop_what_is_too_much(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = host.handlers["app-g"] = lambda _: Answer(200, "ok")
    answer = await client.register(
        host.registration(
            host.function("app-f", rateLimit={"limit": 1, "period": "1h", "key": "event.data.k"}),
            host.function("app-g", idempotency="event.data.k", triggers=[{"event": "app/f"}]),
        )
    )

    ids = await client.send(*({"name": "app/f", "data": {"k": k}} for k in (1, 1, 2, False)))
    more = await client.send({"name": "app/f", "data": {"k": False}})

    counts = [len(await client.ended(each, 0)) for each in ids + more]
    assert "message" not in answer
    assert counts == [2, 0, 2, 2, 2]  # a key that is false limits nothing
    rows = await (await connect()).fetch(
        "select n.event_id, f.slug, n.reason from stepbase.not_started n"
        " join stepbase.functions f using (function_id) order by f.slug"
    )
    assert [tuple(row) for row in rows] == [
        (ids[1], "app-f", "rate_limited"),
        (ids[1], "app-g", "idempotent"),
    ]


async def test_a_step_that_invokes_what_is_dropped_fails_at_once(
    client: EngineClient, host: StubHost
) -> None:
    def parent(call: dict[str, Any]) -> Answer:
        if not call["steps"]:
            payload = {"data": {"k": 1}}
            return ops(
                {
                    "op": "InvokeFunction",
                    "id": "i",
                    "opts": {"function_id": "app-f", "payload": payload},
                }
            )
        return Answer(200, call["steps"]["i"])

    host.handlers["app-parent"] = parent
    host.handlers["app-f"] = lambda _: Answer(200, "ok")
    await client.register(
        host.registration(
            host.function("app-f", idempotency="event.data.k"), host.function("app-parent")
        )
    )

    [first] = await client.send({"name": "app/parent"})
    assert (await client.result(first))["output"] == {"data": "ok"}
    [second] = await client.send({"name": "app/parent"})
    error = (await client.result(second))["output"]["error"]

    assert error["name"] == "InvokeRefused"
    assert error["message"] == (
        "the invoked function did not start: its idempotency key was seen within 24 hours"
    )


async def test_a_singleton_skips_or_cancels(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-skip"] = host.handlers["app-cancel"] = lambda call: (
        Answer(200, "ok")
        if call["steps"] or call["event"]["data"].get("ends")
        else ops({"op": "Sleep", "id": "z", "name": "1h"})
    )
    await client.register(
        host.registration(
            *(
                host.function(
                    f"app-{mode}",
                    triggers=[{"event": "app/go", "expression": f"event.data.mode == '{mode}'"}],
                    singleton={"key": "event.data.k", "mode": mode},
                )
                for mode in ("skip", "cancel")
            )
        )
    )

    async def status(mode: str, **data: object) -> str:
        [event_id] = await client.send({"name": "app/go", "data": {"k": "a", "mode": mode, **data}})
        sent[mode].append(event_id)
        return str((await client.runs_of(event_id))[0]["status"])

    sent: dict[str, list[str]] = {"skip": [], "cancel": []}
    assert await status("skip") != "Skipped"
    assert await status("skip") == "Skipped"
    await status("cancel")
    await status("cancel", ends=True)
    assert (await client.result(sent["cancel"][0]))["status"] == "Cancelled"
    assert (await client.result(sent["cancel"][1]))["status"] == "Completed"

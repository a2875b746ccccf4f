"""Start rules from a sync to the calls that follow, on a running engine."""

from typing import Any

from tests.conftest import Connect
from tests.engine.conftest import StartEngine
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


async def test_a_debounced_function_runs_once_with_the_last_event(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["data"]["n"])
    answer = await client.register(
        host.registration(host.function("app-f", debounce={"period": "300ms"}))
    )

    ids = [(await client.send({"name": "app/f", "data": {"n": n}}))[0] for n in range(4)]

    assert "message" not in answer
    assert (await client.result(ids[3]))["output"] == 3
    assert [await client.runs_of(each) for each in ids[:3]] == [[], [], []]


async def test_a_batch_is_one_call_with_all_its_events(
    client: EngineClient, host: StubHost
) -> None:
    rules = {"maxSize": 3, "timeout": "300ms", "key": "event.data.k", "if": "event.data.k != 'x'"}
    host.handlers["app-f"] = lambda call: Answer(200, [e["data"]["n"] for e in call["events"]])
    await client.register(host.registration(host.function("app-f", batchEvents=rules)))

    ids = await client.send(
        *({"name": "app/f", "data": {"k": k, "n": n}} for n, k in enumerate("aabaxa"))
    )

    outputs = [[run["output"] for run in await client.ended(each, 0)] for each in ids]
    assert outputs[4] == [[4]]  # the condition is false: alone, at once
    assert (await client.result(ids[0]))["output"] == [0, 1, 3]
    assert (await client.result(ids[2]))["output"] == [2]
    assert (await client.result(ids[5]))["output"] == [5]
    first = host.calls[0] if len(host.calls[0]["events"]) == 3 else host.calls[1]
    assert first["event"] == first["events"][0]


async def test_a_batch_too_large_for_a_call_is_fetched(
    client: EngineClient, host: StubHost
) -> None:
    async def handler(call: dict[str, Any]) -> Answer:
        assert call["use_api"] and call["events"] == []
        _, events = await client.request("GET", f"/v0/runs/{call['ctx']['run_id']}/batch")
        return Answer(200, [event["data"]["n"] for event in events])

    host.handlers["app-f"] = handler
    rules = {"maxSize": 3, "timeout": "60s"}
    await client.register(host.registration(host.function("app-f", batchEvents=rules)))

    ids = [
        (await client.send({"name": "app/f", "data": {"n": n, "x": "x" * 2_000_000}}))[0]
        for n in range(3)
    ]

    assert (await client.result(ids[0]))["output"] == [0, 1, 2]


async def test_events_that_wait_survive_their_engine(
    start_engine: StartEngine, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, len(call["events"]))
    host.handlers["app-g"] = lambda call: Answer(200, call["event"]["data"]["n"])
    async with start_engine() as (client, _):
        await client.register(
            host.registration(
                host.function("app-f", batchEvents={"maxSize": 9, "timeout": "500ms"}),
                host.function("app-g", debounce={"period": "500ms"}, triggers=[{"event": "app/f"}]),
            )
        )
        ids = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(3)))
    assert host.calls == []
    async with start_engine() as (client, _), start_engine():
        assert (await client.result(ids[0]))["output"] == 3
        assert (await client.result(ids[2]))["output"] == 2
    assert len(host.calls) == 2

"""Why an event started no run of its own: asked of the API, and looked at in SQL."""

import asyncio
from typing import Any

import pytest
from tests.conftest import Connect
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops

NAP = {"op": "Sleep", "id": "z", "name": "1h"}
UNKNOWN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"

RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "duplicate": ({}, "duplicate", "an event of its id had started the function within 24 hours"),
    "idempotent": (
        {"idempotency": "event.data.k"}, "idempotent", "its idempotency key was seen within 24 hours",
    ),
    "rate limited": (
        {"rateLimit": {"limit": 1, "period": "60s"}}, "rate_limited", "its rate limit is used up",
    ),
    "skipped": (
        {"singleton": {"mode": "skip"}}, "skipped", "another run of its singleton was going on",
    ),
    "debounced": (
        {"debounce": {"period": "60s"}}, "debounced", "a later event took the place of this one",
    ),
    "batched": (
        {"batchEvents": {"maxSize": 2, "timeout": "60s"}}, "batched",
        "it is part of a batch, whose run is for all of its events",
    ),
}  # fmt: skip


async def reasons(client: EngineClient, event_id: str) -> list[dict[str, Any]]:
    """Return what the API says of an event."""
    status, answer = await client.request("GET", f"/v1/events/{event_id}/not-started")
    assert status == 200, answer
    found: list[dict[str, Any]] = answer["data"]
    return found


@pytest.mark.parametrize("rule", RULES)
async def test_each_rule_says_what_it_did(
    client: EngineClient, host: StubHost, connect: Connect, rule: str
) -> None:
    options, reason, message = RULES[rule]
    host.handlers["app-f"] = lambda call: ops(NAP)
    await client.register(host.registration(host.function("app-f", **options)))
    ids = {"id": "mine"} if rule == "duplicate" else {}
    sent = [(await client.send({"name": "app/f", "data": {"k": 1}, **ids}))[0] for _ in range(2)]
    kept, dropped = sent[::-1] if rule == "debounced" else sent
    async with asyncio.timeout(20):
        while not (found := await reasons(client, dropped)):
            await asyncio.sleep(0.01)

    [why] = found
    assert (why["function"], why["reason"], why["message"]) == ("app-f", reason, message)
    assert await reasons(client, kept) == []
    assert (why["run_id"] is not None) == (rule == "batched")
    row = await (await connect()).fetchrow(
        "select function, event, reason, run_id, due_at from stepbase.not_started_events"
        " where reason = $1", reason
    )  # fmt: skip
    assert row is not None and tuple(row) == ("app-f", "app/f", reason, why["run_id"], None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"debounce": {"period": "60s"}}, "debouncing"),
        ({"batchEvents": {"maxSize": 2, "timeout": "60s"}}, "gathering"),
    ],
)
async def test_the_view_tells_of_events_that_still_wait(
    client: EngineClient, host: StubHost, connect: Connect, options: dict[str, Any], reason: str
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, None)
    await client.register(host.registration(host.function("app-f", **options)))
    await client.send({"name": "app/f", "id": "mine"})

    row = await (await connect()).fetchrow("select * from stepbase.not_started_events")

    assert row is not None
    assert (row["event_id"], row["event"], row["function"]) == ("mine", "app/f", "app-f")
    assert row["reason"] == reason and row["due_at"] > row["at"]


async def test_an_event_that_nothing_was_kept_from(client: EngineClient) -> None:
    assert await reasons(client, UNKNOWN) == []
    assert await client.request("GET", "/v1/events/nope/not-started") == (
        400, {"error": "Invalid event ID: nope", "status": 400},
    )  # fmt: skip

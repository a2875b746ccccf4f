"""app.api and app.api_sync against our own engine."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops

from stepbase import ApiError, App, Event
from stepbase.sdk import http

KEY, FALLBACK = "signkey-test-" + "ab" * 16, "signkey-test-" + "cd" * 16
UNKNOWN = "01M84KAFN1Q4XE7537F51DKV1K"
app = App("app")


@pytest.fixture
async def client(
    start_engine: StartEngine, host: StubHost, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineClient]:
    """An engine with keys, known to the app by its second one; functions that end, sleep and wait."""
    host.handlers["app-end"] = lambda call: Answer(200, {"n": call["event"]["data"].get("n")})
    host.handlers["app-fail"] = lambda call: Answer(500, {"name": "E", "message": "broken"})
    host.handlers["app-sleep"] = lambda call: ops({"op": "Sleep", "id": "z", "name": "1h"})
    host.handlers["app-wait"] = lambda call: (
        Answer(200, call["steps"]["s"]["data"]["data"])
        if call["steps"]
        else ops(
            {
                "op": "WaitForSignal",
                "id": "s",
                "displayName": "s",
                "opts": {"signal": "approve/7", "timeout": "1h", "conflict": "fail"},
            }
        )
    )
    names = ("end", "fail", "sleep", "wait")
    async with start_engine(FALLBACK, signing_keys=(FALLBACK,), event_keys=("e",)) as (client, _):
        await client.register(
            host.registration(*(host.function(f"app-{name}", retries=0) for name in names))
        )
        for name, value in {
            "INNGEST_BASE_URL": client.url,
            "INNGEST_SIGNING_KEY": KEY,
            "INNGEST_SIGNING_KEY_FALLBACK": FALLBACK,
            "INNGEST_EVENT_KEY": "e",
        }.items():
            monkeypatch.setenv(name, value)
        yield client
        await http.aclose()
        http.close()


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which face is used."""
    return str(request.param)


async def ask(kind: str, method: str, *args: Any, **options: Any) -> Any:
    if kind == "async":
        return await getattr(app.api, method)(*args, **options)
    return await asyncio.to_thread(getattr(app.api_sync, method), *args, **options)


async def test_runs_are_found_by_their_event_and_cancelled(client: EngineClient, kind: str) -> None:
    ended, failed, asleep = await app.send(
        [Event("app/end", {"n": 7}), Event("app/fail"), Event("app/sleep")]
    )
    for event_id in (ended, failed):
        await client.result(event_id)
    while not await client.runs_of(asleep):
        await asyncio.sleep(0.01)

    (run,) = await ask(kind, "runs", ended)
    (broken,) = await ask(kind, "runs", failed)
    (sleeping,) = await ask(kind, "runs", asleep)
    assert (run.status, run.output, run.event_id) == ("Completed", {"n": 7}, ended)
    assert run.ended_at is not None and run.ended_at >= run.started_at
    assert (broken.status, broken.output["message"]) == ("Failed", "broken")
    assert await ask(kind, "run", run.id) == run
    assert not sleeping.has_ended

    await ask(kind, "cancel", sleeping.id)
    await ask(kind, "cancel", sleeping.id)
    assert (await ask(kind, "run", sleeping.id)).status == "Cancelled"


async def test_a_repeated_event_starts_nothing_and_is_listed(
    client: EngineClient, kind: str
) -> None:
    first, second = [
        (await app.send(Event("app/end", {"n": n}, id="only-once")))[0] for n in (1, 2)
    ]
    await client.result(first)

    assert [len(await ask(kind, "runs", each)) for each in (first, second)] == [1, 0]
    listed = await ask(kind, "events", "app/end")
    assert [each.internal_id for each in listed] == [second, first]
    assert [each.event.id for each in listed] == ["only-once"] * 2
    newest = await ask(kind, "events", limit=1)
    assert [each.internal_id for each in newest] == [second]
    assert await ask(kind, "events", before=datetime(2026, 1, 1, tzinfo=UTC)) == []
    found = await ask(kind, "event", first)
    assert (found.event.name, found.event.data) == ("app/end", {"n": 1})


async def test_a_signal_wakes_the_run_that_waits(client: EngineClient, kind: str) -> None:
    (event_id,) = await app.send(Event("app/wait"))
    run_id = None
    async with asyncio.timeout(10):
        while run_id is None:  # nobody waits yet
            run_id = await ask(kind, "signal", "approve/7", {"by": "Ann"})
    run = await client.result(event_id)

    assert (run["run_id"], run["output"]) == (run_id, {"by": "Ann"})
    assert await ask(kind, "signal", "approve/7", {"by": "Bob"}) is None


async def test_runs_are_cancelled_in_bulk(client: EngineClient, kind: str) -> None:
    ids = await app.send([Event("app/sleep", {"n": n}) for n in range(3)])
    for each in ids:
        while not await client.runs_of(each):
            await asyncio.sleep(0.01)
    before = datetime.now(UTC) + timedelta(milliseconds=2)
    await asyncio.sleep(0.01)

    made = await ask(kind, "cancel_runs", "sleep", started_before=before, if_="event.data.n < 2")

    assert len(made) == 26
    statuses = [(await client.runs_of(each))[0]["status"] for each in ids]
    assert statuses[:2] == ["Cancelled"] * 2 and statuses[2] in ("Scheduled", "Running")


async def test_what_the_engine_does_not_know_or_do_is_an_error_with_its_status(
    client: EngineClient, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("run", "cancel", "event"):
        with pytest.raises(ApiError) as caught:
            await ask(kind, method, UNKNOWN)
        assert caught.value.status == 404, method
    assert await ask(kind, "runs", UNKNOWN) == []
    with pytest.raises(ApiError, match="has no function 'nope'") as refused:
        await ask(kind, "cancel_runs", "nope", started_before=datetime(2026, 1, 1, tzinfo=UTC))
    assert refused.value.status == 404

    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", KEY)
    with pytest.raises(ApiError, match="HTTP 401: Authentication failed; is INNGEST_SIGNING_KEY"):
        await ask(kind, "run", UNKNOWN)


async def test_spans_of_an_sdk_are_taken_up_to_a_size(client: EngineClient) -> None:
    path = "/v1/traces/userland"

    assert await client.request("POST", path, '{"resourceSpans": []}') == (200, {})
    assert (await client.request("POST", path, b"x" * (8 * 2**20 + 1)))[0] == 413

"""app.api and app.api_sync against the real server's recorded answers, refusals and silence."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.recordings import load

from stepbase import ApiError, App, DefinitionError, Event, EventData
from stepbase.protocol import signing
from stepbase.sdk import http

RECORDED: dict[str, Any] = load("api-rest.json")
KEY, FALLBACK = "signkey-test-" + "ab" * 16, "signkey-test-" + "cd" * 16
app = App("shop")

Ask = Callable[..., Awaitable[Any]]


class Seen(EventData, name="cap/steperr"):
    a: int


@app.function("f", on=Seen)
def function() -> None: ...


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApi]:
    """A server that the test tells what to answer."""
    monkeypatch.setattr("stepbase.sdk.ask.FIRST_PAUSE_SECONDS", 0.001)
    with fake_api() as running:
        monkeypatch.setenv("INNGEST_DEV", running.url)
        yield running
        await http.aclose()
        http.close()


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method of either face: `await ask("run", run_id)`."""

    async def either(method: str, *args: Any, **options: Any) -> Any:
        if request.param == "async":
            return await getattr(app.api, method)(*args, **options)
        return await asyncio.to_thread(getattr(app.api_sync, method), *args, **options)

    return either


def recorded(name: str) -> Callable[[Received], tuple[int, Any]]:
    """Return the answer of a recorded exchange, asserting that the same was asked."""
    exchange = RECORDED[name]
    wanted = exchange["request"]
    body = exchange["response"]["body"]

    def answer(request: Received) -> tuple[int, Any]:
        assert request.method == wanted["method"]
        assert request.path == wanted["path"].partition("?1")[0]
        if wanted["body"] is not None:
            assert request.body == json.loads(wanted["body"])
        return exchange["response"]["status"], body if body != "" else b""

    return answer


async def test_a_run_is_read_as_the_server_tells_it(api: FakeApi, ask: Ask) -> None:
    api.answer = recorded("GET /v1/runs/{id} completed")
    run = await ask("run", "01M84M2VRQZFENE5VXGK6NTFZB")

    assert (run.id, run.status, run.output) == (
        "01M84M2VRQZFENE5VXGK6NTFZB",
        "Completed",
        "ok at attempt 1",
    )
    assert run.started_at == datetime(2026, 11, 23, 16, 33, 32, 951000, UTC)
    assert run.ended_at == datetime(2026, 11, 23, 16, 33, 34, 305059, UTC)
    assert run.has_ended

    api.answer = recorded("GET /v1/runs/{id} sleeping")
    asleep = await ask("run", "01M84M2X7R0JF4KPVY5VS6WD47")

    assert (asleep.status, asleep.ended_at, asleep.has_ended) == ("Running", None, False)


async def test_runs_of_an_event(api: FakeApi, ask: Ask) -> None:
    api.answer = recorded("GET /v1/events/{id}/runs (first: uncached)")
    (run,) = await ask("runs", "01M84M2VRFKGR5VVCNB9Y7DESH")
    api.answer = recorded("GET /v1/events/{id}/runs (no runs)")
    none = await ask("runs", "01M84M2Z418P4217TJ420CS16H")

    assert (run.status, run.event_id, none) == ("Completed", "01M84M2VRFKGR5VVCNB9Y7DESH", [])


async def test_events_are_listed_and_found(api: FakeApi, ask: Ask) -> None:
    api.answer = recorded("GET /v1/events?name=")
    named = await ask("events", Seen, limit=2)
    api.answer = recorded("GET /v1/events/{id}")
    one = await ask("event", "01M84M2VRFKGR5VVCNB9Y7DESH")

    assert [each.event.name for each in named] == ["cap/steperr"] * 2
    assert one == named[0] or one.internal_id == named[0].internal_id
    assert isinstance(one.event, Event)
    assert (one.event.id, one.event.data) == ("01M84M2VRFKGR5VVCNB9Y7DESH", {"a": 1})
    assert one.received_at == datetime(2026, 11, 23, 16, 33, 32, 950063, UTC)


async def test_events_of_a_span(api: FakeApi, ask: Ask) -> None:
    api.answer = lambda _: (200, {"data": []})
    at = datetime(2026, 1, 2, tzinfo=UTC)

    assert await ask("events", "a/b", after=at, before=at, cursor="01A", limit=5) == []

    assert api.received[0].path == (
        "/v1/events?limit=5&name=a/b&received_after=2026-01-02T00%3A00%3A00%2B00%3A00"
        "&received_before=2026-01-02T00%3A00%3A00%2B00%3A00&cursor=01A"
    )


async def test_a_run_is_cancelled(api: FakeApi, ask: Ask) -> None:
    for name in ("DELETE /v1/runs/{id} (cancel)", "DELETE /v1/runs/{id} again"):
        api.answer = recorded(name)
        assert await ask("cancel", "01M84M2X7R0JF4KPVY5VS6WD47") is None


@pytest.mark.parametrize(
    ("name", "method", "argument", "status", "says"),
    [
        ("GET /v1/events/unknown", "event", "01M84KAFN1Q4XE7537F51DKV1K", 404, "Event not found"),
        ("GET /v1/events/bad/runs", "runs", "nope", 400, "Invalid event ID: nope"),
        ("GET /v1/runs/bad", "run", "zzz", 400, "Invalid run ID: zzz"),
        ("GET /v1/runs/unknown", "run", "01M84KAFN1Q4XE7537F51DKV1K", 500, "Unable to load"),
    ],
)
async def test_the_servers_refusals_are_errors(
    api: FakeApi, ask: Ask, name: str, method: str, argument: str, status: int, says: str
) -> None:
    api.answer = recorded(name)

    with pytest.raises(ApiError, match=says) as caught:
        await ask(method, argument)

    assert caught.value.status == status


async def test_runs_are_cancelled_in_bulk(api: FakeApi, ask: Ask) -> None:
    api.answer = recorded("POST /v1/cancellations")
    cap = App("cap")
    wanted = {
        "started_after": datetime(2026, 1, 1, tzinfo=UTC),
        "started_before": datetime(2030, 1, 1, tzinfo=UTC),
        "if_": "event.data.id == 98",
    }
    expected = json.loads(RECORDED["POST /v1/cancellations"]["request"]["body"])
    api.answer = lambda request: (200, {"data": {"id": "01C"}})

    assert await cap.api.cancel_runs("cancelme", **wanted) == "01C"  # type: ignore[arg-type]  # mixed
    sent = api.received[0].body
    assert {**sent, "started_after": "", "started_before": ""} == {
        **expected,
        "started_after": "",
        "started_before": "",
    }
    assert sent["started_before"] == "2030-01-01T00:00:00+00:00"

    api.answer = lambda _: (400, RECORDED["POST /v1/cancellations"]["response"]["body"])
    with pytest.raises(ApiError, match="started_before must be in the past") as caught:
        await ask("cancel_runs", function, started_before=wanted["started_before"])
    assert caught.value.status == 400
    assert api.received[1].body == {
        "app_id": "shop",
        "function_id": "f",
        "started_before": "2030-01-01T00:00:00+00:00",
    }


async def test_a_signal_finds_a_run_or_nobody(api: FakeApi, ask: Ask) -> None:
    api.answer = lambda _: (200, {"data": {"run_id": "01R"}})
    assert await ask("signal", "approve/7", Seen(a=1)) == "01R"
    assert api.received[0].body == {"signal": "approve/7", "data": {"a": 1}}

    api.answer = recorded("POST /v1/signals unknown")
    assert await ask("signal", "nope", {}) is None

    api.answer = lambda _: (404, b"404 page not found")
    with pytest.raises(ApiError, match="404 page not found"):
        await ask("signal", "nope")


@pytest.mark.parametrize(
    "answer", [(200, b"<html>"), (200, []), (200, {"data": []}), (302, b""), (404, b"")]
)
async def test_what_is_no_answer_is_an_error(
    api: FakeApi, ask: Ask, answer: tuple[int, Any]
) -> None:
    api.answer = lambda _: answer

    with pytest.raises(ApiError, match=r"GET /v1/runs/01R: HTTP \d{3}"):
        await ask("run", "01R")


async def test_a_server_that_stumbles_is_asked_again(api: FakeApi, ask: Ask) -> None:
    api.answer = lambda _: (503, {}) if len(api.received) < 5 else (200, {"data": []})

    assert await ask("runs", "01E") == []
    assert len(api.received) == 5

    api.answer = lambda _: (503, {"error": "starting", "status": 503})
    with pytest.raises(ApiError, match="starting"):
        await ask("runs", "01E")
    assert len(api.received) == 10


async def test_a_server_that_is_away_is_named(
    api: FakeApi, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "http://127.0.0.1:1")

    with pytest.raises(
        ApiError, match=r"GET /v1/runs/01R: no answer from http://127\.0\.0\.1:1"
    ) as caught:
        await ask("run", "01R")

    assert caught.value.status is None


async def test_the_fallback_key_opens_when_the_first_does_not(
    api: FakeApi, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INNGEST_DEV")
    monkeypatch.setenv("INNGEST_BASE_URL", api.url)
    with pytest.raises(ApiError, match="set INNGEST_SIGNING_KEY"):
        await ask("run", "01R")
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    good = f"Bearer {signing.hash_key(FALLBACK)}"
    api.answer = lambda request: (
        (200, {"data": []})
        if request.headers["authorization"] == good
        else (401, {"error": "Authentication failed", "status": 401})
    )

    with pytest.raises(ApiError, match="is INNGEST_SIGNING_KEY that of this server") as caught:
        await ask("runs", "01E")
    assert caught.value.status == 401
    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", FALLBACK)
    assert await ask("runs", "01E") == []


async def test_ids_stay_one_part_of_the_path(api: FakeApi, ask: Ask) -> None:
    api.answer = lambda _: (200, b"")

    await ask("cancel", "../events?x")

    assert api.received[0].path == "/v1/runs/..%2Fevents%3Fx"
    with pytest.raises(DefinitionError, match="expected the id of a run"):
        await ask("cancel", "")
    with pytest.raises(DefinitionError, match="needs a timezone"):
        await ask("events", after=datetime(2026, 1, 1))  # noqa: DTZ001  # the mistake

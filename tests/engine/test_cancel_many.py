"""Bulk cancellation: by function or app, span of time, and condition."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops

from stepbase.engine import operate


def iso(instant: datetime) -> str:
    return instant.isoformat()


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def sleepers(client: EngineClient, host: StubHost) -> list[str]:
    """Five sleeping runs of app-f (n = 0 … 4), one of app-g, one of app-f that has ended."""
    asleep = ops({"op": "Sleep", "id": "nap", "displayName": "nap", "name": "1h"})
    host.handlers["app-f"] = lambda call: (
        Answer(200, "done") if call["event"]["data"]["n"] == 9 else asleep
    )
    host.handlers["app-g"] = lambda call: asleep
    await client.register(host.registration(host.function("app-f"), host.function("app-g")))
    ids = await client.send(
        *({"name": "app/f", "data": {"n": n}} for n in range(5)),
        {"name": "app/g", "data": {"n": 0}},
        {"name": "app/f", "data": {"n": 9}},
    )
    await client.result(ids[-1])
    return ids


async def cancel(client: EngineClient, **wanted: Any) -> dict[str, Any]:
    # Of the same millisecond as the newest run's id would be too early.
    await asyncio.sleep(0.002)
    body = {"app_id": "app", "started_before": iso(now()), **wanted}
    status, answer = await client.request("POST", "/v1/cancellations", body)
    assert status == 200, answer
    data: dict[str, Any] = answer["data"]
    return data


async def live(client: EngineClient, ids: list[str]) -> list[int]:
    runs = [await client.runs_of(each) for each in ids]
    return [i for i, [run] in enumerate(runs) if run["ended_at"] is None]


async def test_the_runs_of_a_function_are_cancelled(
    client: EngineClient, sleepers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "_PAGE", 2)

    made = await cancel(client, function_id="f")

    assert (made["cancelled"], made["function_id"], len(made["id"])) == (5, "f", 26)
    assert await live(client, sleepers) == [5]
    [run] = await client.runs_of(sleepers[0])
    assert run["output"]["message"] == "cancelled in bulk through the API"
    assert (await cancel(client, function_id="app-f"))["cancelled"] == 0
    [ended] = await client.runs_of(sleepers[6])
    assert ended["status"] == "Completed"


async def test_a_condition_and_a_span_choose(client: EngineClient, sleepers: list[str]) -> None:
    made = await cancel(client, function_id="f", **{"if": "event.data.n >= 3"})
    assert made["cancelled"] == 2 and await live(client, sleepers) == [0, 1, 2, 5]

    old = now() - timedelta(hours=1)
    assert (await cancel(client, function_id="f", started_before=iso(old)))["cancelled"] == 0
    assert (await cancel(client, function_id="f", started_after=iso(old)))["cancelled"] == 3


async def test_without_a_function_the_whole_app_is_meant(
    client: EngineClient, sleepers: list[str]
) -> None:
    assert (await cancel(client))["cancelled"] == 6
    assert await live(client, sleepers) == []


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("{", 400, "Expecting"),
        ([], 400, "expected"),
        ({"app_id": "app", "function_id": "f"}, 400, "started_before is required"),
        ({"app_id": "app", "started_before": "2126-01-01T00:00:00Z"}, 400, "in the past"),
        ({"app_id": "app", "started_before": "soon"}, 400, "ISO 8601"),
        ({"started_before": "2026-01-01T00:00:00Z"}, 400, "expected"),
        (
            {"app_id": "app", "started_before": "2026-01-01T00:00:00Z", "if": "event."},
            400,
            "CEL",
        ),
        (
            {"app_id": "app", "function_id": "no", "started_before": "2026-01-01T00:00:00Z"},
            404,
            "no function 'no'",
        ),
        (
            {
                "app_id": "app",
                "started_after": "2026-01-02T00:00:00Z",
                "started_before": "2026-01-01T00:00:00Z",
            },
            400,
            "started_after",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused(
    client: EngineClient, body: object, status: int, says: str
) -> None:
    got, answer = await client.request("POST", "/v1/cancellations", body)

    assert (got, says in answer["error"]) == (status, True), answer

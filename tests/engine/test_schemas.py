"""Schemas of events in the engine: stored by a sync, left alone by one that does not tell them."""

import json
from typing import Any

import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine, serving_app
from tests.support.engine_client import EngineClient
from tests.support.stub_host import StubHost

from stepbase import App, Event, EventData

TOLD = {"app/f": {"model": "F", "schema": {"properties": {"x": {"type": "integer"}}}}}


class Paid(EventData, name="shop/paid"):
    cents: int


async def stored(connect: Connect) -> dict[str, Any]:
    """Return each function's version and schemas."""
    rows = await (await connect()).fetch(
        "select slug, version, schemas::text from stepbase.functions order by slug"
    )
    return {row["slug"]: (row["version"], json.loads(row["schemas"] or "null")) for row in rows}


async def test_an_app_of_ours_tells_them_whoever_asked_it_to_sync(
    start_engine: StartEngine, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App("shop")

    @app.function("paid", on=Paid)
    async def paid(event: Event[Paid]) -> None: ...

    # By a plain PUT, as a deploy does: the answer of the registration says who it is.
    async with serving_app(app, start_engine, monkeypatch):
        version, schemas = (await stored(connect))["shop-paid"]

    assert version == 1
    assert schemas["shop/paid"] == {"model": "Paid", "schema": Paid.model_json_schema()}


async def test_they_change_no_version_and_are_kept_until_told_otherwise(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    plain = host.registration(host.function("app-f"), host.function("app-g"))
    first = await client.register({**plain, "stepbase": {"schemas": {"app-f": TOLD}}})
    again = await client.register({**plain, "stepbase": {"schemas": {"app-f": TOLD}}})
    silent = await client.register(plain)

    assert [each["modified"] for each in (first, again, silent)] == [True, False, False]
    assert await stored(connect) == {"app-f": (1, TOLD), "app-g": (1, {})}

    gone = await client.register({**plain, "stepbase": {"schemas": {}}})
    assert not gone["modified"]
    assert await stored(connect) == {"app-f": (1, {}), "app-g": (1, {})}


async def test_a_broken_one_refuses_the_sync_with_its_place(
    client: EngineClient, host: StubHost
) -> None:
    body = {**host.registration(host.function("app-f")), "stepbase": {"schemas": {"app-f": 1}}}

    status, answer = await client.request("POST", "/fn/register", body)

    assert status == 400 and "stepbase.schemas['app-f']" in answer["error"]

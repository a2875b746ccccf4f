"""With keys, as in production: who may call, register, read and send."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from unittest import mock

import inngest
import pytest
from inngest._internal.errors import Error, SendEventsError
from tests.official.cases import Cases
from tests.official.python.world import (
    APP,
    SERVED,
    World,
    app_host,
    completed,
    declaring,
    official_client,
    world,
)

from stepbase.protocol import signing

KEY = "signkey-prod-" + "0123456789abcdef" * 2
OLD = "signkey-prod-" + "fedcba9876543210" * 2
WRONG = "signkey-prod-" + "00" * 16
EVENT_KEY, OTHER_EVENT_KEY = "event-key", "another-event-key"
SIZE = 1_500_000

case: Cases[World] = Cases("python")
"""The cases for which engine and app have keys."""


def functions(client: inngest.Inngest) -> list[inngest.Function[Any]]:
    """Return a function whose memos must be fetched, and one that fails."""

    @client.create_function(
        fn_id="work", retries=1, trigger=inngest.TriggerEvent(event=f"{client.app_id}/work")
    )
    async def work(ctx: inngest.Context) -> Any:
        async def produce() -> str:
            return "x" * SIZE

        found = [await ctx.step.run("produce", produce) for _ in range(3)]
        [sent] = await ctx.step.send_event("send", inngest.Event(name=f"{client.app_id}/sent"))
        return [sum(map(len, found)), sent]

    @client.create_function(
        fn_id="sent", trigger=inngest.TriggerEvent(event=f"{client.app_id}/sent")
    )
    def sent(ctx: inngest.ContextSync) -> Any:
        return ctx.step.run("step", lambda: "sent")

    return [work, sent]


keyed_world = partial(
    world,
    functions=functions(declaring),
    signing_keys=(KEY, OLD),
    event_keys=(EVENT_KEY, OTHER_EVENT_KEY),
)
"""An engine that signs with the first key and takes both from apps, and an app with the first."""


@asynccontextmanager
async def keyed_client(world: World, app_id: str, **keys: Any) -> AsyncIterator[inngest.Inngest]:
    """A client with other keys than the world's."""
    fallback = {"INNGEST_SIGNING_KEY_FALLBACK": keys.pop("fallback", "")}
    keys = {"signing_key": KEY, "event_key": EVENT_KEY, **keys}
    # The environment is the only place for the fallback; it is read when the client is made.
    with mock.patch.dict(os.environ, {name: key for name, key in fallback.items() if key}):
        opened = official_client(world.engine.url, app_id=app_id, is_production=True, **keys)
        client = await opened.__aenter__()
    yield client
    await opened.__aexit__(None, None, None)


async def works(world: World, app_id: str) -> None:
    """Run an app's function, which fetches its memos and sends an event."""
    size, sent = await world.output(f"{app_id}/work")

    assert size == 3 * SIZE
    assert completed(await world.engine.result(sent)) == "sent"


@case("signing key", "event key", "big state")
async def calls_and_requests_are_signed(world: World) -> None:
    await works(world, APP)

    status, answer = await world.ask("POST", world.host, params={"fnId": f"{APP}-work"}, json={})
    assert (status, answer) == (401, {"message": "Unauthorized"})
    async with world.session.get(world.engine.url + "/v1/events") as response:
        assert response.status == 401


@case("sync in band", "modified")
async def an_app_answers_with_its_functions(world: World) -> None:
    # Nobody could register it elsewhere: its client does not know where the engine is.
    nowhere = {"api_base_url": "http://127.0.0.1:9"}
    async with keyed_client(world, "in-band", **nowhere) as client:
        with app_host(client, functions(client), enable_unauthed_sync=False) as host:
            assert [(await world.sync(host))["modified"] for _ in range(2)] == [True, False]
            status, _ = await world.ask("PUT", host)
            run = await world.run("in-band/sent")

    assert status == 401
    assert completed(run) == "sent"


@case("sync out of band")
async def an_app_that_anyone_asks_registers_itself(world: World) -> None:
    async with keyed_client(world, "out-of-band") as client:
        with app_host(client, functions(client)) as host:
            _, answer = await world.ask("PUT", host)
            run = await world.run("out-of-band/sent")

    assert (answer["ok"], answer["modified"]) == (True, True)
    assert completed(run) == "sent"


@case("signing key")
async def an_app_with_another_key_cannot_register(world: World) -> None:
    async with keyed_client(world, "stranger", signing_key=WRONG) as client:
        with app_host(client, functions(client)) as host:
            url = {"url": host + SERVED}
            asked = await world.engine.request("PUT", "/fn/sync", url)
            _, registering = await world.ask("PUT", host)

    assert asked == (401, {"message": "Unauthorized"})
    assert "ok" not in registering
    assert await world.sql("select 1 from stepbase.apps where name = 'stranger'") == []


@case("signing key")
async def an_app_whose_key_was_changed_takes_no_calls(world: World) -> None:
    async with keyed_client(world, "changed") as client:
        with app_host(client, functions(client)) as host:
            await world.sync(host)
    port = int(host.rpartition(":")[2])
    async with keyed_client(world, "changed", signing_key=WRONG) as client:
        with app_host(client, functions(client), port):
            run = await world.run("changed/work")

    assert run["status"] == "Failed"
    assert run["output"]["name"] == "NoAnswer"
    assert "refused the call's signature" in run["output"]["message"]


@case("fallback key")
async def an_app_takes_calls_signed_with_its_fallback(world: World) -> None:
    async with keyed_client(world, "rotated", signing_key=WRONG, fallback=KEY) as client:
        with app_host(client, functions(client)) as host:
            await world.sync(host)
            await works(world, "rotated")


@case("fallback key")
async def the_engine_takes_an_apps_older_key(world: World) -> None:
    async with keyed_client(world, "older", signing_key=OLD, fallback=KEY) as client:
        with app_host(client, functions(client)) as host:
            await world.sync(host)
            await works(world, "older")


@case("event key")
async def only_a_known_event_key_sends(world: World) -> None:
    event = inngest.Event(name="nobody/listens")

    async with keyed_client(world, "sender", event_key=OTHER_EVENT_KEY) as client:
        assert len(await client.send(event)) == 1
    async with keyed_client(world, "sender", event_key="unknown") as client:
        with pytest.raises(SendEventsError, match="401|key"):
            await client.send(event)
    async with keyed_client(world, "sender", event_key=None) as client:
        with pytest.raises(Error):
            await client.send(event)


@case("signing key")
async def an_app_in_dev_mode_cannot_register(world: World) -> None:
    async with official_client(world.engine.url, app_id="developing") as client:
        with app_host(client, functions(client)) as host:
            url = {"url": host + SERVED}
            _, answer = await world.engine.request("PUT", "/fn/sync", url)

    assert answer["code"] == "server_kind_mismatch"


@case("introspection", "signing key")
async def an_app_tells_more_to_who_has_the_key(world: World) -> None:
    signed = signing.sign(b"", KEY, int(time.time()))
    headers = {"x-inngest-signature": signed, "x-inngest-server-kind": "cloud"}
    status, answer = await world.ask("GET", world.host, headers=headers)

    assert status == 200
    assert answer["authentication_succeeded"] is True
    assert (answer["app_id"], answer["mode"], answer["function_count"]) == (APP, "cloud", 2)
    assert answer["signing_key_hash"] == signing.hash_key(KEY)

"""New keys while runs are under way, in the order that docs/operating.md gives: no call is refused."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from tests.conftest import Connect
from tests.life.conftest import StartPiece, write_app
from tests.support.engine_client import ENDED

from stepbase.protocol import signing

OLD, NEW = "signkey-prod-" + "ab" * 16, "signkey-prod-" + "cd" * 16
OLD_EVENT, NEW_EVENT = "old-event-key", "new-event-key"

# No attempt to spare; `send_event` and checkpoints make the app ask the engine with its keys, too.
_APP = """
from stepbase import App, Event, EventData, Step, serve

app = App("shop")


class Noted(EventData, name="shop/noted"):
    n: int


@app.function("order", on="shop/ordered", retries=0)
async def order(event: Event[dict[str, int]], step: Step) -> int:
    n = event.data["n"]
    for i in range(4):
        await step.run(f"step-{i}", lambda: n)
        await step.sleep(f"while-{i}", "1s")
    await step.send_event("tell", Noted(n=n))
    return n


@app.function("note", on=Noted, retries=0)
async def note(event: Event[Noted], step: Step) -> int:
    return event.data.n


main = serve(app)
"""


class Sender:
    """Somebody who sends an order every 0.1 s, with the key of the time, from beginning to end."""

    def __init__(self, url: str) -> None:
        self.key = OLD_EVENT
        self.accepted: list[str] = []
        self.refused: list[int] = []
        self._url = url
        self._task = asyncio.create_task(self._send())

    async def stop(self) -> None:
        """Send no more."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def some_more(self, count: int = 3) -> None:
        """Wait until further orders have been accepted; raises what ended the sending."""
        wanted = len(self.accepted) + count
        async with asyncio.timeout(20):
            while len(self.accepted) < wanted:
                assert not self._task.done(), self._task
                await asyncio.sleep(0.02)

    async def _send(self) -> None:
        async with aiohttp.ClientSession() as session:
            n = 0
            while True:
                n += 1
                await self._one(
                    session, {"id": f"order-{n}", "name": "shop/ordered", "data": {"n": n}}
                )
                await asyncio.sleep(0.1)

    async def _one(self, session: aiohttp.ClientSession, event: dict[str, Any]) -> None:
        """Send it until it is accepted or refused: an engine that restarts is away for a moment."""
        while True:
            try:
                async with session.post(f"{self._url}/e/{self.key}", json=event) as answer:
                    if answer.status == 200:
                        self.accepted.append(event["id"])
                    else:
                        self.refused.append(answer.status)
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


async def test_keys_change_step_by_step_and_no_call_is_refused(
    start: StartPiece, tmp_path: Path, database: str, connect: Connect
) -> None:
    write_app(tmp_path, "shop", _APP)
    connection = await connect()

    async def engine(port: int = 0, **keys: str) -> Any:
        return await start(
            "engine", {"DATABASE_URL": database, **keys}, "--retry-interval=0.05", port=port
        )

    async def host(port: int = 0, **keys: str) -> Any:
        address = (
            {"INNGEST_BASE_URL": url, "INNGEST_SERVE_ORIGIN": f"http://127.0.0.1:{port}"}
            if port
            else {"INNGEST_BASE_URL": url}
        )
        return await start("host", {**address, **keys}, str(tmp_path), port=port)

    engines = await engine(INNGEST_SIGNING_KEY=OLD, INNGEST_EVENT_KEY=OLD_EVENT)
    url = f"http://127.0.0.1:{engines.port}"
    hosts = await host(INNGEST_SIGNING_KEY=OLD, INNGEST_EVENT_KEY=OLD_EVENT)
    await sync(url, hosts.port, OLD)
    sender = Sender(url)
    await sender.some_more()

    async def replace(piece: Any, begin: Any, **keys: str) -> Any:
        port = piece.port
        await piece.stop()
        return await begin(port, **keys)

    # 1. Apps accept the new signing key beside the old one.
    hosts = await replace(
        hosts,
        host,
        INNGEST_SIGNING_KEY=OLD,
        INNGEST_SIGNING_KEY_FALLBACK=NEW,
        INNGEST_EVENT_KEY=OLD_EVENT,
    )
    await sender.some_more()
    # 2. Engines sign with the new one, and accept both of each kind.
    engines = await replace(
        engines,
        engine,
        INNGEST_SIGNING_KEY=NEW,
        INNGEST_SIGNING_KEY_FALLBACK=OLD,
        INNGEST_EVENT_KEY=NEW_EVENT,
        STEPBASE_EVENT_KEY_FALLBACK=OLD_EVENT,
    )
    await sender.some_more()
    # 3. Apps and whoever else sends events have the new ones only.
    hosts = await replace(hosts, host, INNGEST_SIGNING_KEY=NEW, INNGEST_EVENT_KEY=NEW_EVENT)
    sender.key = NEW_EVENT
    await sender.some_more()
    # 4. Engines forget the old ones.
    engines = await replace(engines, engine, INNGEST_SIGNING_KEY=NEW, INNGEST_EVENT_KEY=NEW_EVENT)
    await sender.some_more()
    await sender.stop()

    runs = await ended(connection, len(sender.accepted) * 2)
    assert {run["status"] for run in runs} == {"Completed"}
    assert sender.refused == []
    assert (
        await connection.fetchval("select count(*) from stepbase.attempts where http_status = 401")
        == 0
    )
    # And the old keys open nothing any more.
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/e/{OLD_EVENT}", json={"name": "x"}) as answer:
            assert answer.status == 401
        headers = {"authorization": f"Bearer {signing.hash_key(OLD)}"}
        async with session.get(f"{url}/v1/events", headers=headers) as answer:
            assert answer.status == 401


async def test_a_key_that_comes_too_early_fails_no_run(
    start: StartPiece, tmp_path: Path, database: str, connect: Connect
) -> None:
    write_app(tmp_path, "shop", _APP)
    connection = await connect()
    keys = {"INNGEST_SIGNING_KEY": OLD, "INNGEST_EVENT_KEY": OLD_EVENT}
    engine = await start("engine", {"DATABASE_URL": database, **keys}, "--retry-interval=0.05")
    url = f"http://127.0.0.1:{engine.port}"
    host = await start("host", {"INNGEST_BASE_URL": url, **keys}, str(tmp_path))
    await sync(url, host.port, OLD)
    port = host.port
    await host.stop()

    # The app was given the new key alone, and the engine still has the old one.
    wrong = {"INNGEST_BASE_URL": url, "INNGEST_SIGNING_KEY": NEW}
    host = await start("host", wrong, str(tmp_path), port=port)
    async with aiohttp.ClientSession() as session:
        event = {"name": "shop/noted", "data": {"n": 1}}
        await session.post(f"{url}/e/{OLD_EVENT}", json=event)
    async with asyncio.timeout(20):
        while not await connection.fetchval(
            "select count(*) from stepbase.attempts where http_status = 401"
        ):
            await asyncio.sleep(0.02)
    assert await connection.fetchval("select ended_at from stepbase.runs") is None
    await host.stop()
    await start("host", {"INNGEST_BASE_URL": url, **keys}, str(tmp_path), port=port)

    [run] = await ended(connection, 1)
    assert run["status"] == "Completed"


async def sync(url: str, port: int, key: str) -> None:
    """Have the app on this port register itself."""
    async with aiohttp.ClientSession() as session:
        async with session.put(
            f"{url}/fn/sync", json={"url": f"http://127.0.0.1:{port}/shop/api/inngest"},
            headers={"authorization": f"Bearer {signing.hash_key(key)}"},
        ) as answer:  # fmt: skip
            assert answer.status == 200, await answer.text()


async def ended(
    connection: "asyncpg.Connection[asyncpg.Record]", count: int
) -> list[Mapping[str, Any]]:
    """Wait until so many runs have ended; return all."""
    async with asyncio.timeout(40):
        while True:
            rows = await connection.fetch("select status from stepbase.runs")
            if sum(row["status"] in ENDED for row in rows) >= count:
                return [dict(row) for row in rows]
            await asyncio.sleep(0.05)

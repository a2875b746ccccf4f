"""docs/moving-from-inngest.md: its two columns do the same on one engine, and runs move between them."""

import asyncio
import json
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import aiohttp
import asyncpg
import pytest
from tests.life.conftest import pass_time
from tests.repo.pages import Block, blocks
from tests.repo.tree import ROOT, assert_none
from tests.support.engine_client import EngineClient
from tests.support.real_hosts import serving_asgi, serving_wsgi
from tests.support.sdk_hosts import framework_of

import stepbase
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.sdk import background, http
from stepbase.testing import Lab

PAGE = ROOT / "docs" / "moving-from-inngest.md"
BLOCKS = [block for block in blocks(PAGE) if block.language == "python"]
PAIRS = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
SIDES = ("left", "right")
PLAYS = [(right, note) for _, right in PAIRS for note in right.notes]
SERVED = "/api/inngest"
PATIENCE = 30


def column(side: str) -> ModuleType:
    """Return a module that has a column's blocks, in order."""
    module = ModuleType(f"moving_{side}")
    sys.modules[module.__name__] = module
    with warnings.catch_warnings():
        # The official package still writes pydantic as before version 2.
        warnings.simplefilter("ignore")
        for pair in PAIRS:
            block = pair[SIDES.index(side)]
            exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), module.__dict__)
    return module


@dataclass
class World:
    """An engine with a database of its own, and both columns."""

    engine: EngineClient
    connection: asyncpg.Connection
    columns: dict[str, ModuleType]

    @contextmanager
    def served(self, side: str) -> Iterator[str]:
        """Serve a column's FastAPI application."""
        with serving_asgi(self.columns[side].site) as origin:
            yield origin

    async def sync(self, origin: str) -> None:
        """Have the engine ask an app to register itself."""
        status, answer = await self.engine.request("PUT", "/fn/sync", {"url": origin + SERVED})
        assert status == 200, answer

    async def until_step(self, event_id: str, name: str, *statuses: str) -> None:
        """Wait until a step of the event's run has one of these statuses."""
        async with asyncio.timeout(PATIENCE):
            while not await self.connection.fetchval(
                "select true from stepbase.steps s join stepbase.runs r using (run_id)"
                " where r.event_id = $1 and s.name = $2 and s.status = any($3::text[])",
                event_id, name, list(statuses),
            ):  # fmt: skip
                await asyncio.sleep(0.02)

    async def run_of(self, slug: str) -> Any:
        """Wait for the one run of a function to end, and return it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event_id = await self.connection.fetchval(
                    "select r.event_id from stepbase.runs r join stepbase.functions f using (function_id)"
                    " where f.slug = $1",
                    slug,
                )
                if event_id is not None:
                    return await self.engine.result(event_id)
                await asyncio.sleep(0.02)

    async def configurations(self) -> dict[str, Any]:
        """Return what every function has registered, without the address of its host."""
        rows = await self.connection.fetch("select slug, config from stepbase.functions")
        found = {row["slug"]: json.loads(row["config"]) for row in rows}
        for config in found.values():
            config["steps"]["step"]["runtime"].pop("url")
        return found


@asynccontextmanager
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    settings = Settings(
        database_url=database, port=0, retry_interval=0.05, drain_seconds=2, sweep_seconds=0.5
    )
    async with serving(settings) as (_, port, _), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        # What both packages read, at import or when they are asked.
        monkeypatch.setenv("INNGEST_DEV", url)
        monkeypatch.setenv("INNGEST_BASE_URL", url)
        connection = await asyncpg.connect(database)
        columns = {side: column(side) for side in SIDES}
        yield World(EngineClient(session, url), connection, columns)
        await connection.close()
        await http.aclose()
        http.close()
        background.stop()
        client = columns["left"].client
        # It has no call to close its connections.
        await client._http_client._http_client.aclose()
        client._http_client._http_client_sync.close()


def test_the_page_has_pairs() -> None:
    assert len(PAIRS) >= 14 and len(PLAYS) >= 10
    assert_none(
        left.where for left, _ in PAIRS if "inngest" not in left.text and "flask" not in left.text
    )
    assert_none(
        right.where for _, right in PAIRS if "inngest." in right.text.replace("/inngest", "")
    )
    assert_none(left.where for left, _ in PAIRS if left.notes)


async def test_both_columns_register_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(database, monkeypatch) as running:
        found = {}
        for side in SIDES:
            with running.served(side) as origin:
                await running.sync(origin)
            found[side] = await running.configurations()

    assert len(found["left"]) == 15  # with the failure handler
    left, right = found["left"], found["right"]
    failure = "shop-deliver-failure"
    # The official package gives it empty lists (tests/interop/differences.py).
    for name in ("cancel", "concurrency"):
        left[failure].pop(name, None)
    assert {slug: shown(config) for slug, config in left.items()} == {
        slug: shown(config) for slug, config in right.items()
    }


def shown(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without what is empty or another way to say nothing."""
    return {name: value for name, value in config.items() if value not in (None, [])}


@pytest.mark.parametrize("side", SIDES)
async def test_a_column_gives_what_the_page_says(
    side: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(database, monkeypatch) as running:
        with running.served(side) as origin:
            await running.sync(origin)
            for block, note in PLAYS:
                await play(running, side, block, note)


async def play(running: World, side: str, block: Block, note: dict[str, Any]) -> None:
    """Do what a note says, and compare how the run ended."""
    engine = running.engine
    if "call" in note:
        [event_id] = await getattr(running.columns[side], note["call"])()
    else:
        [event_id] = await engine.send(note["event"])
    if "asleep" in note:
        await running.until_step(event_id, note["asleep"], "sleeping")
    if "waits" in note:
        await running.until_step(event_id, note["waits"], "waiting")
    if "then" in note:
        await engine.send(note["then"])
    elif "asleep" in note:
        await pass_time(running.connection)

    run = await engine.result(event_id)

    check(run, side, block, note)
    for slug, gives in note.get("afterwards", {}).items():
        assert (await running.run_of(slug))["output"] == gives


def check(run: Any, side: str, block: Block, note: dict[str, Any]) -> None:
    """Compare how a run ended with what the page says."""
    status, output = run["status"], run["output"]
    if note.get("differs") and side == "left":
        assert (status, output["name"]) == ("Failed", "RetryAfterError"), block.where
    elif note.get("differs"):
        assert (status, output) == ("Completed", "RetryAfterError: busy"), block.where
    elif "fails" in note:
        assert (status, output["name"]) == ("Failed", note["fails"]), block.where
    elif "status" in note:
        assert status == note["status"], block.where
    else:
        assert (status, output) == ("Completed", note["gives"]), block.where


async def test_a_limit_counts_the_same_in_both(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(database, monkeypatch) as running:
        for side in SIDES:
            with running.served(side) as origin:
                await running.sync(origin)
                seen, gathered = await running.engine.send(*[{"name": "shop/page.seen"}] * 2)
                visits = [{"name": "shop/visited", "data": {"who": side}}] * 2
                first, second = await running.engine.send(*visits)

                assert (await running.engine.result(seen))["output"] == 2
                assert await running.engine.runs_of(gathered) == []
                assert (await running.engine.result(first))["output"] == "hello"
                assert await running.engine.runs_of(second) == []


@pytest.mark.parametrize("host", ["flask", "functions-framework"])
@pytest.mark.parametrize("side", SIDES)
async def test_other_hosts_serve_both(
    side: str, host: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    async with world(database, monkeypatch) as running:
        found = running.columns[side]
        application = found.flask_site if host == "flask" else framework(found, tmp_path)
        with serving_wsgi(application) as origin:
            await running.sync(origin)
            [event_id] = await running.engine.send({"name": "shop/entered"})
            assert (await running.engine.result(event_id))["output"] == "GOOD MORNING"


def framework(found: ModuleType, folder: Any) -> Any:
    """Return what functions-framework serves of a column's `main`."""
    source = folder / "main.py"
    source.write_text(f"from {found.__name__} import main\n")
    return framework_of(source)


async def test_a_bare_number_is_refused_where_the_other_means_milliseconds() -> None:
    app = stepbase.App("numbers")
    as_on_the_left: Any = 5_000

    @app.function("sleep", on="n/sleep")
    async def sleep(step: stepbase.Step) -> None:
        await step.sleep("a-while", as_on_the_left)

    async with Lab(app) as lab:
        [run] = await lab.send(stepbase.Event("n/sleep"))

    assert run.status == "failed" and "got 5000" in str(run.error)
    with pytest.raises(stepbase.DefinitionError, match="got 5000"):
        stepbase.Timeouts(start=as_on_the_left)


@pytest.mark.parametrize("side", SIDES)
def test_the_tests_of_a_column_pass(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    found = column(side)
    # The mock of the official package would use the loop of this thread, and make one.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        found.test_pay()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")], ids=["there", "back"])
async def test_runs_under_way_move(
    order: tuple[str, str], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = order
    calls: list[tuple[str, Any]] = []
    async with world(database, monkeypatch) as running:
        for side in SIDES:
            watch(running.columns[side], side, calls, blocks_at=2 if side == before else None)
        engine = running.engine
        with running.served(before) as origin:
            await running.sync(origin)
            # A function that is called stays where it is, for as long as it is paused.
            await engine.request("POST", "/v1/functions/shop-archive/pause")
            [asleep, waiting, calling, group] = await engine.send(
                {"name": "shop/order.packed", "data": {"cents": 5}},
                {"name": "shop/invoice.sent", "data": {"id": 3}},
                {"name": "shop/order.closed"},
                {"name": "shop/squares.wanted"},
            )
            await running.until_step(asleep, "a-day", "sleeping")
            await running.until_step(waiting, "payment", "waiting")
            await running.until_step(calling, "archive", "invoking")
            await running.until_step(group, "square 0", "done")
            await running.until_step(group, "square 1", "done")
        stored = await hashes(running, asleep, waiting, calling, group)

        with running.served(after) as origin:
            await running.sync(origin)
            await engine.request("POST", "/v1/functions/shop-archive/resume")
            await engine.send({"name": "shop/invoice.paid", "data": {"id": 3, "cents": 900}})
            await engine.result(waiting)
            await engine.result(calling)
            await pass_time(running.connection)
            runs = [await engine.result(each) for each in (asleep, waiting, calling, group)]
        ended = await hashes(running, asleep, waiting, calling, group)

    assert [(run["status"], run["output"]) for run in runs] == [
        ("Completed", 5), ("Completed", 900), ("Completed", [7, 1]), ("Completed", [0, 1, 4]),
    ]  # fmt: skip
    # What one side had done the other did not do again, and found under the hash it knows.
    assert (after, "charge") not in calls and (before, "charge") in calls
    assert [each for each in calls if each[0] == after] == [(after, 2)]
    assert stored.items() <= ended.items()


def watch(
    found: ModuleType, side: str, calls: list[tuple[str, Any]], blocks_at: int | None
) -> None:
    """Note the work of a column's steps; one of a group does not end before its host does."""
    charge, square = found.charge, found.square

    async def noted_charge(cents: int) -> Any:
        calls.append((side, "charge"))
        return await charge(cents)

    async def noted_square(n: int) -> int:
        if n == blocks_at:
            await asyncio.Event().wait()
        calls.append((side, n))
        return int(await square(n))

    noted_charge.__annotations__ = dict(charge.__annotations__)
    vars(found).update(charge=noted_charge, square=noted_square)


async def hashes(running: World, *event_ids: str) -> dict[tuple[str, str], str]:
    """Return the hash of every named step of these events' runs, by run and name."""
    rows = await running.connection.fetch(
        "select s.run_id, s.name, s.hash from stepbase.steps s join stepbase.runs r using (run_id)"
        " where r.event_id = any($1::text[]) and s.name <> ''",
        list(event_ids),
    )
    return {(row["run_id"], row["name"]): row["hash"] for row in rows}

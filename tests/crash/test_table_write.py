"""A write whose answer is lost, on the whole stack: the row is there once, and the run gets it."""

import asyncio
import textwrap
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from tests.support.engine_client import EngineClient

from stepbase.local.stack import Plan, Stack

MAIN = """
from stepbase import App, Step, SyncStep, serve

app = App("shop")

@app.function("async", on="order/async")
async def order_async(event, step: Step):
    rows = await step.table("order", "orders").insert({"note": "async"})
    return rows[0]["id"]

@app.function("sync", on="order/sync")
def order_sync(event, step: SyncStep):
    rows = step.table("order", "orders").insert({"note": "sync"})
    return rows[0]["id"]

main = serve(app)
"""
TABLE = """
create table public.orders (id int generated always as identity primary key, note text);
grant select, insert on public.orders to service_role;
"""


@pytest.mark.timeout(90)
async def test_a_crash_between_commit_and_answer_writes_once(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "functions" / "shop"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(textwrap.dedent(MAIN))
    hits = tmp_path / "hits"
    connection = await asyncpg.connect(database)
    await connection.execute(TABLE)

    plan = Plan(
        functions=folder.parent,
        database_url=database,
        project=tmp_path,
        engine_arguments=("--retry-interval", "0.1"),
    )
    outputs = []
    async with Stack(plan) as stack, aiohttp.ClientSession() as session:
        client = EngineClient(session, stack.engine_url)
        gateway = stack.pieces["gateway"]
        for kind in ("async", "sync"):
            gateway.set_environment(
                STEPBASE_FAILPOINTS="rpc.after_commit=1", STEPBASE_FAILPOINT_LOG=str(hits)
            )
            await stack.restart("gateway")
            # Its next life is a long one.
            gateway.set_environment(STEPBASE_FAILPOINTS="")
            [event_id] = await client.send({"name": f"order/{kind}", "data": {}})
            run = await client.result(event_id)
            assert run["status"] == "Completed", run
            outputs.append(run["output"])

    rows = await connection.fetch("select id, note from public.orders order by id")
    entries = await connection.fetchval("select count(*) from stepbase.ledger")
    await connection.close()
    assert [tuple(row) for row in rows] == [(1, "async"), (2, "sync")]
    assert (outputs, entries) == ([1, 2], 2)
    assert await asyncio.to_thread(hits.read_text) == "rpc.after_commit\n" * 2

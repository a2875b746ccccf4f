"""Runs of the real engine whose calls go through a front door, while the host behind it comes and goes."""

import asyncio
import socket
import textwrap
from pathlib import Path

import aiohttp
import pytest
from tests.support.edge import running_edge
from tests.support.engine_client import EngineClient

from stepbase.hosts import front_door
from stepbase.local.stack import Plan, Stack

MAIN = """
from stepbase import App, Step, serve

app = App("greeting")

@app.function("greet", on="greeting/asked", retries=0)
async def greet(event, step: Step):
    first = await step.run("first", lambda: "hello")
    await step.sleep("a-moment", "1s")
    return await step.run("second", lambda: f"{first} {event.data['name']}")

main = serve(app)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.timeout(90)
async def test_a_host_that_is_away_behind_it_costs_no_attempt(
    database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "functions" / "greeting"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(textwrap.dedent(MAIN))
    port = free_port()
    index = front_door.write("greeting", tmp_path)
    origin = {"STEPBASE_ORIGIN_GREETING": f"http://127.0.0.1:{port}/greeting"}
    with running_edge(index, tmp_path, origin) as edge:
        served = {"INNGEST_SERVE_ORIGIN": edge.url, "INNGEST_SERVE_PATH": "/greeting/api/inngest"}
        plan = Plan(
            functions=folder.parent,
            database_url=database,
            project=tmp_path,
            host_port=port,
            environments={"host": served},
            engine_arguments=("--retry-interval", "0.1"),
            supervise=False,
        )
        async with Stack(plan) as stack, aiohttp.ClientSession() as session:
            client = EngineClient(session, stack.engine_url)
            await stack.pieces["host"].stop()
            [event_id] = await client.send({"name": "greeting/asked", "data": {"name": "you"}})
            # The run has been called for, in vain, with a function that has no retries.
            await asyncio.to_thread(edge.logged, 502)
            await stack.pieces["host"].start()
            run = await client.result(event_id)

        lines = edge.logged(206)
    assert (run["status"], run["output"]) == ("Completed", "hello you"), run
    assert {line["status"] for line in lines} == {502, 206}
    assert {line["function"] for line in lines} == {"greeting-greet"}
    assert {line["run"] for line in lines} == {run["run_id"]}

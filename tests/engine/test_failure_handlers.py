"""A failed run starts its on_failure handler through a real engine, with the typed event that began it."""

import asyncio
from collections.abc import AsyncIterator
from queue import Queue
from typing import Any

import pytest
from tests.engine.conftest import StartEngine, serving_app
from tests.support.engine_client import EngineClient

from stepbase import App, Event, EventData, FunctionFailed, NonRetriableError, Step, SyncStep

app = App("fails")


class Paid(EventData, name="order/paid"):
    order_id: int


class PaidSync(Paid, name="order/paid.sync"): ...


TOLD: Queue[list[Any]] = Queue()


def tell(failed: FunctionFailed[Paid]) -> None:
    is_typed = isinstance(failed.event.data, Paid)
    TOLD.put([failed.function_id, failed.run_id, failed.error.message, is_typed])


async def on_failure(event: Event[FunctionFailed[Paid]], step: Step) -> None:
    await step.run("note", tell, event.data)


def on_failure_sync(event: Event[FunctionFailed[Paid]], step: SyncStep) -> None:
    step.run("note", tell, event.data)


def refuse() -> None:
    raise NonRetriableError("card declined")


@app.function("async", on=Paid, on_failure=on_failure)
async def handler(event: Event[Paid], step: Step) -> None:
    await step.run("charge", refuse)


@app.function("sync", on=PaidSync, on_failure=on_failure_sync)
def sync_handler(event: Event[PaidSync], step: SyncStep) -> None:
    step.run("charge", refuse)


@pytest.fixture
async def engine(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineClient]:
    """An engine that has synced the app above."""
    async with serving_app(app, start_engine, monkeypatch) as client:
        yield client


@pytest.mark.parametrize(
    ("slug", "name"), [("fails-async", "order/paid"), ("fails-sync", "order/paid.sync")]
)
async def test_the_handler_is_told_what_failed(engine: EngineClient, slug: str, name: str) -> None:
    for data, message, is_typed in (
        ({"order_id": 7}, "card declined", True),
        ({"order_id": "x"}, "does not fit", False),
    ):
        [event_id] = await engine.send({"name": name, "data": data})
        failed = await engine.result(event_id)
        heard = await asyncio.to_thread(TOLD.get, timeout=20)

        assert failed["status"] == "Failed"
        assert heard[:2] == [slug, failed["run_id"]]
        assert message in heard[2]
        assert heard[3] is is_typed

"""Batched functions get all their events, in order and typed."""

from tests.cases.conftest import Drive
from tests.support.sdk_calls import event

from stepbase import App, Batch, Event, EventData, Step, SyncStep

app = App("case")


class Seen(EventData, name="page/seen"):
    page: int


@app.function("async", on=Seen, batch=Batch(10, "5s"))
async def handler(events: list[Event[Seen]], step: Step) -> int:
    return await step.run("sum", lambda: sum(each.data.page for each in events))


@app.function("sync", on=Seen, batch=Batch(10, "5s"))
def sync_handler(events: list[Event[Seen]], step: SyncStep) -> int:
    return step.run("sum", lambda: sum(each.data.page for each in events))


async def test_every_event_of_the_batch_arrives(drive: Drive) -> None:
    batch = [event(name="page/seen", id=str(i), data={"page": i}) for i in range(3)]

    run = await drive(batch[0], events=batch)

    assert run.output == 3

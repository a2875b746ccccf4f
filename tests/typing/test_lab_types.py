"""Typed examples of the testing kit: mypy checks the types, the test that they are true."""

from typing import Any, assert_type

from pydantic import BaseModel

from stepbase import App, Event, EventData
from stepbase.testing import Lab, Run, SyncLab

app = App("typed")


class Paid(EventData, name="order/paid"):
    order_id: int


class Receipt(BaseModel):
    number: int


@app.function("make-receipt", on=Paid)
async def make_receipt(event: Event[Paid]) -> Receipt:
    return Receipt(number=event.data.order_id)


async def test_runs_are_typed_by_their_functions() -> None:
    async with Lab(app) as lab:
        run = await lab.start(make_receipt, Paid(order_id=7))
        assert_type(run, Run[Receipt])
        assert_type(run.result, Receipt)
        assert_type(await lab.finish(run), Run[Receipt])
        assert_type(await lab.start("make-receipt", Paid(order_id=7)), Run[Any])
        assert_type(await lab.send(Paid(order_id=7)), list[Run[Any]])
        assert [each.result.number for each in lab.runs_of(make_receipt)] == [7, 7, 7]


def test_runs_of_a_sync_lab_too() -> None:
    with SyncLab(app) as lab:
        assert_type(lab.start(make_receipt, {"order_id": 7}).result, Receipt)

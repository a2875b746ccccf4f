"""Typed examples: mypy checks the types, the tests only that the code can run."""

from datetime import timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from stepbase import App, Event, EventData, Function, RpcCall, Step, SyncStep

app = App("typed")


class Paid(EventData, name="order/paid"):
    order_id: int


class Receipt(BaseModel):
    number: int


async def fetch(number: int, *, note: str = "") -> Receipt:
    return Receipt(number=number)


def compute(number: int) -> list[int]:
    return [number]


def get_balance(*, p_user: str) -> RpcCall[int]:
    return RpcCall("get_balance", {"p_user": p_user}, int)


@app.function("async", on=Paid)
async def handler(event: Event[Paid], step: Step) -> Receipt:
    assert_type(event.data, Paid)
    assert_type(event.data.order_id, int)
    assert_type(await step.run("a", fetch, 1, note="x"), Receipt)
    assert_type(await step.run("b", compute, 1), list[int])
    assert_type(await step.run("c", lambda: "text"), str)
    assert_type(await step.run("d", compute, 1, returns=Receipt), Receipt)
    assert_type(await step.rpc(get_balance(p_user="u"), key="k"), int)
    assert_type(await step.rpc("get_balance", {"p_user": "u"}, returns=Receipt), Receipt)
    assert_type(await step.rpc("get_balance"), Any)
    assert_type(await step.table("t", "receipts").insert({"number": 1}), list[dict[str, Any]])
    assert_type(
        await step.table("t", "receipts", returns=list[Receipt]).update({"number": 2}, number=1),
        list[Receipt],
    )
    wanted = step.table("t", "receipts", key="k", returns=list[Receipt])
    assert_type(await wanted.upsert(Receipt(number=1), on_conflict="number"), list[Receipt])
    await step.table("t", "receipts", returns=None).delete(number__in=[1, 2])
    assert_type(await step.send_event("e", Paid(order_id=1)), list[str])
    assert_type(step.idempotency_key("k"), str)
    await step.sleep("f", timedelta(hours=1))
    return await step.run("g", fetch, 1)


@app.function("sync", on=Paid)
def sync_handler(event: Event[Paid], step: SyncStep) -> int:
    assert_type(step.run("a", fetch, 1), Receipt)
    assert_type(step.run("b", compute, 1), list[int])
    assert_type(step.run("d", compute, 1, returns=Receipt), Receipt)
    assert_type(step.rpc(get_balance(p_user="u")), int)
    assert_type(step.table("t", "receipts").delete(number=1), list[dict[str, Any]])
    assert_type(
        step.table("t", "receipts", returns=list[Receipt]).insert([Receipt(number=1)]),
        list[Receipt],
    )
    step.table("t", "receipts", returns=None).update({"number": 2}, number__is_null=True)
    assert_type(step.send_event("e", [Event("a", {"n": 1})]), list[str])
    assert_type(step.patch("p"), bool)
    step.sleep_until("f", event.ts + timedelta(days=1))
    return 1


assert_type(handler, Function[Receipt])
assert_type(sync_handler, Function[int])


def test_the_examples_define_functions() -> None:
    assert set(app.functions) == {"typed-async", "typed-sync"}

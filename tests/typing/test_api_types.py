"""Typed examples: mypy and pyright check the types, the tests only that the code can run."""

from datetime import timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from stepbase import App, Event, EventData, Function, RpcCall, Step, SyncStep
from stepbase.sdk.chat import ChatCompletion
from stepbase.sdk.fetched import FetchResponse
from stepbase.sdk.verbs_wait import Signal

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


@app.function("make-receipt", on=Paid)
async def make_receipt(event: Event[Paid]) -> Receipt:
    return Receipt(number=event.data.order_id)


@app.function("count", on=Paid)
def count(event: Event[Paid]) -> int:
    return event.data.order_id


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
    await step.send_event("e", [Paid(order_id=1), Event("a", {"n": 1}), {"name": "a", "data": {}}])
    await step.send_event("e", 7)  # type: ignore[arg-type]  # no event
    assert_type(step.idempotency_key("k"), str)
    assert_type(await step.wait_for_event("w", Paid, timeout="1h"), Event[Paid] | None)
    named = await step.wait_for_event("w", "a/b", if_="async.data.n > 1", timeout="1h")
    assert_type(named, Event[dict[str, Any]] | None)
    assert_type(await step.invoke("i", make_receipt, Paid(order_id=1)), Receipt)
    assert_type(await step.invoke("i", count, {"order_id": 1}, timeout="1h"), int)
    assert_type(await step.invoke("i", "app-f", returns=Receipt), Receipt)
    assert_type(await step.invoke("i", "app-f"), Any)
    assert_type(await step.wait_for_signal("s", "go", timeout="1h"), Signal[Any] | None)
    typed = await step.wait_for_signal("s", "go", timeout="1h", returns=Receipt)
    assert_type(typed, Signal[Receipt] | None)
    assert_type(await step.send_signal("s", "go", {"n": 1}), str | None)
    answer = await step.fetch("h", "https://a.example", method="POST", json={"n": 1})
    assert_type(answer, FetchResponse)
    assert_type(answer.json(Receipt), Receipt)
    assert_type(answer.json(), Any)
    said = await step.ai.openai("a", model="m", messages=[{"role": "user", "content": "hi"}])
    assert_type(said, ChatCompletion)
    assert_type(said["choices"][0]["message"]["content"], str | None)
    url = "https://a.example"
    raw = await step.ai.infer("a", format="gemini", url=url, auth_key="k", body={})
    assert_type(raw, Any)
    read = await step.ai.infer(
        "a", format="gemini", url=url, auth_key="k", body={}, returns=Receipt
    )
    assert_type(read, Receipt)
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
    assert_type(step.wait_for_event("w", Paid, timeout="1h"), Event[Paid] | None)
    assert_type(step.wait_for_event("w", "a/b", timeout="1h"), Event[dict[str, Any]] | None)
    assert_type(step.invoke("i", make_receipt, Paid(order_id=1)), Receipt)
    assert_type(step.invoke("i", "app-f", returns=Receipt), Receipt)
    assert_type(step.invoke("i", "app-f"), Any)
    signal = step.wait_for_signal("s", "go", timeout="1h", returns=Receipt)
    assert_type(signal, Signal[Receipt] | None)
    assert_type(step.send_signal("s", "go"), str | None)
    assert_type(step.fetch("h", "https://a.example"), FetchResponse)
    url = "https://a.example"
    read = step.ai.infer("a", format="gemini", url=url, auth_key="k", body={}, returns=Receipt)
    assert_type(read, Receipt)
    said = step.ai.openai("a", model="m", messages=[{"role": "user", "content": "hi"}])
    assert_type(said["model"], str)
    step.sleep_until("f", event.ts + timedelta(days=1))
    return 1


assert_type(handler, Function[Receipt])
assert_type(sync_handler, Function[int])


def test_the_examples_define_functions() -> None:
    assert set(app.functions) == {
        "typed-async", "typed-count", "typed-make-receipt", "typed-sync",
    }  # fmt: skip

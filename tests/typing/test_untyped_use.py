"""Whoever annotates nothing gets no type errors: checked by pyright, and by mypy without strictness."""

import asyncio

from stepbase import App, CancelOn, Concurrency, Cron, Event, StepError

app = App("untyped")


async def failed(event, step):
    await step.run("note", print, event.data.error.message)


@app.function(
    "async",
    on=["order/paid", Cron("0 9 * * *")],
    concurrency=Concurrency(5, key="event.data.user"),
    cancel_on=CancelOn("order/refunded", match="data.order_id"),
    on_failure=failed,
)
async def handler(event, step, ctx):
    order = event.data["order_id"]
    try:
        total = await step.run("total", lambda: order * 2)
    except StepError as error:
        return error.message
    await step.sleep("a-while", "1h")
    a, b = await asyncio.gather(step.run("a", len, "x"), step.run("b", len, "y"))
    winner = await step.race(step.run("c", len, "x"), step.run("d", str, 1))
    ids = await step.send_event("tell", {"name": "order/done", "data": {"order_id": order}})
    row = await step.rpc("get_row", {"p_id": order})
    ctx.logger.info("done")
    return {"total": total + a + b, "ids": ids, "row": row["id"], "winner": winner}


@app.function("sync", on="order/paid")
def sync_handler(event, step):
    total = step.run("total", lambda: event.data["cents"] * 2)
    step.sleep("a-while", "1h")
    return total + 1


def send():
    return app.send_sync([Event("order/paid", {"order_id": 1}), {"name": "order/seen"}])


def test_the_examples_define_functions():
    assert set(app.functions) == {"untyped-async", "untyped-sync"}

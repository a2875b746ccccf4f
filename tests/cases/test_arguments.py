"""Handlers get what they name: event, events, step, ctx."""

from tests.cases.conftest import Call
from tests.support.sdk_calls import RUN_ID, call_body, event

from stepbase import App, Context, Event

app = App("case")


def describe(
    event: Event[dict[str, int]], events: list[Event[object]], ctx: Context
) -> list[object]:
    ids = [event.id, [each.id for each in events]]
    context = [ctx.run_id, ctx.attempt, ctx.max_attempts, ctx.app.id, ctx.function.slug]
    return [event.name, event.data, *ids, *context]


@app.function("async", on="case/start")
async def handler(
    ctx: Context, events: list[Event[object]], event: Event[dict[str, int]], other: int = 1
) -> list[object]:
    return describe(event, events, ctx)


@app.function("sync", on="case/start")
def sync_handler(
    ctx: Context, events: list[Event[object]], *, event: Event[dict[str, int]], other: int = 1
) -> list[object]:
    return describe(event, events, ctx)


async def test_arguments_are_given_by_name(call: Call, kind: str) -> None:
    reply = await call(call_body(event(data={"n": 1}), attempt=2, max_attempts=5))

    shown = event()
    assert reply.body == [
        shown["name"],
        {"n": 1},
        shown["id"],
        [shown["id"]],
        RUN_ID,
        2,
        5,
        "case",
        f"case-{kind}",
    ]

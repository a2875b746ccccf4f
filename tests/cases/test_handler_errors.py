"""An error in the handler itself is tried again; values of ours keep odd characters out of the record."""

from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Context, Event

app = App("case")
Data = Event[dict[str, str]]


def fail(ctx: Context, event: Data) -> str:
    if ctx.attempt < 1:
        raise RuntimeError(event.data.get("message", "fnboom"))
    return f"ok at attempt {ctx.attempt}"


@app.function("async", on="case/start")
async def handler(event: Data, ctx: Context) -> str:
    return fail(ctx, event)


@app.function("sync", on="case/start")
def sync_handler(event: Data, ctx: Context) -> str:
    return fail(ctx, event)


async def test_the_handler_is_tried_again(drive: Drive) -> None:
    run = await drive()

    assert [reply.status for reply in run.replies] == [500, 200]
    assert run.output == "ok at attempt 1"


async def test_the_error_is_described(call: Call) -> None:
    reply = await call(call_body())

    assert (reply.body["code"], reply.body["name"]) == ("unknown", "RuntimeError")
    assert reply.body["message"] == "fnboom"
    assert "in fail" in reply.body["stack"]
    assert "cause" not in reply.body
    assert "x-inngest-no-retry" not in reply.headers


async def test_characters_no_database_takes_are_written_out(call: Call) -> None:
    reply = await call(call_body(event(data={"message": "a\x00b\ud800c"})))

    assert reply.body["message"] == "a\\x00b\\ud800c"

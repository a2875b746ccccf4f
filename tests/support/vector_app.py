"""The functions of the recorded app, written for stepbase (`tests/vectors`).

Functions whose steps stepbase does not have yet are only declared: their registration is compared,
their calls are not.
"""

from datetime import timedelta
from typing import Any

from stepbase import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Context,
    Cron,
    Debounce,
    Event,
    FunctionFailed,
    NonRetriableError,
    Priority,
    RateLimit,
    RetryAfterError,
    Singleton,
    Step,
    StepError,
    SyncStep,
    Throttle,
    Timeouts,
)
from stepbase.sdk.trigger import EventTrigger

Data = Event[dict[str, Any]]

ONLY_DECLARED = (
    "parallel parallelmixed parallelrace invokefail slow multi bench3 bench3sync".split()
)
DECLARED_WITHOUT_RETRIES = ["aiinfer", "childfail"]
DEFAULT_RETRIES = 4
"""What the server assumes for functions that do not say; ours always do."""


def build(app_id: str) -> App:
    """Return the recorded app under the id it had ("cap" in dev mode, "prodapp" with keys)."""
    app = App(app_id, checkpointing=False)
    _steps(app)
    _failing_steps(app)
    _failing_functions(app)
    _final_errors(app)
    _options(app)
    _waits_and_invokes(app)
    _declarations(app)
    return app


REQUESTED = {
    "gateway": [200, "1", {"target": True}],
    "aigateway": ["hello", 3],
    "aigateway-500": ["AIGatewayError", "Error making AI request: unsuccessful status code: 500"],
}
"""What the functions of `build_requests` return."""


def build_requests() -> App:
    """Return the functions of `stub-sdk-odd-replies.json` that let the server make requests."""
    app = App("stub")
    origin = "http://127.0.0.1:19200"

    @app.function("gateway")
    async def gateway(step: Step) -> Any:
        answer = await step.fetch(
            "g", f"{origin}/target", method="POST", headers={"X-A": "b"}, body='{"q":1}'
        )
        return [answer.status, answer.headers["x-t"], answer.json()]

    @app.function("aigateway")
    async def aigateway(step: Step) -> Any:
        answer = await step.ai.openai(
            "ai",
            model="gpt-test",
            messages=[{"role": "user", "content": "hi"}],
            auth_key="sk-test",
            base_url=f"{origin}/v1",
            headers={"x-extra": "1"},
        )
        return [answer["choices"][0]["message"]["content"], answer["usage"]["total_tokens"]]

    @app.function("aigateway-500")
    def failing(step: SyncStep) -> Any:
        try:
            return step.ai.infer(
                "ai",
                format="openai-chat",
                url=f"{origin}/fail",
                auth_key="",
                body={"model": "gpt-test"},
            )
        except StepError as error:
            return [error.name, error.message]

    return app


def _steps(app: App) -> None:
    @app.function("demo", on="cap/demo", retries=DEFAULT_RETRIES)
    async def demo(event: Data, step: Step, ctx: Context) -> Any:
        first = await step.run("first", lambda: {"n": 1, "from": event.data["x"]})
        second = await step.run("second", lambda: "two")
        await step.sleep("nap", "2s")
        found = await step.wait_for_event(
            "await-approve", "cap/approve", match="data.x", timeout="1m"
        )
        return {"r1": first, "r2": second, "ev": found and found.name, "run": ctx.run_id}

    @app.function("nostep", on="cap/nostep", retries=DEFAULT_RETRIES)
    async def nostep(ctx: Context) -> Any:
        return {"hello": "world", "attempt": ctx.attempt}

    @app.function("returnnone", on="cap/returnnone", retries=DEFAULT_RETRIES)
    async def returnnone() -> None:
        return None

    @app.function("stepnone", on="cap/stepnone", retries=DEFAULT_RETRIES)
    async def stepnone(step: Step) -> Any:
        return [
            await step.run("none", lambda: None),
            await step.run("str", lambda: "plain string"),
            await step.run("num", lambda: 42),
        ]

    @app.function("repeat", on="cap/repeat", retries=DEFAULT_RETRIES)
    async def repeat(step: Step) -> Any:
        return [await step.run("same", lambda i: i, i) for i in range(3)]

    @app.function("sendevent", on="cap/sendevent", retries=DEFAULT_RETRIES)
    async def sendevent(step: Step) -> Any:
        events = [Event("cap/emitted", {"a": 1}), Event("cap/emitted2", {"a": 2})]
        return {"ids": await step.send_event("emit", events)}

    @app.function("sleepuntil", on="cap/sleepuntil", retries=DEFAULT_RETRIES)
    async def sleepuntil(event: Data, step: Step) -> Any:
        await step.sleep_until("until", event.ts + timedelta(seconds=2))
        return "woke"

    @app.function("big", on="cap/big", retries=DEFAULT_RETRIES)
    async def big(event: Data, step: Step) -> Any:
        total = 0
        for i in range(event.data["n"]):
            total += len(await step.run(f"big{i}", lambda: "x" * event.data["size"]))
        return total


def _failing_steps(app: App) -> None:
    @app.function("steperr", on="cap/steperr", retries=2)
    async def steperr(step: Step, ctx: Context) -> Any:
        async def flaky() -> str:
            if ctx.attempt < 1:
                raise ValueError(f"boom attempt {ctx.attempt}")
            return f"ok at attempt {ctx.attempt}"

        return await step.run("flaky", flaky)

    async def always() -> None:
        raise ValueError("always")

    @app.function("stepexhaust", on="cap/stepexhaust", retries=1)
    async def stepexhaust(step: Step) -> Any:
        try:
            await step.run("bad", always)
        except StepError as error:
            done = await step.run("compensate", lambda: "compensated")
            return {"caught": error.message, "name": error.name, "c": done}

    @app.function("stepexhaustuncaught", on="cap/stepexhaustuncaught", retries=1)
    async def stepexhaustuncaught(step: Step) -> Any:
        await step.run("bad", always)


def _failing_functions(app: App) -> None:
    @app.function("fnerr", on="cap/fnerr", retries=2)
    async def fnerr(ctx: Context) -> Any:
        if ctx.attempt < 1:
            raise RuntimeError(f"fn boom {ctx.attempt}")
        return {"attempt": ctx.attempt}

    @app.function("fnexhaust", on="cap/fnexhaust", retries=1)
    async def fnexhaust() -> None:
        raise RuntimeError("fn always fails")

    async def on_failure(event: Event[FunctionFailed[Any]]) -> Any:
        # What servers add for themselves is not shown.
        keys = sorted({"_inngest", *event.data.raw})
        return {"on_failure_event": event.name, "keys": keys}

    @app.function("onfailure", on="cap/onfailure", retries=0, on_failure=on_failure)
    async def onfailure() -> None:
        raise ValueError("goes to on_failure")


def _final_errors(app: App) -> None:
    @app.function("fnnonretriable", on="cap/fnnonretriable", retries=3)
    async def fnnonretriable() -> None:
        raise NonRetriableError("no more please")

    @app.function("stepnonretriable", on="cap/stepnonretriable", retries=3)
    async def stepnonretriable(step: Step) -> None:
        async def bad() -> None:
            raise NonRetriableError("step no more")

        await step.run("bad", bad)

    @app.function("retryafter", on="cap/retryafter", retries=2)
    async def retryafter(step: Step, ctx: Context) -> Any:
        async def f() -> str:
            if ctx.attempt < 1:
                raise RetryAfterError("come back", 3)
            return "done"

        return await step.run("f", f)


def _options(app: App) -> None:
    @app.function(
        "cancelme",
        on="cap/cancelme",
        retries=DEFAULT_RETRIES,
        cancel_on=CancelOn("cap/cancel", match="data.id", timeout="1h"),
    )
    async def cancelme(step: Step) -> None:
        await step.sleep("long", "30s")

    @app.function(
        "batch", on="cap/batch", retries=DEFAULT_RETRIES, batch=Batch(3, "2s", key="event.data.k")
    )
    async def batch(events: list[Data], step: Step) -> Any:
        return await step.run("f", lambda: [event.data for event in events])

    @app.function(
        "debounce",
        on="cap/debounce",
        retries=DEFAULT_RETRIES,
        debounce=Debounce("2s", key="event.data.k", timeout="10s"),
    )
    async def debounce(event: Data) -> Any:
        return {"n": event.data["n"]}

    @app.function(
        "conf",
        on="cap/conf",
        name="Everything configured",
        retries=5,
        concurrency=[
            Concurrency(2, key="event.data.user", scope="fn"),
            Concurrency(5, key="'x'", scope="env"),
        ],
        idempotency="event.data.id",
        priority=Priority("event.data.p > 1 ? 100 : 0"),
        throttle=Throttle(10, timedelta(seconds=5), burst=2, key="event.data.user"),
        timeouts=Timeouts(start="60s", finish=timedelta(minutes=5)),
    )
    async def conf() -> str:
        return "conf"

    @app.function(
        "ratelimited",
        on="cap/ratelimited",
        retries=DEFAULT_RETRIES,
        rate_limit=RateLimit(1, "10s", key="event.data.k"),
    )
    async def ratelimited() -> str:
        return "rl"

    @app.function(
        "singleton",
        on="cap/singleton",
        retries=DEFAULT_RETRIES,
        singleton=Singleton(key="event.data.k", mode="skip"),
    )
    async def singleton() -> None:
        return None

    @app.function("cron", on=Cron("* * * * *"), retries=DEFAULT_RETRIES)
    async def cron(event: Data) -> Any:
        return {"ev": event.name, "data": event.data}


def _waits_and_invokes(app: App) -> None:
    @app.function("waittimeout", on="cap/waittimeout", retries=DEFAULT_RETRIES)
    async def waittimeout(step: Step) -> Any:
        found = await step.wait_for_event("w", "cap/never", timeout="2s")
        return {"timed_out": found is None}

    @app.function("child", on="cap/child", retries=DEFAULT_RETRIES)
    async def child(event: Data, step: Step) -> Any:
        return await step.run("c", lambda: {"got": event.data})

    @app.function("invoke", on="cap/invoke", retries=DEFAULT_RETRIES)
    async def invoke(step: Step) -> Any:
        return {"child": await step.invoke("call-child", child, {"k": "v"})}

    @app.function("invokemissing", on="cap/invokemissing", retries=0)
    async def invokemissing(step: Step) -> Any:
        return await step.invoke("call-missing", "nope-nothere")

    @app.function("invoketimeout", on="cap/invoketimeout", retries=0)
    async def invoketimeout(step: Step) -> Any:
        try:
            return await step.invoke("call-slow", f"{app.id}-slow", timeout="2s")
        except StepError as error:
            return {"caught": error.message, "name": error.name}


def _declarations(app: App) -> None:
    async def declared() -> None:
        return None

    for name in ONLY_DECLARED:
        on: Any = f"cap/{name}"
        if name == "multi":
            on = ["cap/multi.a", EventTrigger("cap/multi.b", "event.data.n > 10")]
        app.function(name, on=on, retries=DEFAULT_RETRIES)(declared)
    for name in DECLARED_WITHOUT_RETRIES:
        app.function(name, on=f"cap/{name}", retries=0)(declared)
    app.function("parallelerr", on="cap/parallelerr", retries=1)(declared)

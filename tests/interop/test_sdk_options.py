"""Every option registers as the official packages register it (`typescript/options.mjs`)."""

import re
from datetime import timedelta
from typing import Any

import inngest
import pytest
import pytest_asyncio
from tests.interop.differences import SDKS, Sdk
from tests.interop.features import differing_documents
from tests.support import peers
from tests.support.fake_api import FakeApi
from tests.support.typescript import TypeScript

import stepbase
from stepbase import (
    Batch,
    CancelOn,
    Concurrency,
    Cron,
    Debounce,
    EventData,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from stepbase.sdk import http


class Paid(EventData, name="order/paid"):
    order_id: int


class Refunded(EventData, name="order/refunded"):
    order_id: int


EVENT = inngest.TriggerEvent(event="order/paid")
HOUR = timedelta(hours=1)

OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "retries": ({"retries": 7}, {"retries": 7}),
    "no retries": ({"retries": 0}, {"retries": 0}),
    "name": ({"name": "For people"}, {"name": "For people"}),
    "concurrency number": ({"concurrency": 5}, {"concurrency": [inngest.Concurrency(limit=5)]}),
    "concurrency two": (
        {
            "concurrency": [
                Concurrency(5, key="event.data.a"),
                Concurrency(9, key="'x'", scope="account"),
            ]
        },
        {
            "concurrency": [
                inngest.Concurrency(limit=5, key="event.data.a"),
                inngest.Concurrency(limit=9, key="'x'", scope="account"),
            ]
        },
    ),
    "throttle": (
        {"throttle": Throttle(3, "90s")},
        {"throttle": inngest.Throttle(limit=3, period=timedelta(seconds=90))},
    ),
    "throttle, all": (
        {"throttle": Throttle(3, "1d", burst=4, key="event.data.a")},
        {
            "throttle": inngest.Throttle(
                limit=3, period=timedelta(days=1), burst=4, key="event.data.a"
            )
        },
    ),
    "rate limit": (
        {"rate_limit": RateLimit(3, "2h30m", key="event.data.a")},
        {"rate_limit": inngest.RateLimit(limit=3, period=2.5 * HOUR, key="event.data.a")},
    ),
    "debounce": (
        {"debounce": Debounce("7d", key="event.data.a", timeout="2w")},
        {
            "debounce": inngest.Debounce(
                period=timedelta(days=7), key="event.data.a", timeout=timedelta(days=14)
            )
        },
    ),
    "priority": (
        {"priority": Priority("event.data.a ? 10 : 0")},
        {"priority": inngest.Priority(run="event.data.a ? 10 : 0")},
    ),
    "batch": (
        {"batch": Batch(10, "60s", key="event.data.a", if_="event.data.b")},
        {
            "batch_events": inngest.Batch(
                max_size=10,
                timeout=timedelta(seconds=60),
                key="event.data.a",
                if_exp="event.data.b",
            )
        },
    ),
    "idempotency": ({"idempotency": "event.data.a"}, {"idempotency": "event.data.a"}),
    "singleton": ({"singleton": Singleton()}, {"singleton": inngest.Singleton(mode="skip")}),
    "singleton, all": (
        {"singleton": Singleton(key="event.data.a", mode="cancel")},
        {"singleton": inngest.Singleton(key="event.data.a", mode="cancel")},
    ),
    "cancel on": (
        {"cancel_on": CancelOn("order/refunded")},
        {"cancel": [inngest.Cancel(event="order/refunded")]},
    ),
    "cancel on, match": (
        {"cancel_on": [CancelOn(Refunded, match="data.order_id", timeout="1h")]},
        {
            "cancel": [
                inngest.Cancel(
                    event="order/refunded",
                    if_exp="event.data.order_id == async.data.order_id",
                    timeout=HOUR,
                )
            ]
        },
    ),
    "cancel on, if": (
        {"cancel_on": CancelOn(Refunded, if_="async.data.order_id == 1")},
        {"cancel": [inngest.Cancel(event="order/refunded", if_exp="async.data.order_id == 1")]},
    ),
    "timeouts": (
        {"timeouts": Timeouts(start="10s", finish=HOUR)},
        {"timeouts": inngest.Timeouts(start=timedelta(seconds=10), finish=HOUR)},
    ),
    "everything at once": (
        {
            "concurrency": Concurrency(2, key="event.data.a", scope="env"),
            "throttle": Throttle(1, "1s"),
            "priority": Priority("1"),
            "timeouts": Timeouts(finish="90m"),
            "cancel_on": [CancelOn(f"order/{i}") for i in range(5)],
        },
        {
            "concurrency": [inngest.Concurrency(limit=2, key="event.data.a", scope="env")],
            "throttle": inngest.Throttle(limit=1, period=timedelta(seconds=1)),
            "priority": inngest.Priority(run="1"),
            "timeouts": inngest.Timeouts(finish=1.5 * HOUR),
            "cancel": [inngest.Cancel(event=f"order/{i}") for i in range(5)],
        },
    ),
    "event with expression": (
        {"on": Paid.where("event.data.order_id > 1")},
        {"trigger": inngest.TriggerEvent(event="order/paid", expression="event.data.order_id > 1")},
    ),
    "cron": (
        {"on": Cron("0 9 * * 1-5", tz="Asia/Bangkok", jitter="30s")},
        {"trigger": inngest.TriggerCron(cron="TZ=Asia/Bangkok 0 9 * * 1-5", jitter="30s")},
    ),
    "several triggers": (
        {"on": [Paid, "user/*", Cron("0 12 * * *")]},
        {
            "trigger": [
                EVENT,
                inngest.TriggerEvent(event="user/*"),
                inngest.TriggerCron(cron="0 12 * * *"),
            ]
        },
    ),
}

# Python's package has no limits of runs.
OF_RUNS: dict[str, dict[str, Any]] = {
    "limit of runs": {"concurrency": Concurrency(1, key="event.data.a", of="runs")},
    "limits of runs and steps": {
        "concurrency": [
            Concurrency(3, of="runs"),
            Concurrency(5, key="event.data.a"),
            Concurrency(9),
        ]
    },
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


def function_id(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def our_app() -> stepbase.App:
    app = stepbase.App(peers.APP)

    async def on_failure() -> None: ...

    for name, mine in {**{name: ours for name, (ours, _) in OPTIONS.items()}, **OF_RUNS}.items():

        async def f() -> None: ...

        options: dict[str, Any] = {"on": Paid, "on_failure": on_failure, **mine}
        app.function(function_id(name), **options)(f)
    return app


def their_functions(client: inngest.Inngest) -> list[Any]:
    async def on_failure(ctx: inngest.Context) -> None: ...

    functions = []
    for name, (_, other) in OPTIONS.items():

        async def f(ctx: inngest.Context) -> None: ...

        options: dict[str, Any] = {
            "trigger": EVENT,
            "retries": 3,
            "on_failure": on_failure,
            **other,
        }
        functions.append(client.create_function(fn_id=function_id(name), **options)(f))
    return functions


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registered(
    running_api: FakeApi, typescript_apps: TypeScript
) -> dict[str, dict[str, Any]]:
    """What each SDK sends for all functions, by the function's slug; ours is "stepbase"."""
    running_api.answer = lambda _: (200, {"ok": True})
    running_api.received.clear()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("INNGEST_DEV", running_api.url)
        built = peers.build(
            is_dev=True, origin=running_api.url, app=our_app(), functions=their_functions
        )
        body = b'{"url":"http://testserver/api/inngest"}'
        for ask in (built.ours, built.theirs, typescript_apps.asks("options")):
            await ask("PUT", body=body)
    await http.aclose()
    await built.client._http_client._http_client.aclose()
    built.client._http_client._http_client_sync.close()
    found = [{each["id"]: each for each in sent.body["functions"]} for sent in running_api.received]
    return dict(zip(("stepbase", *SDKS), found, strict=True))


@pytest.mark.parametrize("name", OF_RUNS)
async def test_a_limit_of_runs_registers_as_typescript_sends_it(
    registered: dict[str, dict[str, Any]], name: str
) -> None:
    slug = f"{peers.APP}-{function_id(name)}"

    mine, other = (registered[sdk][slug]["concurrency"] for sdk in ("stepbase", "typescript"))

    assert mine == other
    assert set(mine) <= {"fn", "step"}


@pytest.mark.parametrize("name", OPTIONS)
async def test_an_option_registers_alike(
    registered: dict[str, dict[str, Any]], sdk: Sdk, name: str
) -> None:
    slug = f"{peers.APP}-{function_id(name)}"

    for shape, each in ((f"option {name}", slug), ("option on failure", f"{slug}-failure")):
        mine, other = registered["stepbase"][each], registered[sdk][each]
        shown = [{"function": without_empty_lists(function)} for function in (mine, other)]
        assert differing_documents(sdk, shape, *shown) == []


def without_empty_lists(function: dict[str, Any]) -> dict[str, Any]:
    # Python gives failure handlers empty lists, which say nothing.
    return {field: value for field, value in function.items() if value != []}

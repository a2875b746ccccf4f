"""Every option registers exactly as the official Python package registers it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import inngest
import pytest
from tests.support import peers
from tests.support.fake_api import FakeApi, fake_api

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


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with fake_api(lambda _: (200, {"ok": True})) as running:
        monkeypatch.setenv("INNGEST_DEV", running.url)
        yield running


@pytest.mark.parametrize("name", OPTIONS)
async def test_an_option_registers_alike(api: FakeApi, name: str) -> None:
    mine, other = OPTIONS[name]

    async def on_failure(ctx: inngest.Context) -> None: ...

    def functions(client: inngest.Inngest) -> list[Any]:
        options = {"trigger": EVENT, "retries": 3, "on_failure": on_failure, **other}

        @client.create_function(fn_id="f", **options)
        async def f(ctx: inngest.Context) -> None: ...

        return [f]

    async def our_on_failure() -> None: ...

    app = stepbase.App(peers.APP)

    @app.function("f", **{"on": Paid, "on_failure": our_on_failure, **mine})
    async def f() -> None: ...

    built = peers.build(is_dev=True, origin=api.url, app=app, functions=functions)
    await built.ours("PUT")
    await built.theirs("PUT")
    await http.aclose()
    await built.client._http_client._http_client.aclose()
    built.client._http_client._http_client_sync.close()

    sent, expected = [each.body["functions"] for each in api.received]
    for function in expected:
        # Theirs gives failure handlers empty lists, which say nothing.
        for field in [field for field, value in function.items() if value == []]:
            del function[field]
    assert sent == expected

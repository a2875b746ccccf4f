"""What is declared wrongly is refused where it is declared, with what is allowed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from pydantic import BaseModel

from stepbase import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Cron,
    Debounce,
    DefinitionError,
    EngineOptions,
    Event,
    EventData,
    Priority,
    RateLimit,
    Singleton,
    Step,
    SyncStep,
    Throttle,
    Timeouts,
)


class Item(BaseModel):
    sku: str


class Paid(EventData, name="order/paid"):
    order_id: int
    item: Item
    extra: dict[str, int] = {}


class Refunded(EventData, name="order/refunded"):
    order_id: int


class Shared(EventData):
    order_id: int


async def handler() -> None: ...


def refused(build: Callable[[], object]) -> str:
    with pytest.raises(DefinitionError) as caught:
        build()
    return str(caught.value)


@pytest.mark.parametrize("app_id", ["", "a b", "a/b", "ü", "-a", 7, None, "a" * 101])
def test_an_app_id_has_few_characters(app_id: Any) -> None:
    assert "an id is letters, digits" in refused(lambda: App(app_id))


VALUES: dict[str, tuple[Callable[[], object], str]] = {
    "concurrency 0": (lambda: Concurrency(0), "Concurrency(limit=…): expected a whole number, 1 or"),
    "concurrency text": (lambda: Concurrency("5"), "got '5'"),  # type: ignore[arg-type]  # wrong on purpose
    "concurrency bool": (lambda: Concurrency(True), "got True"),
    "concurrency scope": (lambda: Concurrency(1, scope="x"), '"fn", "env" or "account"'),  # type: ignore[arg-type]  # wrong on purpose
    "concurrency env without key": (lambda: Concurrency(1, scope="env"), "needs a key"),
    "concurrency of": (
        lambda: cast(Any, Concurrency)(1, of="calls"),
        '"steps" or "runs", got \'calls\'',
    ),
    "concurrency of runs, shared": (
        lambda: Concurrency(1, key="'a'", scope="env", of="runs"),
        "runs are limited in their function only",
    ),
    "concurrency key": (lambda: Concurrency(1, key=" "), "Concurrency(key=…): expected a CEL"),
    "throttle period": (lambda: Throttle(1, "8d"), "Throttle(period=…): expected 1s to 1w"),
    "throttle burst": (lambda: Throttle(1, "1m", burst=0), "Throttle(burst=…)"),
    "throttle duration": (lambda: Throttle(1, "soon"), "not a duration"),
    "throttle number": (lambda: Throttle(1, 5), "a duration is a timedelta or a string"),  # type: ignore[arg-type]  # wrong on purpose
    "rate limit period": (lambda: RateLimit(1, timedelta(hours=25)), "expected 1s to 1d"),
    "rate limit millis": (lambda: RateLimit(1, "1500ms"), "in whole seconds"),
    "debounce period": (lambda: Debounce("0s"), "Debounce(period=…): expected 1s to 1w"),
    "debounce timeout": (lambda: Debounce("5s", timeout="0s"), "Debounce(timeout=…)"),
    "priority": (lambda: Priority(""), "Priority(run=…): expected a CEL expression"),
    "batch size": (lambda: Batch(1, "5s"), "Batch(max_size=…): expected a whole number, 2 or more"),
    "batch timeout": (lambda: Batch(2, "11m"), "Batch(timeout=…): expected 1s to 10m"),
    "singleton mode": (lambda: Singleton(mode="wait"), 'expected "skip" or "cancel"'),  # type: ignore[arg-type]  # wrong on purpose
    "timeouts empty": (lambda: Timeouts(), "give start=, finish=, or both"),
    "timeouts zero": (lambda: Timeouts(start="0s"), "Timeouts(start=…): expected at least 1s"),
    "cancel event": (lambda: CancelOn(Shared), "expected an EventData class with a name"),
    "cancel both": (lambda: CancelOn("a", match="data.id", if_="true"), "match= or if_=, not both"),
    "cancel path": (lambda: CancelOn("a", match="id"), 'a path such as "data.source_id"'),
    "cancel path part": (lambda: CancelOn("a", match="data.a-b"), "expected a path"),
    "cancel field": (lambda: CancelOn(Refunded, match="data.id"), "Refunded, which has order_id"),
    "cancel nested field": (lambda: CancelOn(Paid, match="data.item.id"), "Item, which has sku"),
    "engine": (lambda: EngineOptions(retry_delay="2d"), "EngineOptions(retry_delay=…): expected 1s"),
    "cron fields": (lambda: Cron("* * * *"), "expected five fields"),
    "cron descriptor": (lambda: Cron("@daily"), "descriptors like @daily are not supported"),
    "cron characters": (lambda: Cron("* * * * $"), "expected five fields"),
    "cron zone": (lambda: Cron("* * * * *", tz="Nowhere/City"), "not a known time zone"),
    "cron jitter": (lambda: Cron("* * * * *", jitter="6m"), "Cron(jitter=…): expected 1s to 5m"),
    "where": (lambda: Paid.where(" "), "the expression is empty"),
    "where without name": (lambda: Shared.where("true"), "Shared has no event name"),
    "event without name": (lambda: Event(data={"a": 1}), "an Event needs a name"),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_wrong_value_is_refused(name: str) -> None:
    build, says = VALUES[name]

    assert says in refused(build)


def test_an_event_class_needs_a_usable_name() -> None:
    def define(name: Any) -> None:
        class Bad(EventData, name=name):
            pass

    for name in ("", " a", "a\x00", "a" * 256):
        with pytest.raises(DefinitionError, match="event name"):
            define(name)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"function_id": "a b"}, "@app.function(id): an id is letters"),
    "retries": ({"retries": 21}, "retries=… is a whole number from 0 to 20, got 21"),
    "retries below": ({"retries": -1}, "from 0 to 20, got -1"),
    "retries kind": ({"retries": True}, "from 0 to 20, got True"),
    "three limits": ({"concurrency": [Concurrency(1)] * 3}, "at most 2 concurrency limits, got 3"),
    "two limits of runs": (
        {"concurrency": [Concurrency(1, of="runs")] * 2},
        "at most 1 limit of runs, got 2",
    ),
    "six cancels": ({"cancel_on": [CancelOn("a")] * 6}, "at most 5 cancel_on events, got 6"),
    "kind of option": ({"throttle": 5}, "throttle=…: expected Throttle(…), got 5"),
    "kind in list": ({"cancel_on": ["a"]}, "cancel_on=…: expected CancelOn(…), got 'a'"),
    "idempotency": ({"idempotency": ""}, "idempotency=…: expected a CEL expression"),
    "idempotency and rate": (
        {"idempotency": "event.id", "rate_limit": RateLimit(1, "1h")},
        "give one of the two",
    ),
    "batch and cancel": (
        {"batch": Batch(2, "5s"), "cancel_on": CancelOn("a")},
        "batch and cancel_on exclude each other",
    ),
    "batch and debounce": (
        {"batch": Batch(2, "5s"), "debounce": Debounce("5s")},
        "batch and debounce exclude",
    ),
    "batch and cron": ({"batch": Batch(2, "5s"), "on": Cron("* * * * *")}, "cannot go with Cron"),
    "trigger": ({"on": 7}, "on=7: expected an EventData class with a name"),
    "trigger without name": ({"on": Shared}, "expected an EventData class with a name"),
    "trigger name": ({"on": "a" * 256}, "at most 255 characters"),
    "eleven triggers": ({"on": [f"a/{i}" for i in range(11)]}, "at most 10 triggers, got 11"),
    "twice": ({"on": [Paid, "order/paid"]}, "is given twice"),
    "match in trigger": (
        {"cancel_on": CancelOn("x", match="data.id")},
        "CancelOn(match=…): 'data.id' is not in Paid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_option_is_refused(name: str) -> None:
    options, says = OPTIONS[name]
    given = {"function_id": "f", "on": Paid, **options}

    message = refused(lambda: App("a").function(**given)(handler))

    assert says in message
    assert name == "id" or "=…" in message or 'function "f"' in message or "on=" in message


def test_a_path_below_a_dict_cannot_be_checked() -> None:
    assert CancelOn(Paid, match="data.extra.anything").wire()["if"] == (
        "event.data.extra.anything == async.data.extra.anything"
    )
    assert CancelOn(Paid, match="user.id").wire()["if"] == "event.user.id == async.user.id"


def test_an_id_is_used_once_in_an_app() -> None:
    app = App("a")
    app.function("f", on="x")(handler)

    assert 'app "a" already has a function "f"' in refused(
        lambda: app.function("f", on="y")(handler)
    )


def test_a_function_is_not_the_handler_of_another() -> None:
    function = App("a").function("f", on="x")(handler)

    said = refused(lambda: App("b").function("g", on="x")(function))
    assert 'function "g"' in said
    assert '"a-f"' in said
    assert "on=[…]" in said
    assert '"a-f"' in refused(lambda: App("b").function("g", on="x", on_failure=function)(handler))


def test_handlers_take_only_what_there_is() -> None:
    async def unknown(event: object, request: object) -> None: ...

    async def generator(event: object) -> Any:
        yield 1

    async def positional(event: object, /) -> None: ...

    async def sync_step(step: SyncStep) -> None: ...

    def async_step(step: Step) -> None: ...

    def unresolved(step: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821  # the point

    app = App("a")
    define = app.function("f", on="x")
    assert "takes 'request'" in refused(lambda: define(unknown))
    assert "cannot yield" in refused(lambda: define(generator))
    assert "takes 'event'" in refused(lambda: define(positional))
    assert "annotate it `step: Step`" in refused(lambda: define(sync_step))
    assert "annotate it `step: SyncStep`" in refused(lambda: define(async_step))
    assert "expected a function" in refused(lambda: define(7))  # type: ignore[call-overload]  # wrong on purpose
    assert define(unresolved).wants == ("step",)


def test_a_function_registers_what_it_declares() -> None:
    app = App("shop")

    @app.function("f", on=Paid, engine=EngineOptions(retry_delay="5s", look_back="1m"))
    async def f() -> None: ...

    (wire,) = f.wire("https://x/api")
    assert wire == {
        "id": "shop-f",
        "name": "f",
        "triggers": [{"event": "order/paid"}],
        "steps": {
            "step": {
                "id": "step",
                "name": "step",
                "retries": {"attempts": 3},
                "runtime": {"type": "http", "url": "https://x/api?fnId=shop-f&stepId=step"},
            }
        },
        "stepbase": {"retryDelay": "5s", "lookBack": "1m"},
    }
    assert app.functions == {"shop-f": f}
    assert app.find("shop-f") is f
    assert app.find("shop-f-failure") is None
    assert app.find("shop-g") is None


def test_a_function_without_triggers_is_for_invoking() -> None:
    function = App("a").function("f")(handler)

    assert function.wire("u")[0]["triggers"] == []


async def test_a_function_can_be_called_without_durability() -> None:
    @App("a").function("f", on=Paid)
    async def f(event: int) -> int:
        return event + 1

    assert await f(1) == 2

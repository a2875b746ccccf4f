"""The event classes a handler names must be those its triggers give."""

from collections.abc import Callable
from typing import Any, Optional, Union

import pytest

from stepbase import App, Batch, Cron, DefinitionError, Event, EventData, FunctionFailed, Step


class Order(EventData):
    order_id: int


class Paid(Order, name="order/paid"): ...


class Refunded(Order, name="order/refunded"): ...


class Shipped(EventData, name="order/shipped"): ...


def define(handler: Callable[..., Any], on: Any = Paid, **options: Any) -> None:
    App("a").function("f", on=on, **options)(handler)


def takes(annotation: Any, argument: str = "event") -> Callable[..., Any]:
    async def handler(event: Any) -> None: ...

    async def batch_handler(events: Any) -> None: ...

    chosen = handler if argument == "event" else batch_handler
    chosen.__annotations__[argument] = annotation
    return chosen


@pytest.mark.parametrize(
    ("annotation", "on"),
    [
        (Event[Paid], Paid),
        (Event[Paid], Paid.where("event.data.order_id > 1")),
        (Event[Paid | Refunded], [Paid, Refunded]),
        (Event[Paid] | Event[Refunded], [Paid, Refunded]),
        (Union[Event[Paid], Event[Refunded]], [Paid, Refunded]),  # noqa: UP007  # as older code writes it
        (Event[Optional[Paid]], Paid),  # noqa: UP045  # as older code writes it
        (Event[Paid | dict[str, Any]], [Paid, "other/event"]),
        (Event[Paid | dict[str, Any]], [Paid, Refunded]),
        (Event[Paid], [Paid, Cron("0 9 * * *")]),
        (Event[Order], [Paid, Refunded]),
        (Event[dict[str, Any]], Paid),
        (Event[Any], Paid),
        (Event, Paid),
        (Any, Paid),
        (None, Paid),
        ("Event[Paid]", Paid),
        ("Event[Unknown]", Paid),
        (Event[Paid], None),
    ],
)
def test_what_fits_is_accepted(annotation: Any, on: Any) -> None:
    define(takes(annotation), on)


@pytest.mark.parametrize(
    ("annotation", "on", "message"),
    [
        (Event[Shipped], Paid, "annotated with Shipped, and on=… gives Paid; write on=Shipped"),
        ("Event[Shipped]", Paid, "annotated with Shipped"),
        (Event[Paid], "order/paid", "gives a dict; write on=Paid, or Event"),
        (Event[Paid], Cron("0 9 * * *"), "gives a dict"),
        (Event[Paid | Shipped], [Paid, Refunded], "annotated with Shipped"),
        (Event[Paid], [Paid, Refunded], "also gives Refunded; annotate event with Event[Paid | Refunded]"),
    ],
)  # fmt: skip
def test_what_never_comes_or_is_left_out_is_refused(annotation: Any, on: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define(takes(annotation), on)

    assert message in str(caught.value)
    assert 'function "f"' in str(caught.value)


def test_batches_are_checked_too() -> None:
    define(takes(list[Event[Paid]], "events"), batch=Batch(2, "1s"))
    with pytest.raises(DefinitionError, match="its events is annotated with Shipped"):
        define(takes(list[Event[Shipped]], "events"), batch=Batch(2, "1s"))


@pytest.mark.parametrize(
    "annotation",
    [Event[FunctionFailed[Paid]], Event[FunctionFailed[Any]], "Event[FunctionFailed]", Event[Any],
     Event[object], Event, None, "Event[FunctionFailed[Unknown]]"],
)  # fmt: skip
def test_a_failure_handler_takes_the_failure(annotation: Any) -> None:
    async def handler(event: Event[Paid], step: Step) -> None: ...

    define(handler, on_failure=takes(annotation))


@pytest.mark.parametrize("annotation", [Event[Paid], Event[dict[str, Any]]])
def test_a_failure_handler_takes_nothing_else(annotation: Any) -> None:
    async def handler(event: Event[Paid]) -> None: ...

    with pytest.raises(DefinitionError) as caught:
        define(handler, on_failure=takes(annotation))

    assert str(caught.value).startswith(
        'on_failure of "a-f": its event is an Event[FunctionFailed['
    )


@pytest.mark.parametrize("name", ["", " ", 7])
def test_a_name_is_a_title(name: Any) -> None:
    async def handler() -> None: ...

    with pytest.raises(DefinitionError, match="a title for people"):
        define(handler, name=name)

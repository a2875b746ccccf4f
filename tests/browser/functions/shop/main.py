"""A shop whose orders go every way an order can: the pages under test show them."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from stepbase import (
    App,
    CancelOn,
    Concurrency,
    Cron,
    Event,
    EventData,
    NonRetriableError,
    Step,
    serve,
)

app = App("shop")


class Address(BaseModel):
    """Where a parcel goes."""

    street: str
    city: str = Field(description="As on the label")
    country: Literal["TH", "DE", "US"] = "TH"


class ParcelSent(EventData, name="shop/parcel.sent"):
    """Has a field of every kind: its form is looked at."""

    order: int = Field(ge=1, description="The order's number")
    weight: float = Field(gt=0, le=30, description="Kilograms")
    insured: bool = False
    service: Literal["standard", "express"] = "standard"
    value: Decimal | None = None
    pick_up: datetime | None = None
    to: Address
    items: list[str] = []
    label: dict[str, Any] = Field(default={}, description="Whatever the carrier wants")


class OrderPlaced(EventData, name="shop/order.placed"):
    """An order; `fate` says what becomes of it."""

    id: int
    shop: str = ""
    cents: int = 0
    fate: str = "paid"


@app.function(
    "checkout",
    on=OrderPlaced,
    retries=1,
    concurrency=Concurrency(5, key="event.data.shop"),
    cancel_on=CancelOn("shop/order.cancelled", match="data.id"),
)
async def checkout(event: Event[OrderPlaced], step: Step) -> dict[str, object]:
    """Reserve four things side by side, then pay, wait or fail as the order says."""
    fate = event.data.fate

    async def reserve(what: str) -> str:
        await asyncio.sleep(0.02)
        return f"reserved {what}"

    async def charge() -> str:
        if fate == "flaky":
            raise RuntimeError("the provider answered 503")
        if fate == "refused":
            try:
                raise ValueError("amount is negative: -12")
            except ValueError as error:
                raise NonRetriableError("the invoice was refused") from error
        return "ch_123"

    await step.run("validate", reserve, "stock")
    await asyncio.gather(*(step.run(f"reserve-{what}", reserve, what) for what in "abcd"))
    if fate == "waits":
        await step.wait_for_event("payment", "shop/paid", timeout="2h", match="data.id")
    if fate == "sleeps":
        await step.sleep("cool-off", timedelta(days=7))
    charged = await step.run("charge", charge)
    return {"order": event.data.id, "charge": charged}


@app.function("big-orders", on=OrderPlaced.where("event.data.cents > 10000"))
async def big_orders(event: Event[OrderPlaced], step: Step) -> str:
    """Only for orders above a hundred."""
    return "big"


@app.function("parcel", on=ParcelSent)
async def parcel(event: Event[ParcelSent], step: Step) -> float:
    """Says what it weighs, and asks for the next one's order."""
    await step.send_event("announce", Event("shop/parcel.announced", {"order": event.data.order}))
    return event.data.weight


@app.function("nightly", on=Cron("0 3 * * *", tz="Europe/Berlin"))
async def nightly(step: Step) -> str:
    """Has a schedule."""
    return "done"


main = serve(app)

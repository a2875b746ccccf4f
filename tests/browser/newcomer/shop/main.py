"""The functions that fail in the five ways of docs/troubleshooting.md."""

from stepbase import App, Event, EventData, Step, serve

app = App("shop")


class Paid(EventData, name="shop/paid"):
    """A payment."""

    order_id: int
    cents: int


@app.function("credit", on=Paid, retries=0)
async def credit(event: Event[Paid], step: Step) -> str:
    """Call an SQL function that refuses order 7."""
    await step.rpc("add_credit", {"p_order_id": event.data.order_id})
    return "credited"


@app.function("large", on=Paid.where("event.data.cents > 10000"))
async def large(event: Event[Paid], step: Step) -> str:
    """Only for large payments."""
    return "large"


@app.function("greet", on="shop/greeted")
async def greet(step: Step) -> str:
    """Need nothing."""
    return "greeted"


main = serve(app)

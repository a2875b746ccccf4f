"""The app "orders": people look at large orders, unpaid ones are followed up, large refunds are told.

Amounts are in cents: `event.data.amount > 10000` is above 100.00. The condition is part of the trigger,
so a smaller order starts no run at all.
"""

from rewards.events import AwardRequested, PurchasePlaced, PurchaseRefunded, ReviewDecided
from rewards.mail import reminder_mail, send_mail
from rewards.orders import Decision, review_signal
from rewards.reports import cents
from rewards.rpc import email_of
from rewards.settings import settings
from stepbase import App, EngineOptions, Event, Priority, RateLimit, Step, serve

app = App("orders")


@app.function(
    "review",
    on=AwardRequested.where("event.data.amount > 10000"),
    priority=Priority("event.data.amount > 100000 ? 300 : 0"),  # as if five minutes earlier
)
async def review(event: Event[AwardRequested], step: Step) -> str:
    """Put a large order before a person; refund it if they refuse. Returns the review's end."""
    order = event.data.source_id
    await step.table("open", "order_reviews", returns=None).upsert(
        {"purchase_id": order}, ignore_duplicates=True
    )
    decision = await step.wait_for_signal(
        "decision", review_signal(order), timeout="2d", returns=Decision
    )
    if decision is None:
        await step.table("lapse", "order_reviews", returns=None).update(
            {"status": "lapsed"}, purchase_id=order, status="open"
        )
        return "lapsed"
    if decision.data.status == "refused":
        # The row trigger of purchases does the rest: the award is cancelled, or taken back.
        await step.table("refund", "purchases", returns=None).update(
            {"status": "refunded"}, id=order
        )
    return decision.data.status


@app.function("decide", on=ReviewDecided)
async def decide(event: Event[ReviewDecided], step: Step) -> bool:
    """Pass on what somebody decided in the table `order_reviews`; return whether it was in time."""
    data = event.data
    woken = await step.send_signal(
        "tell",
        review_signal(data.purchase_id),
        Decision(status=data.status, decided_by=data.decided_by),
    )
    if woken is None:
        await step.table("too-late", "order_reviews", returns=None).update(
            {"note": "decided when the review was over: nothing was done"},
            purchase_id=data.purchase_id,
        )
    return woken is not None


@app.function(
    "follow-up",
    on=PurchasePlaced,
    # A payment may be there before this run has begun to wait for it.
    engine=EngineOptions(look_back="1m"),
)
async def follow_up(event: Event[PurchasePlaced], step: Step) -> str:
    """Remind of an order that is not paid within a day; note after a week how it ended."""
    data = event.data
    outcome = "paid"
    if not await _is_paid(step, "payment", "1d"):
        address = await step.rpc(email_of(p_user_id=data.user_id))
        if address is not None:
            mail = reminder_mail(address, data.source_id, data.amount)
            await step.run("remind", send_mail, mail, step.idempotency_key("remind"))
        is_paid = await _is_paid(step, "late-payment", "6d")
        outcome = "paid after a reminder" if is_paid else "not paid"
    await step.table("note", "order_follow_ups", returns=None).upsert(
        {"purchase_id": data.source_id, "outcome": outcome}
    )
    return outcome


async def _is_paid(step: Step, step_id: str, timeout: str) -> bool:
    paid = await step.wait_for_event(
        step_id, AwardRequested, match="data.source_id", timeout=timeout
    )
    return paid is not None


@app.function(
    "alert",
    on=PurchaseRefunded.where("event.data.amount > 10000"),
    rate_limit=RateLimit(1, "1h", key="event.data.merchant_id"),
    retries=5,
)
async def alert(event: Event[PurchaseRefunded], step: Step) -> bool:
    """Tell the staff's chat of a large refund, at most once an hour for each merchant."""
    data = event.data
    # What the environment says may change between two calls of a run: so it is asked in a step.
    if not await step.run("is-there-a-chat", lambda: settings().staff_webhook is not None):
        return False
    text = f"{data.merchant_id}: {cents(data.amount)} of order {data.source_id} were refunded"
    await step.fetch("tell", settings().staff_webhook or "", method="POST", json={"text": text})
    return True


main = serve(app)

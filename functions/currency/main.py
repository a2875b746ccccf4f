"""The app "currency": points for purchases, and their return when a purchase is refunded.

Refunds and awards may come in any order, also at the same time. A refund cancels an award that still
waits; where it comes too late for that, `reverse` takes the award back; where it comes too early, the
posting sees it and is skipped (`post_wallet_transaction` holds the purchase's row).
"""

from rewards.award import Awarded, Posting, award_time
from rewards.events import AwardRequested, PurchaseRefunded
from rewards.rpc import (
    calc_currency_for_source,
    get_merchant_config,
    post_wallet_transaction,
    reverse_wallet_transaction,
)
from stepbase import App, CancelOn, Concurrency, Event, Step, serve

app = App("currency")


@app.function(
    "award",
    on=AwardRequested,
    retries=3,
    concurrency=Concurrency(10, key="event.data.merchant_id"),
    cancel_on=CancelOn(PurchaseRefunded, match="data.source_id"),
)
async def award(event: Event[AwardRequested], step: Step) -> Awarded:
    """Credit what a purchase earns, at the time its merchant says."""
    data = event.data
    amount = await step.rpc(calc_currency_for_source(p_source_id=data.source_id))
    config = await step.rpc(get_merchant_config(p_merchant_id=data.merchant_id))
    if config.award_delay_hours > 0:
        await step.sleep_until("delay-award", award_time(event.ts, config))
    posting = await step.rpc(
        post_wallet_transaction(
            p_user_id=data.user_id, p_source_id=data.source_id, p_amount=amount
        ),
        key=f"award:{data.source_id}",
    )
    if posting.outcome == "skipped":
        return Awarded(success=False, amount=0)
    return Awarded(success=True, amount=amount)


@app.function("reverse", on=PurchaseRefunded)
async def reverse(event: Event[PurchaseRefunded], step: Step) -> Posting:
    """Take back what a refunded purchase was awarded, if it was."""
    return await step.rpc(
        reverse_wallet_transaction(p_source_id=event.data.source_id),
        key=f"reverse:{event.data.source_id}",
    )


main = serve(app)

"""The app "currency": points for purchases, their return when a purchase is refunded, and their end.

Refunds and awards may come in any order, also at the same time. A refund cancels an award that still
waits; where it comes too late for that, `reverse` takes the award back; where it comes too early, the
posting sees it and is skipped (`post_wallet_transaction` holds the purchase's row).

Points that are older than their merchant allows expire at night, page by page: a run of each merchant
takes a hundred awards and hands the rest on. Each award has a key of its own, and the wallet a unique
constraint behind it, so that it expires once, whatever is repeated.
"""

from typing import Any

from rewards.award import Awarded, Posting, award_time
from rewards.events import AwardRequested, BonusEarned, PointsExpiring, PurchaseRefunded
from rewards.reports import ZONE, in_batches
from rewards.rpc import (
    awards_to_expire,
    calc_currency_for_source,
    expire_award,
    get_merchant_config,
    merchants_with_expiry,
    post_wallet_transaction,
    post_welcome_bonus,
    reverse_wallet_transaction,
)
from stepbase import (
    App,
    CancelOn,
    Checkpointing,
    Concurrency,
    Cron,
    Event,
    Singleton,
    Step,
    Timeouts,
    serve,
)

app = App("currency")

PAGE = 100


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


@app.function("bonus", on=BonusEarned)
async def bonus(event: Event[BonusEarned], step: Step) -> Posting:
    """Credit a welcome bonus; other apps invoke this and are given what came of it."""
    data = event.data
    return await step.rpc(
        post_welcome_bonus(
            p_user_id=data.user_id, p_source_id=data.source_id, p_amount=data.amount
        ),
        key=f"welcome-bonus:{data.user_id}",
    )


@app.function(
    "expire",
    on=Cron("0 3 * * *", tz=ZONE),
    singleton=Singleton(),  # should a night not be over when the next begins
)
async def expire(event: Event[dict[str, Any]], step: Step) -> int:
    """Start the nightly run of each merchant whose points expire; return how many there are."""
    merchants = await step.rpc(merchants_with_expiry())
    for batch in in_batches(merchants, PAGE):
        await step.send_event(
            "start", [PointsExpiring(merchant_id=each, as_of=event.ts) for each in batch]
        )
    return len(merchants)


@app.function(
    "expire-merchant",
    on=PointsExpiring,
    concurrency=[Concurrency(5), Concurrency(1, key="event.data.merchant_id")],
    timeouts=Timeouts(finish="6h"),
    # Repeating some of these steps after a crash is harmless, so their results may be saved in tens.
    checkpointing=Checkpointing(buffered_steps=10, max_interval="2s"),
)
async def expire_merchant(event: Event[PointsExpiring], step: Step) -> int:
    """Have a page of a merchant's awards expire; return how many points that were."""
    data = event.data
    page = await step.rpc(
        awards_to_expire(
            p_merchant_id=data.merchant_id, p_as_of=data.as_of, p_after=data.after, p_limit=PAGE
        )
    )
    points = 0
    for award in page:
        posting = await step.rpc(
            expire_award(p_transaction_id=award.transaction_id),
            id=f"expire-{award.transaction_id}",
            key=f"expire:{award.transaction_id}",
        )
        points += award.amount if posting.outcome == "posted" else 0
    if len(page) == PAGE:
        await step.send_event(
            "next-page", data.model_copy(update={"after": page[-1].transaction_id})
        )
    return points


main = serve(app)

"""The app "reports": each merchant's day in figures and words, every weekday; rankings; a journal of sales.

Two ways of doing something for each merchant: `daily` sends an event for each, which starts a run of its
own and may be thousands; `weekly` runs steps side by side in one run, which suits dozens.
"""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from rewards.events import (
    AwardRequested,
    MerchantReportDue,
    PurchaseRefunded,
    ReportRequested,
    SummaryWanted,
)
from rewards.reports import (
    ZONE,
    DayFigures,
    days_to_report,
    in_batches,
    in_words,
    last_week,
    ranking,
)
from rewards.rpc import list_merchants, points_between, sales_between
from rewards.settings import settings
from stepbase import App, Batch, Cron, Debounce, Event, Step, StepError, Timeouts, serve

app = App("reports")

DAY = timedelta(days=1)


@app.function(
    "daily",
    on=[Cron("0 7 * * 1-5", tz=ZONE), ReportRequested],
    name="Daily reports",
    timeouts=Timeouts(start="12h"),
)
async def daily(event: Event[ReportRequested | dict[str, Any]], step: Step) -> int:
    """Ask for the reports of the day before (on Mondays, of three days), or of the day that is wanted."""
    if isinstance(event.data, ReportRequested):
        days = [event.data.day]
    else:
        days = days_to_report(_local_day(event.ts))
    merchants = await step.rpc(list_merchants())
    due = [MerchantReportDue(merchant_id=each, day=day) for day in days for each in merchants]
    for batch in in_batches(due, 100):
        await step.send_event("fan-out", batch)
    return len(due)


@app.function("merchant", on=MerchantReportDue)
async def merchant(event: Event[MerchantReportDue], step: Step) -> DayFigures:
    """Make a merchant's report for a day; made again, it replaces the one before."""
    figures = await _figures(step, event.data.merchant_id, event.data.day)
    text = await step.invoke("summary", summary, SummaryWanted(figures=figures))
    await step.table("store", "merchant_reports", returns=None).upsert(
        {**figures.model_dump(), "summary": text}
    )
    return figures


@app.function("summary", on=SummaryWanted)
async def summary(event: Event[SummaryWanted], step: Step) -> str:
    """Put a day's figures into words: a language model's if there is one that answers, else our own."""
    figures = event.data.figures
    plain = in_words(figures)
    if not await step.run("is-there-a-model", lambda: settings().has_model):
        return plain
    request = step.ai.openai(
        "write",
        model="gpt-4.1-mini",
        messages=[{"role": "user", "content": f"Put this into two friendly sentences: {plain}"}],
    )
    try:
        answer = await step.timeout("2m", request)
    except (StepError, TimeoutError):
        return plain
    return answer["choices"][0]["message"]["content"] or plain


@app.function(
    "today",
    on=[AwardRequested, PurchaseRefunded],
    debounce=Debounce("30s", key="event.data.merchant_id", timeout="5m"),
)
async def today(event: Event[AwardRequested | PurchaseRefunded], step: Step) -> None:
    """Bring a merchant's figures of today up to date when it has been quiet for a while."""
    figures = await _figures(step, event.data.merchant_id, _local_day(event.ts))
    await step.table("store", "merchant_reports", returns=None).upsert(figures)


@app.function("record", on=AwardRequested, batch=Batch(100, "5s"))
async def record(events: list[Event[AwardRequested]], step: Step) -> int:
    """Write sales into the journal, a hundred by one insert; one that is there already stays."""
    rows = [
        {
            "purchase_id": event.data.source_id,
            "merchant_id": event.data.merchant_id,
            "user_id": event.data.user_id,
            "amount_cents": event.data.amount,
            "paid_at": event.ts,
        }
        for event in events
    ]
    await step.table("write", "sales_journal", returns=None).upsert(rows, ignore_duplicates=True)
    return len(rows)


@app.function("weekly", on=Cron("0 8 * * 1", tz=ZONE, jitter="1m"))
async def weekly(event: Event[dict[str, Any]], step: Step) -> int:
    """Rank the merchants by what they sold last week; return how many there are."""
    week = last_week(_local_day(event.ts))

    async def sold(merchant_id: str) -> tuple[str, int]:
        sales = sales_between(
            p_merchant_id=merchant_id, p_from=week, p_until=week + 7 * DAY, p_zone=ZONE
        )
        return merchant_id, (await step.rpc(sales, id=f"sales of {merchant_id}")).sold_cents

    merchants = await step.rpc(list_merchants())
    places = ranking(week, await asyncio.gather(*(sold(each) for each in merchants)))
    if places:
        await step.table("store", "merchant_rankings", returns=None).upsert(places)
    return len(places)


async def _figures(step: Step, merchant_id: str, day: date) -> DayFigures:
    """Read a merchant's day: two questions, asked side by side."""
    sales, points = await asyncio.gather(
        step.rpc(
            sales_between(p_merchant_id=merchant_id, p_from=day, p_until=day + DAY, p_zone=ZONE)
        ),
        step.rpc(
            points_between(p_merchant_id=merchant_id, p_from=day, p_until=day + DAY, p_zone=ZONE)
        ),
    )
    return DayFigures(**sales.model_dump(), merchant_id=merchant_id, day=day, awarded_points=points)


def _local_day(when: datetime) -> date:
    return when.astimezone(ZoneInfo(ZONE)).date()


main = serve(app)

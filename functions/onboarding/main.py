"""The app "onboarding": a welcome, and a bonus for the first purchase once it can no longer be returned.

It begins with a row trigger on Supabase's own table of users and ends in another app: the bonus is
booked by `currency-bonus`, which this one invokes. A run lasts up to six weeks and costs a row.
"""

from rewards.award import Posting
from rewards.events import AwardRequested, BonusEarned, UserSignedUp
from rewards.mail import Mail, bonus_mail, send_mail, welcome_mail
from rewards.onboarding import welcome_bonus
from rewards.settings import settings
from stepbase import App, Event, FunctionFailed, Step, Throttle, serve
from stepbase.middleware import LoggingMiddleware

# Log lines of the domain's own modules get the run's id, and are silent while a run is replayed.
app = App("onboarding", middleware=[LoggingMiddleware.factory(loggers=["rewards"])])


async def tell_staff(event: Event[FunctionFailed[UserSignedUp]], step: Step) -> None:
    """Write to the staff about a user whose welcome has failed for good."""
    failed = event.data
    text = f"Run {failed.run_id} has failed: {failed.error.message}"
    mail = Mail(settings().staff_address, "A welcome went wrong", text)
    await step.run("tell-staff", send_mail, mail, step.idempotency_key("tell-staff"))


@app.function(
    "welcome",
    on=UserSignedUp,
    idempotency="event.data.id",
    throttle=Throttle(100, "1m", burst=20),  # what the mail provider takes
    on_failure=tell_staff,
)
async def welcome(event: Event[UserSignedUp], step: Step) -> Posting | None:
    """Welcome a user and give them the bonus; None for one who bought nothing within a month."""
    user = event.data
    address = user.email or None
    await step.table("remember", "customers", returns=None).upsert(
        {"user_id": user.id, "email": address}
    )
    if address is not None:
        key = step.idempotency_key("welcome-mail")
        await step.run("welcome-mail", send_mail, welcome_mail(address), key)

    first = await step.wait_for_event(
        "first-purchase",
        AwardRequested,
        if_="event.data.id == async.data.user_id",
        timeout="30d",
        look_back="5m",  # a purchase while the mail was on its way
    )
    if first is None:
        return None
    await step.sleep("return-period", "14d")

    points = welcome_bonus(first.data.amount)
    earned = BonusEarned(user_id=user.id, source_id=first.data.source_id, amount=points)
    posting = await step.invoke("bonus", "currency-bonus", earned, returns=Posting)
    if posting.outcome == "posted" and address is not None:
        key = step.idempotency_key("bonus-mail")
        await step.run("bonus-mail", send_mail, bonus_mail(address, points), key)
    return posting


main = serve(app)

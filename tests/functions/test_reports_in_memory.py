"""The app "reports" without a database: which days, how it fans out, what is stored."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rewards.events import AwardRequested, MerchantReportDue, ReportRequested
from rewards.reports import DayFigures
from stepbase import Event, NonRetriableError
from stepbase.testing import Lab, Run, load_app

_ANN = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
_FOLDER = Path(__file__).parents[2] / "functions" / "reports"
_MONDAY = datetime(2027, 3, 1, 0, 0, tzinfo=UTC)
"""Seven in the morning in Bangkok."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The app with two merchants, and what they sold faked."""
    with Lab(load_app(_FOLDER), now=_MONDAY, always_replay=True) as lab:
        lab.fake_rpc("list_merchants", ["books", "records"])
        lab.fake_rpc("sales_between", sales)
        lab.fake_rpc("points_between", 75)
        for table in ("merchant_reports", "merchant_rankings", "sales_journal"):
            lab.fake_table(table, None)
        yield lab


def sales(p_merchant_id: str, **_: object) -> dict[str, int]:
    sold = {"books": 3000, "records": 9000}[p_merchant_id]
    return {"purchases": 3, "sold_cents": sold, "refunded_cents": 0}


def stored(run: Run[Any]) -> list[dict[str, Any]]:
    [write] = [call for call in run.rpc_calls if call.function.startswith("upsert")]
    rows: list[dict[str, Any]] = write.args["rows"]
    return rows


def cron(when: datetime) -> Event[dict[str, Any]]:
    return Event("inngest/scheduled.timer", {"cron": "0 7 * * 1-5"}, ts=when)


async def test_the_weekday_report_covers_the_weekend_on_mondays(lab: Lab) -> None:
    run = await lab.start("daily", cron(_MONDAY))

    assert run.result == 6
    due = {(each.data["day"], each.data["merchant_id"]) for each in run.events_sent}
    assert {day for day, _ in due} == {"2027-02-26", "2027-02-27", "2027-02-28"}
    assert len(due) == 6
    assert [each.function for each in lab.runs].count("reports-merchant") == 6


async def test_a_day_can_be_asked_for(lab: Lab) -> None:
    [run, *_] = await lab.send(ReportRequested(day=date(2027, 2, 3)))

    assert run.result == 2
    assert {each.data["day"] for each in run.events_sent} == {"2027-02-03"}


async def test_many_merchants_are_sent_for_in_batches(lab: Lab) -> None:
    lab.fake_rpc("list_merchants", [f"m{n}" for n in range(250)])
    lab.fake_rpc("sales_between", {"purchases": 0, "sold_cents": 0, "refunded_cents": 0})

    [run, *_] = await lab.send(ReportRequested(day=date(2027, 2, 3)))

    assert run.result == 250
    assert [len(run.steps[id]) for id in ("fan-out", "fan-out:1", "fan-out:2")] == [100, 100, 50]


async def test_a_merchants_report_has_figures_and_words(lab: Lab) -> None:
    [run] = await lab.send(MerchantReportDue(merchant_id="books", day=date(2027, 2, 26)))

    assert run.result == DayFigures(
        merchant_id="books", day=date(2027, 2, 26), purchases=3, sold_cents=3000, refunded_cents=0,
        awarded_points=75,
    )  # fmt: skip
    [row] = stored(run)
    assert row["day"] == "2027-02-26"
    assert row["summary"].startswith("books sold 30.00 in 3 purchases on Friday, 26 February 2027")
    asked = run.rpc_calls[0].args
    assert (asked["p_from"], asked["p_until"], asked["p_zone"]) == (
        "2027-02-26", "2027-02-27", "Asia/Bangkok",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"choices": [{"message": {"content": "A fine day."}}]}, "A fine day."),
        ({"choices": [{"message": {"content": None}}]}, "books sold"),
        (NonRetriableError("out of credit"), "books sold"),
    ],
)
async def test_a_model_writes_the_summary_if_there_is_one_that_answers(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, answer: Any, words: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    lab.fake_step("write", answer)

    [run] = await lab.send(MerchantReportDue(merchant_id="books", day=date(2027, 2, 26)))

    assert stored(run)[0]["summary"].startswith(words)


async def test_todays_figures_are_kept_up_to_date_without_words(lab: Lab) -> None:
    run = await lab.start("today", sale("p"))

    [row] = stored(run)
    assert (row["day"], row["sold_cents"]) == ("2027-03-01", 3000)
    assert "summary" not in row


async def test_sales_are_recorded_by_one_insert(lab: Lab) -> None:
    run = await lab.start("record", [sale(f"p{n}") for n in range(100)])

    assert run.result == 100
    [write] = run.rpc_calls
    assert len(write.args["rows"]) == 100 and write.args["ignore_duplicates"] is True
    assert write.args["rows"][0]["purchase_id"] == "p0"


def sale(source_id: str) -> Event[AwardRequested]:
    data = AwardRequested(user_id=_ANN, merchant_id="books", source_id=source_id, amount=1000)
    return Event(data=data, ts=_MONDAY)


async def test_the_week_is_ranked_side_by_side(lab: Lab) -> None:
    run = await lab.start("weekly", cron(_MONDAY))

    assert run.result == 2
    assert [(row["place"], row["merchant_id"], row["week"]) for row in stored(run)] == [
        (1, "records", "2027-02-22"), (2, "books", "2027-02-22"),
    ]  # fmt: skip


async def test_a_shop_without_merchants_has_no_reports(lab: Lab) -> None:
    lab.fake_rpc("list_merchants", [])

    daily = await lab.start("daily", cron(_MONDAY))
    weekly = await lab.start("weekly", cron(_MONDAY))

    assert (daily.result, weekly.result) == (0, 0)

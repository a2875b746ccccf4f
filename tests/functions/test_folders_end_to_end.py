"""Every function folder as `stepbase dev` runs it: the seed's shop, real Postgres, gateway, engine and host.

One stack for all. Time is moved in the database: a run that sleeps is a row, and falls due by an update.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.repo.tree import ROOT
from tests.support.fake_api import FakeApi, fake_api

from rewards.reports import ZONE
from stepbase.local.stack import Plan, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CAT = "c0000000-0000-4000-8000-000000000003"
_PATIENCE = 60.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Shop:
    """The running stack and a connection to its database."""

    stack: Stack
    db: asyncpg.Connection

    async def until(self, query: str, *arguments: object) -> Any:
        """Ask until the answer is neither null nor false nor empty; return it."""
        found = None
        try:
            async with asyncio.timeout(_PATIENCE):
                while not found:
                    found = await self.db.fetchval(query, *arguments)
                    await asyncio.sleep(0 if found else _LOOK_SECONDS)
        except TimeoutError:
            runs = await self.db.fetch(
                "select function, status, waits, error, output from stepbase.run_overview"
            )
            raise AssertionError(f"{query} {arguments}\n" + "\n".join(map(str, runs))) from None
        return found

    async def output(self, function: str, source: str) -> Any:
        """Wait until the function's run for a purchase (or a user) has ended; return its output."""
        return await self.until(
            """
            select coalesce(r.output, r.error)::text
            from stepbase.runs as r
            join stepbase.functions as f using (function_id)
            join stepbase.events as e on e.id = r.event_id
            where f.slug = $1 and r.ended_at is not null
              and $2 in (e.payload #>> '{data,source_id}', e.payload #>> '{data,purchase_id}',
                e.payload #>> '{data,id}', e.payload #>> '{data,merchant_id}')
            order by r.run_id desc limit 1
            """,
            function,
            source,
        )

    async def wake(self, function: str) -> None:
        """Let what the function's run sleeps for, or waits for, be over."""
        await self.until(
            """
            with due as (
              update stepbase.queue as q set due_at = stepbase.now()
              from stepbase.runs as r
              join stepbase.functions as f using (function_id)
              where q.run_id = r.run_id and f.slug = $1 and q.kind in ('sleep', 'wait')
              returning q.run_id
            )
            select count(*) from due
            """,
            function,
        )

    async def call(self, path: str, body: object) -> None:
        """Post to the engine."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.stack.engine_url}{path}", json=body)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def chat() -> Iterator[FakeApi]:
    """The staff's chat."""
    with fake_api() as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(chat: FakeApi) -> AsyncIterator[Shop]:
    """The seed's shop with all folders served."""
    plan = Plan(
        functions=ROOT / "functions",
        project=ROOT,
        seed=ROOT / "supabase" / "seed.sql",
        durable=False,
        environments={"host": {"STAFF_WEBHOOK_URL": f"{chat.url}/hook"}},
    )
    async with Stack(plan) as stack:
        db = await asyncpg.connect(stack.database_url)
        yield Shop(stack, db)
        await db.close()


async def test_every_folder_is_served(shop: Shop) -> None:
    assert {"currency", "onboarding", "orders", "reports"} <= set(shop.stack.apps)


async def test_currency_lets_old_points_expire_once(shop: Shop) -> None:
    ended = """
        select count(*) = $1 from stepbase.runs join stepbase.functions as f using (function_id)
        where f.slug = 'currency-expire-merchant' and ended_at is not null
    """
    for night in (1, 2):
        await shop.call("/invoke/currency-expire", {"data": {}})
        await shop.until(ended, night)

    booked = await shop.db.fetch(
        "select kind, amount from public.wallet_transactions where source_id = 'order-0' order by id"
    )
    assert [tuple(row) for row in booked] == [("award", 100), ("expiry", -100)]
    assert not await shop.db.fetchval(
        "select exists (select from public.wallets as w where w.balance <> ("
        "  select sum(t.amount) from public.wallet_transactions as t where t.user_id = w.user_id))"
    )


async def test_orders_puts_a_large_order_before_a_person_who_refuses(
    shop: Shop, chat: FakeApi
) -> None:
    await shop.output("currency-award", "order-5")
    await shop.until(
        "select true from stepbase.run_overview"
        " where function = 'orders-review' and waits ~ '^waits for .+ until'"
    )

    await shop.db.execute("update public.order_reviews set status = 'refused', decided_by = 'Bo'")

    assert await shop.output("orders-review", "order-5") == '"refused"'
    assert await shop.output("orders-decide", "order-5") == "true"
    assert '"posted"' in await shop.output("currency-reverse", "order-5")
    assert await shop.output("orders-alert", "order-5") == "true"
    assert [each.body for each in chat.received] == [
        {"text": "books: 250.00 of order order-5 were refunded"}
    ]
    assert await shop.db.fetchval("select status from public.purchases where id = 'order-5'") == (
        "refunded"
    )


async def test_orders_follows_an_unpaid_order_up(shop: Shop) -> None:
    waits = "select true from stepbase.run_overview where function = 'orders-follow-up' and waits ~ 'waits'"
    await shop.until(waits)

    await shop.wake("orders-follow-up")
    await shop.until(
        "select true from stepbase.run_timeline as t join stepbase.run_overview as r using (run_id)"
        " where r.function = 'orders-follow-up' and t.name = 'remind'"
    )
    await shop.until(waits)
    await shop.db.execute("update public.purchases set status = 'paid' where id = 'order-3'")

    assert await shop.output("orders-follow-up", "order-3") == '"paid after a reminder"'
    assert await shop.db.fetchval("select outcome from public.order_follow_ups") == (
        "paid after a reminder"
    )


async def test_reports_stores_figures_and_words_for_every_merchant(shop: Shop) -> None:
    day = await shop.db.fetchval(f"select (now() at time zone '{ZONE}')::date")

    await shop.call("/e/key", [{"name": "report/requested", "data": {"day": str(day)}}])

    summaries = await shop.until(
        """
        select array_agg(summary order by merchant_id) from public.merchant_reports
        where day = $1 and summary is not null having count(*) = 2
        """,
        day,
    )
    assert summaries[0].startswith("books sold") and summaries[1].startswith("records sold 63.34")


async def test_reports_writes_sales_into_the_journal(shop: Shop) -> None:
    count = await shop.until(
        "select count(*) from public.sales_journal where purchase_id like 'order-%' having count(*) >= 5"
    )

    assert count in (5, 6)  # order-3 is paid by another test


async def test_onboarding_gives_a_bonus_by_way_of_currency(shop: Shop) -> None:
    await shop.db.execute(
        "insert into auth.users (id, email, email_confirmed_at) values ($1, 'cat@shop.example', now())",
        _CAT,
    )
    waits = """
        select true from stepbase.run_overview as o
        join stepbase.runs as r using (run_id) join stepbase.events as e on e.id = r.event_id
        where o.function = 'onboarding-welcome' and e.payload #>> '{data,id}' = $1 and o.waits ~ $2
    """
    await shop.until(waits, _CAT, "^waits for .+ until")
    await shop.db.execute(
        "insert into public.purchases (id, merchant_id, user_id, amount_cents, status)"
        " values ('cats-first', 'books', $1, 2500, 'paid')",
        _CAT,
    )
    await shop.until(waits, _CAT, "^asleep until")

    await shop.wake("onboarding-welcome")

    assert '"posted"' in await shop.output("onboarding-welcome", _CAT)
    bonus = await shop.db.fetchrow(
        "select kind, source_id, amount from public.wallet_transactions"
        " where user_id = $1 and kind = 'bonus'",
        _CAT,
    )
    assert tuple(bonus or ()) == ("bonus", f"welcome:{_CAT}", 250)
    assert await shop.db.fetchval("select email from public.customers where user_id = $1", _CAT)

"""The music shop's side: it records purchases, has them paid and refunds them. It knows no awards.

`RestShop` does what an app on Supabase does: supabase-py, the project's URL and its secret key.
`SqlShop` writes as the same role straight into the database, and repeats what a crash swallowed.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import httpx
from supabase import AsyncClient, AsyncClientOptions

from stepbase.demo.books import Connection
from stepbase.demo.purchase import Purchase

# Ids travel in the URL.
_AT_ONCE = 50

_INSERT = """
insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
  select * from unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::text[])
  on conflict (id) do nothing
"""
_UPDATE = (
    "update public.purchases set status = $2 where id = any ($1) and status not in ($2, 'refunded')"
)
# The payment's event is held back a little, so the refund's is delivered first, as any relay may do.
_HOLD_BACK = """
with late as (
  select id from stepbase.outbox
    where name = 'currency/award.requested' and payload #>> '{data,source_id}' = any ($1)
)
update stepbase.outbox o set due_at = o.due_at + interval '0.5 seconds'
  from late where o.id = late.id
"""


class Shop(Protocol):
    """Records purchases and changes their status."""

    async def record(self, purchases: Sequence[Purchase], status: str) -> None:
        """Record new purchases."""

    async def change(self, ids: Sequence[str], status: str) -> None:
        """Have purchases paid, or refund them."""


class RestShop:
    """The shop as an app: through the REST API."""

    def __init__(self, url: str, key: str, http: httpx.AsyncClient) -> None:
        options = AsyncClientOptions(
            httpx_client=http, auto_refresh_token=False, persist_session=False
        )
        self._purchases = AsyncClient(url, key, options).table("purchases")

    async def record(self, purchases: Sequence[Purchase], status: str) -> None:
        """Record new purchases.

        Raises:
            postgrest.APIError: If the database refuses them.
        """
        await self._purchases.insert([_row(each, status) for each in purchases]).execute()

    async def change(self, ids: Sequence[str], status: str) -> None:
        """Have purchases paid, or refund them.

        Raises:
            postgrest.APIError: If the database refuses that.
        """
        for start in range(0, len(ids), _AT_ONCE):
            some = list(ids[start : start + _AT_ONCE])
            await self._purchases.update({"status": status}).in_("id", some).execute()


class SqlShop:
    """The shop as SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def record(self, purchases: Sequence[Purchase], status: str) -> None:
        """Record new purchases."""
        await self._connection.run(_insert(purchases, status))

    async def change(self, ids: Sequence[str], status: str) -> None:
        """Have purchases paid, or refund them."""
        await self._connection.run((_UPDATE, list(ids), status))


async def overtake(owner: Connection, purchases: Sequence[Purchase]) -> None:
    """Have purchases paid and refunded such that the refund's event is delivered first."""
    ids = [each.purchase_id for each in purchases]
    await owner.run(_insert(purchases, "paid"), (_UPDATE, ids, "refunded"), (_HOLD_BACK, ids))


def _row(purchase: Purchase, status: str) -> dict[str, Any]:
    return {
        "id": purchase.purchase_id,
        "merchant_id": purchase.merchant_id,
        "user_id": str(purchase.user_id),
        "amount_cents": purchase.cents,
        "status": status,
    }


def _insert(purchases: Sequence[Purchase], status: str) -> tuple[Any, ...]:
    rows = [_row(each, status) for each in purchases]
    return (
        _INSERT,
        *(
            [row[name] for row in rows]
            for name in ("id", "merchant_id", "user_id", "amount_cents", "status")
        ),
    )

"""Typed calls of the database's SQL functions, for `step.rpc`.

Made by `stepbase gen rpc`: change the SQL function, or its `comment on function`, and run that
again.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from rewards.award import AwardToExpire, MerchantConfig, Posting
from rewards.reports import Sales
from stepbase import RpcCall


def awards_to_expire(
    *, p_merchant_id: str, p_as_of: datetime, p_after: int | None = None, p_limit: int | None = None
) -> RpcCall[list[AwardToExpire]]:
    """The next awards of a merchant that are older than it allows."""
    args: dict[str, Any] = {"p_merchant_id": p_merchant_id, "p_as_of": p_as_of}
    if p_after is not None:
        args["p_after"] = p_after
    if p_limit is not None:
        args["p_limit"] = p_limit
    return RpcCall("awards_to_expire", args, list[AwardToExpire])


def calc_currency_for_source(*, p_source_id: str) -> RpcCall[int]:
    """The award for a purchase, in whole points."""
    return RpcCall("calc_currency_for_source", {"p_source_id": p_source_id}, int)


def email_of(*, p_user_id: UUID) -> RpcCall[str | None]:
    """A user's mail address, if there is one."""
    return RpcCall("email_of", {"p_user_id": p_user_id}, str | None)


def expire_award(*, p_transaction_id: int) -> RpcCall[Posting]:
    """Take an award that is too old out of its wallet, once; skipped when it was taken back."""
    return RpcCall("expire_award", {"p_transaction_id": p_transaction_id}, Posting)


def get_merchant_config(*, p_merchant_id: str) -> RpcCall[MerchantConfig]:
    """How a merchant rewards."""
    return RpcCall("get_merchant_config", {"p_merchant_id": p_merchant_id}, MerchantConfig)


def list_merchants() -> RpcCall[list[str]]:
    """Every merchant."""
    return RpcCall("list_merchants", {}, list[str])


def merchants_with_expiry() -> RpcCall[list[str]]:
    """The merchants whose points expire."""
    return RpcCall("merchants_with_expiry", {}, list[str])


def points_between(
    *, p_merchant_id: str, p_from: date, p_until: date, p_zone: str | None = None
) -> RpcCall[int]:
    """The points that a merchant's purchases were awarded, less what was taken back."""
    args: dict[str, Any] = {"p_merchant_id": p_merchant_id, "p_from": p_from, "p_until": p_until}
    if p_zone is not None:
        args["p_zone"] = p_zone
    return RpcCall("points_between", args, int)


def post_wallet_transaction(
    *, p_user_id: UUID, p_source_id: str, p_amount: int
) -> RpcCall[Posting]:
    """Credit the award for a purchase, once; skipped when the purchase is refunded."""
    return RpcCall(
        "post_wallet_transaction",
        {"p_user_id": p_user_id, "p_source_id": p_source_id, "p_amount": p_amount},
        Posting,
    )


def post_welcome_bonus(*, p_user_id: UUID, p_source_id: str, p_amount: int) -> RpcCall[Posting]:
    """Credit the welcome bonus, once for each user; skipped when the purchase is refunded."""
    return RpcCall(
        "post_welcome_bonus",
        {"p_user_id": p_user_id, "p_source_id": p_source_id, "p_amount": p_amount},
        Posting,
    )


def reverse_wallet_transaction(*, p_source_id: str) -> RpcCall[Posting]:
    """Take back what was awarded for a refunded purchase, once; skipped when nothing was."""
    return RpcCall("reverse_wallet_transaction", {"p_source_id": p_source_id}, Posting)


def sales_between(
    *, p_merchant_id: str, p_from: date, p_until: date, p_zone: str | None = None
) -> RpcCall[Sales]:
    """What a merchant sold from one day up to another, which no longer counts."""
    args: dict[str, Any] = {"p_merchant_id": p_merchant_id, "p_from": p_from, "p_until": p_until}
    if p_zone is not None:
        args["p_zone"] = p_zone
    return RpcCall("sales_between", args, Sales)

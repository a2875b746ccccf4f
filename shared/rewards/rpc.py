"""Typed calls of the database's SQL functions, for `step.rpc`.

Made by `stepbase gen rpc`: change the SQL function, or its `comment on function`, and run that
again.
"""

from uuid import UUID

from rewards.award import MerchantConfig, Posting
from stepbase import RpcCall


def calc_currency_for_source(*, p_source_id: str) -> RpcCall[int]:
    """The award for a purchase, in whole points."""
    return RpcCall("calc_currency_for_source", {"p_source_id": p_source_id}, int)


def get_merchant_config(*, p_merchant_id: str) -> RpcCall[MerchantConfig]:
    """How a merchant rewards."""
    return RpcCall("get_merchant_config", {"p_merchant_id": p_merchant_id}, MerchantConfig)


def post_wallet_transaction(
    *, p_user_id: UUID, p_source_id: str, p_amount: int
) -> RpcCall[Posting]:
    """Credit the award for a purchase, once; skipped when the purchase is refunded."""
    return RpcCall(
        "post_wallet_transaction",
        {"p_user_id": p_user_id, "p_source_id": p_source_id, "p_amount": p_amount},
        Posting,
    )


def reverse_wallet_transaction(*, p_source_id: str) -> RpcCall[Posting]:
    """Take back what was awarded for a refunded purchase, once; skipped when nothing was."""
    return RpcCall("reverse_wallet_transaction", {"p_source_id": p_source_id}, Posting)

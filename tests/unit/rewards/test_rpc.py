"""Typed calls as values."""

from uuid import UUID

from rewards import rpc
from rewards.award import Posting
from stepbase import RpcCall

_USER = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")


def test_a_typed_call_names_function_arguments_and_result() -> None:
    made = rpc.post_wallet_transaction(p_user_id=_USER, p_source_id="p", p_amount=3)

    assert made == RpcCall(
        "post_wallet_transaction", {"p_user_id": _USER, "p_source_id": "p", "p_amount": 3}, Posting
    )

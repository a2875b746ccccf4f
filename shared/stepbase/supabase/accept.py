"""Carries a user's events to `public.stepbase_accept`, and reads what it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepbase.supabase.rpc import RpcError, classify

_FUNCTION = "stepbase_accept"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of them.

    Attributes:
        ids: The events' ids in their order; empty if there were too many.
        retry_after_ms: Then: how long it will be until the user may send so many.
    """

    ids: tuple[str, ...] = ()
    retry_after_ms: int | None = None


def accept(parameters: Mapping[str, Any]) -> Accepted:
    """Write events to the outbox, blocking.

    Args:
        parameters: Those of the SQL function.

    Raises:
        NonRetriableError: If the database refuses an event; the message is for who sent it.
        RpcError: If it did not come to that.
    """
    import httpx
    from postgrest import APIError

    from stepbase.supabase.client import last_status, sync_client

    try:
        response = sync_client().rpc(_FUNCTION, dict(parameters)).execute()
    except APIError as error:
        raise classify(_FUNCTION, error.json(), last_status.get()) from error
    except httpx.HTTPError as error:
        raise _no_answer(error) from error
    return _read(response.data)


async def aaccept(parameters: Mapping[str, Any]) -> Accepted:
    """Write events to the outbox on the running event loop; see `accept`."""
    import httpx
    from postgrest import APIError

    from stepbase.supabase.client import async_client, last_status

    try:
        response = await async_client().rpc(_FUNCTION, dict(parameters)).execute()
    except APIError as error:
        raise classify(_FUNCTION, error.json(), last_status.get()) from error
    except httpx.HTTPError as error:
        raise _no_answer(error) from error
    return _read(response.data)


def _no_answer(error: Exception) -> RpcError:
    return RpcError(f"{_FUNCTION}: no answer ({type(error).__name__})", None, is_outage=True)


def _read(found: Any) -> Accepted:
    if isinstance(found, dict) and isinstance(found.get("ids"), list):
        return Accepted(tuple(found["ids"]))
    if isinstance(found, dict) and isinstance(found.get("retry_after_ms"), int):
        return Accepted(retry_after_ms=found["retry_after_ms"])
    raise RpcError(
        f"{_FUNCTION} answered {found!r:.80}: the migrations of this database are of another version",
        None,
    )

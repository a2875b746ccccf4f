"""supabase-py clients of this project, made once: one for sync code, one per event loop."""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stepbase import config

if TYPE_CHECKING:
    import asyncio

    from supabase import AsyncClient, Client

TIMEOUT_SECONDS = 60
"""Longer than the longest statement timeout Supabase gives the service role by default (8 s) and than
a lock wait worth waiting for; shorter than supabase-py's own 120 s."""

_client: "Client | None" = None
_clients: "WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient]" = WeakKeyDictionary()


def sync_client() -> "Client":
    """Return the client for plain code.

    Raises:
        LookupError: If `SUPABASE_URL` or a secret key is not set.
    """
    global _client
    if _client is None:
        from supabase import Client, ClientOptions

        settings = config.supabase()
        _client = Client(settings.url, settings.secret_key, ClientOptions(**_options()))
    return _client


def async_client() -> "AsyncClient":
    """Return the running event loop's client.

    Raises:
        LookupError: If `SUPABASE_URL` or a secret key is not set.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        from supabase import AsyncClient, AsyncClientOptions

        settings = config.supabase()
        client = AsyncClient(settings.url, settings.secret_key, AsyncClientOptions(**_options()))
        _clients[loop] = client
    return client


def _options() -> dict[str, Any]:
    # Retries belong to the run: supabase-py would sleep inside the call and retry reads by itself.
    return {
        "postgrest_client_retry": False,
        "postgrest_client_timeout": TIMEOUT_SECONDS,
        "auto_refresh_token": False,
        "persist_session": False,
    }


def forget() -> None:
    """Drop the clients, so that the next use reads the environment again."""
    global _client
    _client = None
    _clients.clear()

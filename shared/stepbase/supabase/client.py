"""supabase-py clients of this project, made once: one for plain code, one per event loop."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stepbase import config

if TYPE_CHECKING:
    import asyncio

    from supabase import AsyncClient, Client

TIMEOUT_SECONDS = 70.0
"""A little longer than a call may take in the database (`stepbase_call` and `stepbase_write`: 60 s), so
that the database's error arrives and not a broken connection."""

last_status: ContextVar[int] = ContextVar("stepbase_supabase_status", default=0)
"""HTTP status of this task's last answer: supabase-py's errors do not have it, and the API gateway in
front of PostgREST answers without a code."""

_client: "Client | None" = None
_clients: "WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient]" = WeakKeyDictionary()


def sync_client() -> "Client":
    """Return the client for plain code.

    Raises:
        LookupError: If `SUPABASE_URL` or a secret key is not set.
    """
    global _client
    if _client is None:
        settings = config.supabase()
        import httpx
        from supabase import Client, ClientOptions

        carrier = httpx.Client(
            timeout=TIMEOUT_SECONDS, follow_redirects=True, event_hooks={"response": [_note]}
        )
        options = ClientOptions(httpx_client=carrier, **_options())
        _client = Client(settings.url, settings.secret_key, options)
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
        settings = config.supabase()
        import httpx
        from supabase import AsyncClient, AsyncClientOptions

        carrier = httpx.AsyncClient(
            timeout=TIMEOUT_SECONDS, follow_redirects=True, event_hooks={"response": [_anote]}
        )
        options = AsyncClientOptions(httpx_client=carrier, **_options())
        client = _clients[loop] = AsyncClient(settings.url, settings.secret_key, options)
    return client


def _note(response: Any) -> None:
    last_status.set(response.status_code)


async def _anote(response: Any) -> None:
    last_status.set(response.status_code)


def _options() -> dict[str, Any]:
    # Retries belong to the run: supabase-py would sleep inside the call and retry reads by itself.
    return {
        "postgrest_client_retry": False,
        "auto_refresh_token": False,
        "persist_session": False,
    }


def close() -> None:
    """Close the client for plain code; the next use makes another, with the environment of then."""
    global _client
    client, _client = _client, None
    if client is not None and client.options.httpx_client is not None:
        client.options.httpx_client.close()


async def aclose() -> None:
    """Close the running event loop's client."""
    import asyncio

    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None and client.options.httpx_client is not None:
        await client.options.httpx_client.aclose()

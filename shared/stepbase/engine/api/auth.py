"""Who may ask. Without keys (dev mode, loopback only) everyone may; with keys, nobody without one."""

import hmac

from starlette.requests import Request

from stepbase.engine.settings import Settings
from stepbase.protocol import signing

# Asked by load balancers, which have no key; says nothing about anything.
OPEN_PATHS = frozenset({"/health"})


def may_ask(request: Request, settings: Settings) -> bool:
    """Check the bearer token of an API request (vector `api-start-mode-auth.json`)."""
    if settings.is_dev:
        return True
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and signing.bearer_matches(token, settings.signing_keys)


def may_send(key: str, settings: Settings) -> bool:
    """Check an event key, in constant time."""
    if not settings.event_keys:
        return settings.is_dev
    ok = False
    for known in settings.event_keys:
        ok |= hmac.compare_digest(known.encode(), key.encode())
    return ok

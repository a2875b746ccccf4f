"""The only reader of the environment. Names are Inngest's and Supabase's own.

Each function reads when it is called, so a test or a host may set a variable after the import.
"""

import json
import os
from dataclasses import dataclass, field

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})

CLOUD_API_ORIGIN = "https://api.inngest.com"
CLOUD_EVENT_ORIGIN = "https://inn.gs"
DEV_ORIGIN = "http://127.0.0.1:8288"


def _env(name: str) -> str | None:
    value = os.environ.get(name, "").strip()
    return value or None


@dataclass(frozen=True, slots=True)
class InngestConfig:
    """How functions talk to the server (Inngest's or stepbase's engine); keys stay out of `repr`.

    Attributes:
        is_dev: True in dev mode: no signatures are asked for.
        api_origin: Base URL of the server's API, without a trailing slash.
        event_origin: Base URL for sending events.
        serve_origin: Public origin of the serve URL, or None to use the one of the request (dev only).
        serve_path: Public path of the serve URL, or None.
    """

    is_dev: bool
    api_origin: str
    event_origin: str
    serve_origin: str | None
    serve_path: str | None
    env: str | None
    event_key: str | None = field(repr=False)
    signing_key: str | None = field(repr=False)
    signing_key_fallback: str | None = field(repr=False)


def inngest() -> InngestConfig:
    """Read `INNGEST_*`.

    Dev mode is `INNGEST_DEV` set to a true word or to a URL, which is then both origins
    (`docs/protocol.md`, modes). Anything else is cloud mode.
    """
    dev = os.environ.get("INNGEST_DEV", "").strip()
    is_dev = dev.lower() not in _FALSE
    base = _env("INNGEST_BASE_URL")
    if is_dev and dev.lower() not in _TRUE:
        base = base or dev
    api = _env("INNGEST_API_BASE_URL") or base or (DEV_ORIGIN if is_dev else CLOUD_API_ORIGIN)
    event = (
        _env("INNGEST_EVENT_API_BASE_URL") or base or (DEV_ORIGIN if is_dev else CLOUD_EVENT_ORIGIN)
    )
    return InngestConfig(
        is_dev=is_dev,
        api_origin=api.rstrip("/"),
        event_origin=event.rstrip("/"),
        serve_origin=_env("INNGEST_SERVE_ORIGIN"),
        serve_path=_env("INNGEST_SERVE_PATH"),
        env=_env("INNGEST_ENV"),
        event_key=_env("INNGEST_EVENT_KEY"),
        signing_key=_env("INNGEST_SIGNING_KEY"),
        signing_key_fallback=_env("INNGEST_SIGNING_KEY_FALLBACK"),
    )


@dataclass(frozen=True, slots=True)
class SupabaseConfig:
    """Where the project is and the secret key that opens it."""

    url: str
    secret_key: str = field(repr=False)


def supabase() -> SupabaseConfig:
    """Read `SUPABASE_URL` and a secret key.

    The key is `SUPABASE_SECRET_KEY`, else the `default` (or first) entry of `SUPABASE_SECRET_KEYS`,
    else the legacy `SUPABASE_SERVICE_ROLE_KEY`.

    Raises:
        LookupError: If either is missing; the message names the variable to set.
    """
    url = _env("SUPABASE_URL")
    if url is None:
        raise LookupError(
            "SUPABASE_URL is not set: give it your project's URL, e.g. https://<ref>.supabase.co"
        )
    key = _env("SUPABASE_SECRET_KEY") or _named_secret_key() or _env("SUPABASE_SERVICE_ROLE_KEY")
    if key is None:
        raise LookupError(
            "no Supabase secret key: set SUPABASE_SECRET_KEY (dashboard → Project Settings → API keys), "
            "or the legacy SUPABASE_SERVICE_ROLE_KEY"
        )
    return SupabaseConfig(url.rstrip("/"), key)


def _named_secret_key() -> str | None:
    text = _env("SUPABASE_SECRET_KEYS")
    if text is None:
        return None
    keys = json.loads(text)
    if not isinstance(keys, dict) or not keys:
        raise LookupError(
            'SUPABASE_SECRET_KEYS must be a JSON object like {"default": "sb_secret_…"}'
        )
    return str(keys.get("default") or next(iter(keys.values())))


def database_url() -> str | None:
    """Return `DATABASE_URL`, or None."""
    return _env("DATABASE_URL")


def pg_bin() -> str | None:
    """Return `PG_BIN`, the folder with the PostgreSQL binaries to use, or None."""
    return _env("PG_BIN")


def failpoints() -> str:
    """Return `STEPBASE_FAILPOINTS` (crash tests only), or an empty string."""
    return os.environ.get("STEPBASE_FAILPOINTS", "")


def failpoint_log() -> str | None:
    """Return `STEPBASE_FAILPOINT_LOG`, the file hits are appended to, or None."""
    return _env("STEPBASE_FAILPOINT_LOG")


def environment() -> dict[str, str]:
    """Return a copy of the whole environment, for child processes."""
    return dict(os.environ)

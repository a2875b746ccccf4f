"""The only reader of the environment. Names are Inngest's and Supabase's own.

Each function reads when it is called, so a test or a host may set a variable after the import.
"""

import json
import os
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from stepbase import standin

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})

CLOUD_API_ORIGIN = "https://api.inngest.com"
CLOUD_EVENT_ORIGIN = "https://inn.gs"
DEV_ORIGIN = "http://127.0.0.1:8288"

# The environment's name, or the branch a platform has deployed, as the official SDKs look for it.
_BRANCHES = ("INNGEST_ENV", "RAILWAY_GIT_BRANCH", "RENDER_GIT_BRANCH", "VERCEL_GIT_COMMIT_REF")
# Variables that only these platforms set.
_PLATFORMS = {
    "vercel": "VERCEL",
    "render": "RENDER",
    "railway": "RAILWAY_ENVIRONMENT",
    "cloud-run": "K_SERVICE",
    "aws-lambda": "AWS_LAMBDA_FUNCTION_NAME",
}
_COMPUTE_PATH = "/compute/v1/"


def _env(name: str) -> str | None:
    value = os.environ.get(name, "").strip()
    return value or None


def _word(name: str, default: str = "") -> str:
    return (_env(name) or default).lower()


@dataclass(frozen=True, slots=True)
class InngestConfig:
    """How functions talk to the server (Inngest's or stepbase's engine); keys stay out of `repr`.

    Attributes:
        is_dev: True in dev mode: no signatures are asked for.
        api_origin: Base URL of the server's API, without a trailing slash.
        event_origin: Base URL for sending events.
        serve_origin: Public origin of the serve URL, or None to use the one of the request (dev only).
        serve_path: Public path of the serve URL, or None.
        env: The environment (branch) of the server that is meant, or None for its default one.
        platform: Where this process runs, if it says so: ``"cloud-run"``, ``"vercel"``, …
        streaming: Whether calls are answered by keep-alive streams.
        in_band: Whether a server may have the functions in the answer to its own request.
        unsigned_sync: Whether anyone may ask the app to register itself.
        event_key_fallback: Another event key that our engine accepts, while senders change theirs.
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
    platform: str | None = None
    streaming: bool = False
    in_band: bool = True
    unsigned_sync: bool = True
    event_key_fallback: str | None = field(default=None, repr=False)


def inngest() -> InngestConfig:
    """Read `INNGEST_*`.

    Dev mode is `INNGEST_DEV` set to a true word or to a URL, which is then both origins
    (`docs/protocol.md`, modes). Anything else is cloud mode.
    """
    stand_in = standin.current.get()
    if stand_in is not None:
        found: InngestConfig = stand_in.inngest()
        return found
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
        env=next(filter(None, map(_env, _BRANCHES)), None),
        event_key=_env("INNGEST_EVENT_KEY"),
        signing_key=_env("INNGEST_SIGNING_KEY"),
        signing_key_fallback=_env("INNGEST_SIGNING_KEY_FALLBACK"),
        platform=_platform(),
        streaming=_word("INNGEST_STREAMING") in _TRUE | {"force", "allow"},
        in_band=_word("INNGEST_ALLOW_IN_BAND_SYNC", "true") not in _FALSE,
        unsigned_sync=_word("INNGEST_ENABLE_UNAUTHED_SYNC", "true") not in _FALSE,
        event_key_fallback=_env("STEPBASE_EVENT_KEY_FALLBACK"),
    )


def keys() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the signing keys and the event keys that an engine of this environment accepts."""
    found = inngest()
    signing = tuple(k for k in (found.signing_key, found.signing_key_fallback) if k)
    return signing, tuple(k for k in (found.event_key, found.event_key_fallback) if k)


def engine_origin() -> str:
    """Return where the engine is that people mean: what the SDK's variables name, else this machine's."""
    named = inngest().api_origin
    return DEV_ORIGIN if named == CLOUD_API_ORIGIN else named


def _platform() -> str | None:
    """Return where this process runs; Supabase Compute shows only in the public path."""
    if (_env("INNGEST_SERVE_PATH") or "").startswith(_COMPUTE_PATH):
        return "supabase-compute"
    return next((name for name, sign in _PLATFORMS.items() if _env(sign)), None)


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
    url = _project_url()
    key = _env("SUPABASE_SECRET_KEY") or _named_secret_key() or _env("SUPABASE_SERVICE_ROLE_KEY")
    if key is None:
        raise LookupError(
            "no Supabase secret key: set SUPABASE_SECRET_KEY (dashboard → Project Settings → API keys), "
            "or the legacy SUPABASE_SERVICE_ROLE_KEY"
        )
    return SupabaseConfig(url, key)


def _project_url() -> str:
    url = _env("SUPABASE_URL")
    if url is None:
        raise LookupError(
            "SUPABASE_URL is not set: give it your project's URL, e.g. https://<ref>.supabase.co"
        )
    if re.fullmatch(r"https?://[^/?#@\s\[\]]+(:\d+)?(/[^?#\s]*)?", url) is None:
        raise LookupError(
            f"SUPABASE_URL is {url[:100]!r}, which is no URL of a project: give it one as "
            "https://<ref>.supabase.co, without a query"
        )
    return url.rstrip("/")


def project() -> str | None:
    """Return which project `SUPABASE_URL` names: its reference, or the URL's host; None if not set."""
    url = _env("SUPABASE_URL")
    host = urlsplit(url if "//" in url else f"//{url}").netloc.lower() if url else ""
    return host.removesuffix(".supabase.co") or None


LOCAL: Final = "local"
"""The project of a stack on this machine, whose ports change."""


def engine_project() -> str | None:
    """Return what `project` says, or `LOCAL` if that is this machine."""
    url = _env("SUPABASE_URL") or ""
    host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    return LOCAL if host in ("localhost", "127.0.0.1", "::1") else project()


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


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Whose users are believed.

    Attributes:
        jwks_url: Where the project's auth server publishes its keys.
        issuers: What a token may say issued it; any one of them.
        jwt_secret: The secret of tokens signed with HS256, or None: then there are none.
    """

    jwks_url: str
    issuers: tuple[str, ...]
    jwt_secret: str | None = field(default=None, repr=False)


def supabase_auth() -> AuthConfig:
    """Read `SUPABASE_URL`, and what only some projects need.

    `SUPABASE_JWT_SECRET` is set for tokens signed with the project's legacy secret (HS256) alone.
    `SUPABASE_JWT_ISSUER` (several with commas) is what tokens name where that is not
    `<SUPABASE_URL>/auth/v1`: behind a custom domain, or where the URL is one inside a private network.
    Each may begin with `STEPBASE_` instead: a project's own secrets may not begin with `SUPABASE_`.

    Raises:
        LookupError: If the URL is missing; the message says so.
    """
    url = _project_url()
    issuers = _list("STEPBASE_JWT_ISSUER") or _list("SUPABASE_JWT_ISSUER") or (f"{url}/auth/v1",)
    secret = _env("STEPBASE_JWT_SECRET") or _env("SUPABASE_JWT_SECRET")
    return AuthConfig(f"{url}/auth/v1/.well-known/jwks.json", issuers, secret)


def allowed_origins() -> tuple[str, ...]:
    """Return `STEPBASE_ALLOWED_ORIGINS`: the web origins whose pages may send events, or none.

    Raises:
        LookupError: If one is no origin, and would never match.
    """
    found = _list("STEPBASE_ALLOWED_ORIGINS")
    wrong = [each for each in found if not is_web_origin(each)]
    if wrong:
        raise LookupError(
            f"STEPBASE_ALLOWED_ORIGINS: {wrong[0]!r} is no origin: write https://app.example.com, "
            "several with commas, or * for any page"
        )
    return found


def is_web_origin(text: str) -> bool:
    """Say whether a browser could send this as `Origin`, or it is ``"*"``."""
    return re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+", text) is not None


def _list(name: str) -> tuple[str, ...]:
    return tuple(each.strip().rstrip("/") for each in (_env(name) or "").split(",") if each.strip())


def openai_api_key() -> str | None:
    """Return `OPENAI_API_KEY`, or None."""
    return _env("OPENAI_API_KEY")


def deployment() -> str | None:
    """Return `STEPBASE_DEPLOYMENT`, which staged image this is (`stepbase deploy` writes it), or None."""
    return _env("STEPBASE_DEPLOYMENT")


def database_url() -> str | None:
    """Return `DATABASE_URL`, or None."""
    return _env("DATABASE_URL")


def is_traced() -> bool:
    """Say whether OpenTelemetry's variables name a place that spans are sent to."""
    if _word("OTEL_SDK_DISABLED") == "true" or _word("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(map(_env, names))


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

"""Who may look, and who may act.

On an engine without keys (loopback only) everybody on the machine may: then the page must have been asked
for by a loopback name, so that no page from elsewhere reads it by pointing a name at 127.0.0.1. On an
engine with keys a browser signs in with the signing key and gets a cookie that says until when; a program
sends the key as a bearer token, as for the API. What changes something also needs a token that only our
own pages hold.
"""

import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from stepbase import clock
from stepbase.engine.api import auth
from stepbase.engine.settings import Settings

COOKIE = "stepbase_console"
TOKEN_FIELD = "csrf"
TOKEN_HEADER = "x-stepbase-csrf"
_LASTS = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one engine's console; `secret` signs what browsers are given."""

    settings: Settings
    secret: bytes

    @classmethod
    def of(cls, settings: Settings) -> "Access":
        """Return the rules: engines with the same keys accept each other's cookies."""
        if not settings.signing_keys:
            return cls(settings, secrets.token_bytes(32))
        key = settings.signing_keys[0].encode()
        return cls(settings, hmac.digest(key, b"stepbase console", "sha256"))

    def may_look(self, request: Request) -> bool:
        """Say whether a page may be shown."""
        if self.settings.is_dev:
            return _is_loopback(request.url.hostname or "")
        return auth.may_ask(request, self.settings) or self._is_signed_in(request)

    def may_act(self, request: Request, token: str) -> bool:
        """Say whether an action may be done: it comes from a page of ours."""
        if not self.may_look(request):
            return False
        site = request.headers.get("sec-fetch-site", "same-origin")
        return site in ("same-origin", "none") and hmac.compare_digest(
            token.encode(), self.token(request).encode()
        )

    def token(self, request: Request) -> str:
        """Return what the pages of this browser carry along with each action."""
        return self._sign("act:" + request.cookies.get(COOKIE, ""))

    def sign_in(self, request: Request, key: str, response: Response) -> bool:
        """Give the browser its cookie if `key` is a signing key of this engine."""
        if not _opens(key, self.settings):
            return False
        until = int((clock.utcnow() + _LASTS).timestamp())
        value = f"{until}.{secrets.token_hex(8)}"
        response.set_cookie(
            COOKIE,
            f"{value}.{self._sign('look:' + value)}",
            max_age=int(_LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return True

    def _is_signed_in(self, request: Request) -> bool:
        value, _, signature = request.cookies.get(COOKIE, "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("look:" + value).encode()):
            return False
        return int(value.partition(".")[0]) > clock.utcnow().timestamp()

    def _sign(self, text: str) -> str:
        return hmac.digest(self.secret, text.encode(), "sha256").hex()


def _opens(key: str, settings: Settings) -> bool:
    """Compare in constant time with each signing key, as they are written in the environment."""
    given = key.strip().encode()
    ok = False
    for known in settings.signing_keys:
        ok |= hmac.compare_digest(given, known.encode())
    return ok


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

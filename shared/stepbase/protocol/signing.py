"""Signatures and bearer tokens. Keys are text; nothing here may put one into a message.

A signature is `t=<unix seconds>&s=<hex HMAC-SHA256 of body + t>`. The HMAC key is the signing key
without its `signkey-<env>-` prefix, as text; the bearer token is the SHA-256 of the same key
decoded from hex (vectors `28`, `29`, `api-start-mode-auth.json`).
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable

from stepbase.errors import SignatureError
from stepbase.protocol import names

_PREFIX = re.compile(r"^signkey-\w+-")


def key_text(signing_key: str) -> str:
    """Return a signing key without its `signkey-<env>-` prefix."""
    return _PREFIX.sub("", signing_key)


def canonical_json(body: bytes) -> bytes:
    """Return the body in canonical form (RFC 8785), or as it is when it cannot have one.

    Empty bodies, bodies that are no JSON and bodies with integers beyond 2^53 are left alone.
    """
    if not body:
        return body
    # Imported here: only the server's side and replies changed by a proxy need it.
    import rfc8785

    try:
        return rfc8785.dumps(json.loads(body))
    except (ValueError, rfc8785.CanonicalizationError, RecursionError):
        return body


def sign(body: bytes, signing_key: str, t: int) -> str:
    """Return the header value that signs exactly these bytes at time `t` (seconds)."""
    return f"t={t}&s={_mac(body, signing_key, str(t))}"


def verify(header: str | None, body: bytes, signing_keys: Iterable[str], now: int) -> str:
    """Check a request's signature and return the key that made it.

    The bytes as received are tried first, with each key; only when none fits is the canonical form
    computed, because a proxy may have rewritten the JSON.

    Args:
        header: Value of `x-inngest-signature`, or None.
        now: Our time in seconds; signatures more than five minutes away are refused.

    Raises:
        SignatureError: If it is missing, malformed, too old or too new, or made with another key.
    """
    if not header:
        raise SignatureError(
            "cannot validate signature in production mode without a x-inngest-signature header",
            code="header_missing",
        )
    fields = dict(part.partition("=")[::2] for part in header.split("&"))
    t, mac = fields.get("t", ""), fields.get("s", "")
    if not (t.isascii() and t.isdigit() and len(t) < 16 and mac):
        raise SignatureError('malformed x-inngest-signature: expected "t=<seconds>&s=<hex>"')
    if abs(now - int(t)) > names.SIGNATURE_WINDOW_SECONDS:
        raise SignatureError(
            "the signature's time is more than 5 minutes away from this machine's clock: "
            "a replayed request, or one of the two clocks is wrong",
            code="sig_expired",
        )
    keys = tuple(signing_keys)
    key = _matching(body, mac, keys, t) or _matching(canonical_json(body), mac, keys, t)
    if key is None:
        raise SignatureError(
            "the request was not signed with this app's signing key: check that INNGEST_SIGNING_KEY "
            "here and on the server are the same"
        )
    return key


def _matching(body: bytes, mac: str, keys: tuple[str, ...], t: str) -> str | None:
    found = None
    for key in keys:
        if hmac.compare_digest(_mac(body, key, t).encode(), mac.encode()):
            found = found or key
    return found


def _mac(body: bytes, signing_key: str, t: str) -> str:
    return hmac.new(key_text(signing_key).encode(), body + t.encode(), hashlib.sha256).hexdigest()


def hash_key(signing_key: str) -> str:
    """Return the bearer token a function sends to the server's API for this key.

    Raises:
        ValueError: If the key is not hex after its prefix; the message does not show it.
    """
    try:
        raw = bytes.fromhex(key_text(signing_key))
    except ValueError:
        raise ValueError(
            "the signing key must be an even number of hex digits, optionally after "
            '"signkey-<env>-"; make one with: openssl rand -hex 32'
        ) from None
    return hashlib.sha256(raw).hexdigest()


def bearer_matches(token: str, signing_keys: Iterable[str]) -> bool:
    """Say whether a bearer token opens the API: a hashed key, prefixed or bare, or the key itself.

    Vector `api-start-mode-auth.json`.
    """
    bare = key_text(token).encode()
    ok = False
    for key in signing_keys:
        for accepted in (key_text(key), hash_key(key)):
            ok |= hmac.compare_digest(accepted.encode(), bare)
    return ok

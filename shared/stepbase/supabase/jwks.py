"""The public keys of a project's auth server: fetched when they are needed, and kept.

A set is *fresh* for ten minutes, as long as Supabase's own caches keep it. After that it is fetched again
at the next use; while that fails it is *stale* and used on, for an hour more, by which time the last token
that could be signed before the auth server went away has expired.

A key that a fresh set does not have may be a new one: keys are rotated. So it is fetched again, but not
within 30 seconds of the last time, or anybody could have us ask the auth server as often as they like by
inventing key ids. A new key is therefore unknown for at most 30 seconds; Supabase publishes one before it
signs with it.
"""

import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from stepbase import clock

if TYPE_CHECKING:
    from jwt import PyJWK

FRESH_SECONDS: Final = 600.0
STALE_SECONDS: Final = FRESH_SECONDS + 3600.0
COOLDOWN_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 2.0
"""How soon after a failed fetch the next one may be."""

TIMEOUT_SECONDS: Final = 5.0
_MOST_BYTES: Final = 256 * 1024
_LEAST_RSA_BITS: Final = 2048

_ALGORITHMS: Final = {("EC", "P-256"): "ES256", ("RSA", None): "RS256"}


class UnknownKeyError(LookupError):
    """The auth server has no key of this id."""


class KeysAwayError(OSError):
    """There are no keys to check with: the auth server does not answer, and has not for long."""


class KeySet:
    """Finds keys by their id; any number of threads may ask at once, and one of them fetches.

    Args:
        url: Where the set is published.
        fetch: Returns its bytes, or raises an OSError; blocking.
        now: A clock in seconds that never goes back.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str], bytes] | None = None,
        now: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._url = url
        self._fetch = fetch or _get
        self._now = now
        self._lock = threading.Lock()
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched_at = float("-inf")
        self._not_before = float("-inf")
        self._problem = "not asked yet"

    def blocks(self, kid: str) -> bool:
        """Say whether `find` would ask the server, or wait for somebody who does."""
        is_known = kid in self._keys and self._age() < FRESH_SECONDS
        return not is_known and self._now() >= self._not_before

    def find(self, kid: str) -> "PyJWK":
        """Return a key; blocks while the set is fetched.

        Raises:
            UnknownKeyError: If the set does not have it.
            KeysAwayError: If there is no set, or none that is not too old.
        """
        key = self._keys.get(kid)
        if key is None or self._age() >= FRESH_SECONDS:
            # Who has an old key need not wait for somebody else's fetch.
            self._refresh(waits=key is None or self._age() >= STALE_SECONDS)
            key = self._keys.get(kid)
        if self._age() >= STALE_SECONDS:
            raise KeysAwayError(f"no keys from {self._url}: {self._problem}")
        if key is None:
            raise UnknownKeyError(f"{self._url} has no key of this id")
        return key

    def _age(self) -> float:
        return self._now() - self._fetched_at

    def _refresh(self, *, waits: bool) -> None:
        if not self._lock.acquire(blocking=waits):
            return
        try:
            if self._now() < self._not_before:  # also: somebody has just fetched it
                return
            try:
                self._keys = _read(self._fetch(self._url))
            except (OSError, ValueError, RecursionError) as error:
                self._problem = f"{type(error).__name__}: {error}"
                self._not_before = self._now() + RETRY_SECONDS
                return
            self._fetched_at = self._now()
            self._not_before = self._fetched_at + COOLDOWN_SECONDS
        finally:
            self._lock.release()


def _read(body: bytes) -> "dict[str, PyJWK]":
    """Return the keys that can check tokens, by id; what is of another kind is left out.

    Raises:
        ValueError: If it is no set of keys at all.
    """
    found = json.loads(body)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is no key set: it has no list named keys")
    keys = [(each["kid"], _key(each)) for each in listed if _may_check_tokens(each)]
    return {kid: key for kid, key in keys if key is not None}


def _may_check_tokens(given: Any) -> bool:
    return (
        isinstance(given, dict)
        and isinstance(given.get("kid"), str)
        and given.get("use", "sig") == "sig"
    )


def _key(given: dict[str, Any]) -> "PyJWK | None":
    from jwt import PyJWK, PyJWTError

    kind, curve = given.get("kty"), given.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return None
    algorithm = _ALGORITHMS.get((kind, curve))
    if algorithm is None or given.get("alg", algorithm) != algorithm:
        return None
    try:
        key = PyJWK(given, algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    too_short = algorithm == "RS256" and key.key.key_size < _LEAST_RSA_BITS
    return None if too_short else key


def _get(url: str) -> bytes:
    import httpx

    give_up = clock.monotonic() + TIMEOUT_SECONDS
    body = bytearray()
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code != 200:
                raise OSError(f"HTTP {answer.status_code}")
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES or clock.monotonic() > give_up:
                    raise OSError(f"no end after {len(body)} bytes and {TIMEOUT_SECONDS:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return bytes(body)

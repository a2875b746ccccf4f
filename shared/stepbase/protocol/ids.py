"""Ids as both sides must compute them alike: steps, events, apps, functions, ULIDs."""

import base64
import binascii
import hashlib
import uuid
from functools import lru_cache
from typing import NewType
from urllib.parse import urlsplit, urlunsplit

RunId = NewType("RunId", str)
StepId = NewType("StepId", str)
HashedId = NewType("HashedId", str)
EventId = NewType("EventId", str)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_CHARS = frozenset(_CROCKFORD)
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


@lru_cache(maxsize=4096)  # every call of a run names its steps anew
def hash_step_id(step_id: str, index: int = 0) -> HashedId:
    """Return the 40 hex digits that name a step on the wire.

    The first use of an id hashes the id alone, later uses in the same run `id:1`, `id:2`, …
    (vector `scenario-repeat.json`).
    """
    text = step_id if index == 0 else f"{step_id}:{index}"
    return HashedId(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def ulid(ms: int, entropy: bytes) -> str:
    """Return the 26 characters of a ULID for a time in milliseconds and 10 bytes of entropy."""
    number = (ms << 80) | int.from_bytes(entropy, "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def is_ulid(text: str) -> bool:
    """Say whether `text` has the form of a ULID (26 Crockford digits, upper case)."""
    return len(text) == 26 and text[0] in "01234567" and _ULID_CHARS.issuperset(text)


def ulid_number(text: str) -> int:
    """Return the 128 bits of a ULID."""
    number = 0
    for char in text:
        number = number * 32 + _CROCKFORD.index(char)
    return number


def ulid_ms(text: str) -> int:
    """Return the time in milliseconds that a ULID carries."""
    return ulid_number(text[:10])


def event_id_seed(ms: int, entropy: bytes) -> str:
    """Return the value of the `x-inngest-event-id-seed` header."""
    return f"{ms},{base64.b64encode(entropy).decode()}"


def seeded_event_ids(seed: str, count: int) -> list[str] | None:
    """Return the ids a server gives `count` events sent with this seed, or None if it is malformed.

    Event i, counted from 1, gets the seed's time and its entropy with i added to the last four
    bytes (vector `api-event-ingest.json`, "seed-header"), so a repeated send repeats the ids.
    """
    ms_text, comma, entropy_text = seed.partition(",")
    try:
        entropy = base64.b64decode(entropy_text, validate=True)
        ms = int(ms_text)
    except (ValueError, binascii.Error):
        return None
    if not comma or len(entropy) != 10 or not 0 <= ms < 1 << 48:
        return None
    head, tail = entropy[:6], int.from_bytes(entropy[6:], "big")
    return [
        ulid(ms, head + ((tail + i) & 0xFFFFFFFF).to_bytes(4, "big")) for i in range(1, count + 1)
    ]


def app_uuid(app_name: str) -> uuid.UUID:
    """Return the id a server gives an app (vector `02-register…`: "cap" is `10380af4-…`)."""
    return uuid.uuid5(uuid.NAMESPACE_OID, app_name)


def function_uuid(name: str, step_url: str) -> uuid.UUID:
    """Return the id a server gives a function when it first sees it (vector `03-call…`)."""
    return uuid.uuid5(uuid.NAMESPACE_OID, name + normalize_url(step_url))


def normalize_url(url: str) -> str:
    """Write a serve URL the way servers compare it: loopback addresses become `localhost`."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "0.0.0.0", "::1"):
        return url
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"localhost{port}", parts.path, parts.query, parts.fragment))

"""Answers of event APIs to a request of three events, and what they mean; for both relays."""

import json
from typing import Final

from stepbase.relay.answer import Outcome


def ids(count: int, **more: object) -> bytes:
    """Return a body that names so many events as accepted."""
    return json.dumps({"ids": [f"id{i}" for i in range(count)], **more}).encode()


ANSWERS: Final[list[tuple[int, bytes, Outcome, int]]] = [
    (200, ids(3, status=200), Outcome.ACCEPTED, 3),
    (201, ids(3), Outcome.ACCEPTED, 3),
    (200, ids(4), Outcome.ACCEPTED, 3),
    (200, ids(2), Outcome.AWAY, 2),
    (200, b'{"ids": ["a", "", "c"]}', Outcome.AWAY, 1),
    (200, b'{"ids": ["a", 7, "c"]}', Outcome.AWAY, 1),
    (200, b"<html>welcome</html>", Outcome.AWAY, 0),
    (200, b"[]", Outcome.AWAY, 0),
    (200, b'{"ids": 3}', Outcome.AWAY, 0),
    (204, b"", Outcome.AWAY, 0),
    (400, ids(2, error="bad"), Outcome.REFUSED, 2),
    (400, b'{"ids": [""], "error": "bad"}', Outcome.REFUSED, 0),
    (400, b'{"ids": null, "status": 400, "error": "bad"}', Outcome.REFUSED, 0),
    # Gateways and web frameworks answer so to whatever they do not like: no event is at fault.
    (400, b'{"error": "bad"}', Outcome.AWAY, 0),
    (400, b'{"status": 400, "error": "Bad Request", "path": "/e/x"}', Outcome.AWAY, 0),
    (400, b'{"ids": 7, "error": "bad"}', Outcome.AWAY, 0),
    (400, b'{"ids": null}', Outcome.AWAY, 0),
    (400, ids(3, error="odd"), Outcome.ACCEPTED, 3),
    (422, ids(1, error="bad"), Outcome.REFUSED, 1),
    (400, b"<html>400 Bad Request</html>", Outcome.AWAY, 0),
    (400, b"{}", Outcome.AWAY, 0),
    (400, b"", Outcome.AWAY, 0),
    (413, b"<html>413</html>", Outcome.TOO_LARGE, 0),
    (413, b'{"ids": [""], "status": 413, "error": "too much"}', Outcome.TOO_LARGE, 0),
    *((status, b"", Outcome.AWAY, 0) for status in (301, 302, 401, 403, 404, 405, 408, 429)),
    *((status, ids(3), Outcome.AWAY, 0) for status in (500, 502, 503, 504)),
]

"""What is read from an event API's answers."""

import json

import pytest

from stepbase.relay.answer import MOST_RETRY_AFTER, Outcome, Verdict, read


def ids(count: int, **more: object) -> bytes:
    return json.dumps({"ids": [f"id{i}" for i in range(count)], **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "outcome", "accepted"),
    [
        (200, ids(3, status=200), Outcome.ACCEPTED, 3),
        (201, ids(3), Outcome.ACCEPTED, 3),
        (200, ids(4), Outcome.ACCEPTED, 3),
        (200, ids(2), Outcome.AWAY, 2),
        (200, b'{"ids": ["a", "", "c"]}', Outcome.AWAY, 1),
        (200, b"<html>welcome</html>", Outcome.AWAY, 0),
        (200, b"[]", Outcome.AWAY, 0),
        (204, b"", Outcome.AWAY, 0),
        (400, ids(2, error="bad"), Outcome.REFUSED, 2),
        (400, b'{"ids": [""], "error": "bad"}', Outcome.REFUSED, 0),
        (400, b'{"error": "bad"}', Outcome.REFUSED, 0),
        (400, ids(3, error="odd"), Outcome.ACCEPTED, 3),
        (422, ids(1, error="bad"), Outcome.REFUSED, 1),
        (400, b"<html>400 Bad Request</html>", Outcome.AWAY, 0),
        (400, b"", Outcome.AWAY, 0),
        (413, b"<html>413</html>", Outcome.TOO_LARGE, 0),
        (413, b'{"ids": [""], "status": 413, "error": "too much"}', Outcome.TOO_LARGE, 0),
        *((status, b"", Outcome.AWAY, 0) for status in (301, 302, 401, 403, 404, 405, 408, 429)),
        *((status, ids(3), Outcome.AWAY, 0) for status in (500, 502, 503, 504)),
    ],
)
def test_answers(status: int, body: bytes, outcome: Outcome, accepted: int) -> None:
    verdict = read(status, body, 3)

    assert (verdict.outcome, verdict.accepted) == (outcome, accepted)
    assert bool(verdict.reason) == (outcome is not Outcome.ACCEPTED)


def test_the_reason_names_status_and_error() -> None:
    assert read(400, b'{"ids": [""], "error": "no name"}', 1).reason == "HTTP 400: no name"
    assert "INNGEST_EVENT_KEY" in read(401, b'{"error": "Event key not found"}', 1).reason
    assert "INNGEST_EVENT_API_BASE_URL" in read(404, b"", 1).reason
    assert len(read(500, b"x" * 100_000, 1).reason) < 400


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("86400", MOST_RETRY_AFTER),
        ("inf", MOST_RETRY_AFTER),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert read(503, b"", 1, header) == Verdict(Outcome.AWAY, 0, "HTTP 503: ", seconds)

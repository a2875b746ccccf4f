"""What is read from an event API's answers."""

import pytest
from tests.unit.relay.answers import ANSWERS

from stepbase.relay.answer import MOST_RETRY_AFTER, Outcome, Verdict, read


@pytest.mark.parametrize(("status", "body", "outcome", "accepted"), ANSWERS)
def test_answers(status: int, body: bytes, outcome: Outcome, accepted: int) -> None:
    verdict = read(status, body, 3)

    assert (verdict.outcome, verdict.accepted) == (outcome, accepted)
    assert bool(verdict.reason) == (outcome is not Outcome.ACCEPTED)


def test_the_reason_names_status_and_error() -> None:
    assert read(400, b'{"ids": [""], "error": "no name"}', 1).reason == "HTTP 400: no name"
    assert "INNGEST_EVENT_KEY" in read(401, b'{"error": "Event key not found"}', 1).reason
    assert "INNGEST_EVENT_API_BASE_URL" in read(404, b"", 1).reason
    assert "redirects are not followed" in read(308, b"", 1).reason
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

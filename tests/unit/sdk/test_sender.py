"""Sending events: the request, the tries, the answer. The script is driven by hand: no network, no time."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from stepbase import Event, EventData, NonRetriableError, SendError, config
from stepbase.config import InngestConfig
from stepbase.protocol.ids import seeded_event_ids
from stepbase.sdk import sender
from stepbase.sdk.ask import Pause
from stepbase.sdk.http import Answer, Exchange


class Paid(EventData, name="order/paid"):
    amount: int


def settings(monkeypatch: pytest.MonkeyPatch, **env: str) -> InngestConfig:
    for name, value in {"INNGEST_DEV": "1", **env}.items():
        monkeypatch.setenv(name, value)
    return config.inngest()


def accepted(*ids: str) -> Answer:
    return Answer(200, {}, json.dumps({"ids": ids, "status": 200}).encode())


def drive(
    events: Sequence[Event[Any]], answers: Sequence[Answer], settings: InngestConfig
) -> tuple[list[str] | SendError, list[Exchange], list[float]]:
    """Run the script against these answers; returns its result, the requests and the pauses."""
    script = sender.script(events, settings)
    left = list(answers)
    exchanges: list[Exchange] = []
    pauses: list[float] = []
    answer: Answer | None = None
    while True:
        try:
            asked = script.send(answer)
        except StopIteration as done:
            return done.value, exchanges, pauses
        except SendError as error:
            return error, exchanges, pauses
        if isinstance(asked, Pause):
            pauses.append(asked.seconds)
            answer = None
        else:
            exchanges.append(asked)
            answer = left.pop(0)


def test_events_go_out_as_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    env = settings(monkeypatch, INNGEST_EVENT_KEY="k", INNGEST_ENV="branch")
    events: list[Event[Any]] = [Event(data=Paid(amount=1), id="a"), Event("b", {"n": 1.5})]

    result, (exchange,), pauses = drive(events, [accepted("01A", "01B")], env)

    assert result == ["01A", "01B"]
    assert pauses == []
    assert (exchange.method, exchange.url) == ("POST", "http://127.0.0.1:8288/e/k")
    assert exchange.headers["x-inngest-env"] == "branch"
    first, second = json.loads(exchange.body or b"")
    assert (first["name"], first["data"], first["id"]) == ("order/paid", {"amount": 1}, "a")
    assert set(second) == {"name", "data", "ts"}
    assert "body" not in repr(exchange) or "Paid" not in repr(exchange)


def test_every_try_carries_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    down = Answer(503, {}, b"")
    silent = Answer(0, {}, b"no answer")

    result, exchanges, pauses = drive(
        [Event("a")], [down, silent, down, accepted("01A")], settings(monkeypatch)
    )

    assert result == ["01A"]
    assert len(exchanges) == 4
    seeds = {each.headers["x-inngest-event-id-seed"] for each in exchanges}
    assert len(seeds) == 1 and seeded_event_ids(seeds.pop(), 1)
    assert len({each.body for each in exchanges}) == 1
    assert all(0.1 * 2**i <= pause <= 0.1 * 2**i + 0.1 for i, pause in enumerate(pauses))


def test_it_gives_up_after_five_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Answer(0, {}, b"no answer from http://x: refused")

    result, exchanges, pauses = drive([Event("a")], [silent] * 5, settings(monkeypatch))

    assert isinstance(result, SendError)
    assert "not sent after 5 tries: no answer from http://x: refused" in str(result)
    assert result.is_outage
    assert (len(exchanges), len(pauses)) == (5, 4)


@pytest.mark.parametrize(
    ("answer", "says", "ids"),
    [
        (
            Answer(400, {}, b'{"ids":["01A",""],"status":400,"error":"bad name"}'),
            "bad name",
            ("01A",),
        ),
        (Answer(401, {}, b"no"), "(HTTP 401): no", ()),
        (Answer(200, {}, b"<html>"), "<html>", ()),
        (Answer(500, {}, b"oops"), "(HTTP 500): oops", ()),
        (Answer(503, {}, b'{"error":"no database"}'), "(HTTP 503): no database", ()),
    ],
)
def test_a_refusal_is_an_error_with_what_was_accepted(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, says: str, ids: tuple[str, ...]
) -> None:
    result, exchanges, _ = drive([Event("a")], [answer] * 5, settings(monkeypatch))

    assert isinstance(result, SendError)
    assert says in str(result)
    assert (result.ids, result.status) == (ids, answer.status)
    assert result.is_outage is (answer.status == 503)
    assert len(exchanges) == (5 if answer.status >= 500 else 1)


def test_no_events_are_sent_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive([], [], settings(monkeypatch)) == ([], [], [])


@pytest.mark.parametrize(
    ("events", "env", "says"),
    [
        ([Event("a", {"n": 2**60})], {}, 'event "a" has a payload that cannot be kept: $.n: '),
        ([Event("a", {"n": float("nan")})], {}, "$.n: nan"),
        ([Event("a", {"n": "\x00"})], {}, "$.n: the string contains a NUL"),
        ([Event("a", [1])], {}, "its data must be a JSON object, got [1]"),
        ([Event("a", {"x": "y" * 3 * 1024 * 1024})], {}, "3145728 are allowed"),
        ([Event("a")] * 5001, {}, "5001 events in one send, 5000 are allowed"),
        ([Event("a")], {"INNGEST_DEV": "0"}, "no event key: set INNGEST_EVENT_KEY"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_the_network(
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event[Any]],
    env: dict[str, str],
    says: str,
) -> None:
    result, exchanges, _ = drive(events, [], settings(monkeypatch, **env))

    assert isinstance(result, SendError)
    assert type(result).__name__ == "SendError"
    assert isinstance(result, NonRetriableError) == (not env)  # a key may come with the next deploy
    assert says in str(result)
    assert exchanges == []

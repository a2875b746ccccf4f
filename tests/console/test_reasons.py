"""Why a function did not start, on the event's page: each made to really happen; and what an event woke."""

import asyncio
import html
from typing import Any

import pytest
from tests.console.conftest import Shown
from tests.support.stub_host import Answer, ops

from stepbase.console import reasons
from stepbase.protocol.ids import hash_step_id

NAP = {"op": "Sleep", "id": "z", "name": "1h"}
WAIT = {
    "op": "WaitForEvent", "id": hash_step_id("pay"), "displayName": "pay", "name": "app/paid",
    "opts": {"event": "app/paid", "timeout": "1h", "if": "event.data.id == async.data.id"},
}  # fmt: skip

RULES: dict[str, tuple[dict[str, Any], str]] = {
    "duplicate": ({}, "An event with the same id had already started it within 24 hours"),
    "idempotent": (
        {"idempotency": "event.data.k"}, "the same idempotency key (event.data.k) had started it",
    ),
    "rate_limited": (
        {"rateLimit": {"limit": 1, "period": "60s"}},
        "Its rate limit was used up, and events beyond it are dropped: it starts at most 1 runs in 60s",
    ),
    "skipped": (
        {"singleton": {"mode": "skip"}},
        "Another run of it was going on, and it runs alone: a second run is skipped.",
    ),
    "debounced": (
        {"debounce": {"period": "60s"}},
        "A later event took its place: it starts when no event has come for 60s",
    ),
    "batched": (
        {"batchEvents": {"maxSize": 2, "timeout": "60s"}}, "It went into one run together with other events",
    ),
}  # fmt: skip


async def absent(shown: Shown, event_id: str) -> list[dict[str, Any]]:
    """Return the functions that an event did not start, once there are any."""
    async with asyncio.timeout(20):
        while True:
            data = await shown.data(f"/events/{event_id}")
            if data["not_started"]:
                found: list[dict[str, Any]] = data["not_started"]
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("rule", RULES)
async def test_each_rule_says_what_it_did(shown: Shown, rule: str) -> None:
    options, words = RULES[rule]
    shown.host.handlers["app-f"] = lambda call: ops(NAP)
    await shown.api.register(shown.host.registration(shown.host.function("app-f", **options)))
    ids = {"id": "mine"} if rule == "duplicate" else {}
    sent = [(await shown.api.send({"name": "app/f", "data": {"k": 1}, **ids}))[0] for _ in range(2)]
    dropped = sent[0] if rule == "debounced" else sent[1]

    [why] = await absent(shown, dropped)
    page = html.unescape(await shown.page(f"/events/{dropped}"))

    assert (why["slug"], why["reason"]) == ("app-f", rule)
    assert words in why["why"] and words in page
    if rule == "duplicate":
        [run] = await shown.api.runs_of(sent[0])
        assert why["run_id"] == run["run_id"] and f"/runs/{run['run_id']}" in page


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"debounce": {"period": "60s"}}, "debouncing", "It is waiting for quiet"),
        (
            {"batchEvents": {"maxSize": 5, "timeout": "60s"}},
            "gathering",
            "It is waiting for company",
        ),
    ],
)
async def test_an_event_that_still_waits_says_for_what_and_until_when(
    shown: Shown, options: dict[str, Any], reason: str, words: str
) -> None:
    await shown.api.register(shown.host.registration(shown.host.function("app-f", **options)))
    [event_id] = await shown.api.send({"name": "app/f", "data": {}})

    [why] = await absent(shown, event_id)

    assert why["reason"] == reason and words in why["why"] and why["due_at"] is not None
    assert words in await shown.page(f"/events/{event_id}")


async def test_a_condition_is_shown_with_what_it_read(shown: Shown) -> None:
    picky = shown.host.function("app-picky", triggers=[
        {"event": "app/f", "expression": "event.data.cents > 100 && event.data.to.city == 'Trang'"}
    ])  # fmt: skip
    await shown.api.register(shown.host.registration(picky))
    [event_id] = await shown.api.send({"name": "app/f", "data": {"cents": 7}})

    [why] = (await shown.data(f"/events/{event_id}"))["no_run"]

    assert why["why"] == (
        "Its condition was not met: event.data.cents > 100 && event.data.to.city == 'Trang'"
        " (event.data.cents is 7, event.data.to.city is not there)"
    )


async def test_a_paused_function_is_said_to_be_paused(shown: Shown) -> None:
    await shown.api.register(shown.host.registration(shown.host.function("app-f")))
    await shown.act("/functions/app-f/pause")
    [event_id] = await shown.api.send({"name": "app/f", "data": {}})

    page = await shown.page(f"/events/{event_id}")

    assert (await shown.data(f"/events/{event_id}"))["paused"] == ["app-f"]
    assert "is paused: its run is kept" in page


async def test_an_event_nobody_listens_to_says_what_to_compare(shown: Shown) -> None:
    [event_id] = await shown.api.send({"name": "app/typo", "data": {}})
    assert "No function listens to" in await shown.page(f"/events/{event_id}")

    later = shown.host.function("app-f", triggers=[{"event": "app/typo"}])
    await shown.api.register(shown.host.registration(later))
    [why] = (await shown.data(f"/events/{event_id}"))["no_run"]
    assert why["why"].startswith("It did not listen yet when the event came")


async def test_what_an_event_woke_and_cancelled_is_shown(shown: Shown) -> None:
    def answer(call: dict[str, Any]) -> Answer:
        return Answer(200, "paid") if WAIT["id"] in call["steps"] else ops(WAIT)

    shown.host.handlers["app-f"] = answer
    shown.host.handlers["app-g"] = lambda call: ops(NAP)
    f = shown.host.function("app-f")
    g = shown.host.function("app-g", triggers=[{"event": "app/f"}], cancel=[{"event": "app/paid"}])
    await shown.api.register(shown.host.registration(f, g))
    sent = [(await shown.api.send({"name": "app/f", "data": {"id": i}}))[0] for i in range(2)]
    for each in sent:
        await shown.api.opened(each, "wait")
        await shown.api.opened(each, "sleep")
    [event_id] = await shown.api.send({"name": "app/paid", "data": {"id": 1}, "id": "pay-1"})
    async with asyncio.timeout(20):
        while not any(run["status"] == "Completed" for run in await shown.api.runs_of(sent[1])):
            await asyncio.sleep(0.02)

    woken = (await shown.data(f"/events/{event_id}"))["woken"]

    assert sorted((each["function"], each["what"], each["step"]) for each in woken) == [
        ("app-f", "woken", "pay"), ("app-g", "cancelled", None), ("app-g", "cancelled", None)
    ]  # fmt: skip
    page = await shown.page(f"/events/{event_id}")
    assert "ended the wait pay" in page and "cancelled it" in page
    assert (await shown.data(f"/events/{sent[0]}"))["woken"] == []


def test_a_reason_without_its_rule_is_still_a_sentence() -> None:
    assert reasons.of_rule("rate_limited", {}).endswith("it had another rule then.")
    assert reasons.of_rule("someday", {}) == "someday."

"""Start rules worked out for an event, and read from a sync."""

from uuid import UUID

import pytest

from stepbase.engine import expr
from stepbase.engine.rules import Rule, rules_for
from stepbase.errors import ProtocolError
from stepbase.protocol.start_rules import decode_start_rules

ID = UUID(int=1)


def rules(option: str, value: object, event: dict[str, object] | None = None) -> tuple[Rule, ...]:
    event = event or {"name": "app/f", "data": {"k": "a"}}
    return rules_for(ID, decode_start_rules({option: value}, "app-f"), event, expr.value_of)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("idempotency", "event.data.k", Rule("once", f'once:{ID}:"a"', period=86_400_000_000)),
        ("rateLimit", {"limit": 30, "period": "1m"}, Rule("rate", f"rate:{ID}:null", 3, 2_000_000)),
        ("singleton", {"mode": "cancel", "key": "event.data.k"}, Rule("singleton", '"a"', 1)),
        ("debounce", {"period": "5s"}, Rule("debounce", "null", period=5_000_000)),
        (
            "debounce",
            {"period": "5s", "timeout": "1m"},
            Rule("debounce", "null", period=5_000_000, ends=60_000_000),
        ),
        ("batchEvents", {"maxSize": 7, "timeout": "2s"}, Rule("batch", "null", 7, 2_000_000)),
    ],
)
def test_an_option_becomes_a_rule(option: str, value: object, expected: Rule) -> None:
    assert rules(option, value) == (expected,)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("idempotency", "event.data.k == 'b'"),
        ("rateLimit", {"limit": 1, "period": "1m", "key": "event.data.k == 'b'"}),
        ("batchEvents", {"maxSize": 7, "timeout": "2s", "if": "event.data.k == 'b'"}),
    ],
)
def test_what_is_false_for_an_event_does_not_hold_for_it(option: str, value: object) -> None:
    assert rules(option, value) == ()


def test_an_event_that_invokes_the_function_is_not_gathered() -> None:
    event: dict[str, object] = {"name": "inngest/function.invoked", "data": {}}

    assert rules("batchEvents", {"maxSize": 7, "timeout": "2s"}, event) == ()


def test_a_batch_is_not_rate_limited() -> None:
    raw = {
        "batchEvents": {"maxSize": 7, "timeout": "2s"},
        "rateLimit": {"limit": 1, "period": "1m"},
    }

    found = rules_for(ID, decode_start_rules(raw, "app-f"), {"name": "app/f"}, expr.value_of)

    assert [rule.name for rule in found] == ["batch"]


def test_a_long_key_is_its_hash() -> None:
    [rule] = rules("singleton", {"key": "event.data.k"}, {"name": "e", "data": {"k": "x" * 200}})

    assert len(rule.key) == 64


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({"rateLimit": {"limit": 0, "period": "1m"}}, "rateLimit.limit must be an integer"),
        ({"rateLimit": {"limit": 1, "period": "2d"}}, "rateLimit.period must be a duration"),
        ({"rateLimit": "1/m"}, "rateLimit must be a JSON object"),
        ({"debounce": {"period": "8d"}}, "debounce.period must be a duration"),
        ({"debounce": {"period": "soon"}}, "debounce.period must be a duration"),
        ({"singleton": {"mode": "wait"}}, "singleton.mode must be 'skip' or 'cancel'"),
        ({"batchEvents": {"maxSize": 1.5, "timeout": "1s"}}, "batchEvents.maxSize must be"),
        ({"idempotency": 5}, "idempotency must be a CEL expression"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_sync(raw: dict[str, object], where: str) -> None:
    with pytest.raises(ProtocolError, match=f"function 'app-f': {where}"):
        decode_start_rules(raw, "app-f")

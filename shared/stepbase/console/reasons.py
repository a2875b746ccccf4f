"""Why an event started no run of a function, in words for somebody who sees it for the first time. Pure."""

from collections.abc import Mapping

from stepbase.console import words
from stepbase.engine import celtext, expr
from stepbase.errors import ProtocolError

Config = Mapping[str, object]

_MOST_VALUES = 4
_RULES = {
    "rate_limited": "rateLimit",
    "debounced": "debounce",
    "debouncing": "debounce",
    "batched": "batchEvents",
    "gathering": "batchEvents",
    "skipped": "singleton",
}
_WORDS = {
    "duplicate": "An event with the same id had already started it within 24 hours, so this one is taken for"
    " the same event, sent twice.",
    "idempotent": "An event with the same idempotency key ({rule}) had started it within 24 hours.",
    "rate_limited": "Its rate limit was used up, and events beyond it are dropped: it {rule}.",
    "debounced": "A later event took its place: it {rule}, and runs with the last one.",
    "debouncing": "It is waiting for quiet: it {rule}. It will start then, unless a later event comes first.",
    "batched": "It went into one run together with other events: it {rule}.",
    "gathering": "It is waiting for company: it {rule}.",
    "skipped": "Another run of it was going on, and it {rule}.",
}


def of_rule(reason: str, config: Config) -> str:
    """Say why a rule kept a function from starting; `reason` as in `stepbase.not_started_events`."""
    key = _RULES.get(reason, "")
    rule = "; ".join(words.options_in_words({key: config.get(key)}))
    if reason == "idempotent":
        rule = str(config.get("idempotency") or "")
    text = _WORDS.get(reason, f"{reason}.")
    return text.format(rule=rule or "had another rule then")


def of_silence(conditions: list[str], has_open_trigger: bool, event: Mapping[str, object]) -> str:
    """Say why a function that listens has neither a run nor a reason for this event.

    Args:
        conditions: Of the triggers that its name fits.
        has_open_trigger: One of those has no condition.
        event: As functions see it.
    """
    unmet = [each for each in conditions if not expr.holds(each, {"event": event})]
    if has_open_trigger or len(unmet) < len(conditions):
        return (
            "It did not listen yet when the event came (its app was synced later), or its run has been"
            " deleted by its age."
        )
    said = [f"{each}{_with_values(each, event)}" for each in unmet]
    return f"Its condition was not met: {' or '.join(said)}"


def _with_values(expression: str, event: Mapping[str, object]) -> str:
    """Say what the fields that a condition reads are in the event."""
    try:
        paths = expr.compile_expression(expression).paths
    except ProtocolError:
        return ""
    values = dict.fromkeys(
        f"{'.'.join(map(str, keys))} is {_said(celtext.lookup({'event': event}, keys))}"
        for _, keys, _ in paths
        if keys[0] == "event" and len(keys) > 1
    )
    return f" ({', '.join(list(values)[:_MOST_VALUES])})" if values else ""


def _said(value: object) -> str:
    if value is None:
        return "not there"
    text = words.pretty_value(value)
    return text if len(text) <= 60 else f"{text[:57]}…"

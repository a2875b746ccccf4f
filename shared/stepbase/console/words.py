"""How the console says things: durations, sizes, JSON, and a function's options in sentences. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_CUT = 2_000

ENDED = ("Completed", "Failed", "Cancelled", "Skipped")
LIVE = ("Running", "Scheduled")


def duration(ms: float | None) -> str:
    """Say a number of milliseconds in at most two units: ``"840 ms"``, ``"1.2 s"``, ``"3 d 4 h"``."""
    if ms is None:
        return ""
    if ms < 1_000:
        return f"{max(ms, 0):.0f} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    parts: list[str] = []
    rest = int(ms)
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


def between(seconds: timedelta | None) -> str:
    """Say a `timedelta` as `duration` does."""
    return "" if seconds is None else duration(seconds.total_seconds() * 1_000)


_UNTIL = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d:\d\d:\d\d) UTC")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def waits(text: str | None) -> str:
    """Say what a view says a run waits for as tables have instants: ``"asleep until 01 Dec 19:37:55"``."""
    return _UNTIL.sub(lambda m: f"{m[3]} {_MONTHS[int(m[2])]} {m[4]}", text or "between two calls")


def short(run_id: str) -> str:
    """Return the end of an id: ids of the same moment begin alike."""
    return run_id[-8:]


def size(count: int) -> str:
    """Say a number of bytes: ``"812 B"``, ``"4.1 kB"``, ``"2.0 MB"``."""
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1_000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def pretty(text: str | None) -> str:
    """Indent JSON text; what is none stays as it is."""
    if not text:
        return ""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def cut(text: str, most: int = _CUT) -> tuple[str, bool]:
    """Return the beginning of a text, and whether that is not all of it."""
    return (text, False) if len(text) <= most else (text[:most], True)


def triggers_in_words(config: Mapping[str, object]) -> list[str]:
    """Say what starts a function, one sentence a trigger, from its config as registered."""
    triggers = config.get("triggers")
    said = []
    for each in triggers if isinstance(triggers, Sequence) else ():
        if not isinstance(each, Mapping):
            continue
        if each.get("cron"):
            jitter = f", up to {each['jitter']} later" if each.get("jitter") else ""
            said.append(f"at {each['cron']}{jitter}")
        else:
            condition = f" if {each['expression']}" if each.get("expression") else ""
            said.append(f"event {each.get('event')}{condition}")
    return said or ["only when it is invoked"]


def options_in_words(config: Mapping[str, object]) -> list[str]:
    """Say a function's options, one sentence each, from its config as registered."""
    said: list[str] = []
    for key, sentence in _SENTENCES.items():
        value = config.get(key)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                said.append(" ".join(sentence(each)))
    if config.get("idempotency"):
        said.append(f"starts once a day for each {config['idempotency']}")
    return said


def _concurrency(each: Mapping[str, object]) -> Iterator[str]:
    what = "runs" if each.get("of") == "runs" else "steps"
    yield f"at most {each.get('limit')} {what} at a time"
    yield from _keyed(each)
    if each.get("scope") in ("env", "account"):
        yield f"shared by all that say so ({each['scope']})"


def _throttle(each: Mapping[str, object]) -> Iterator[str]:
    yield f"starts at most {each.get('limit')} runs in {each.get('period')}, later ones wait"
    if each.get("burst"):
        yield f"after a burst of {each['burst']}"
    yield from _keyed(each)


def _rate_limit(each: Mapping[str, object]) -> Iterator[str]:
    yield f"starts at most {each.get('limit')} runs in {each.get('period')}, further events are dropped"
    yield from _keyed(each)


def _debounce(each: Mapping[str, object]) -> Iterator[str]:
    yield f"starts when no event has come for {each.get('period')}"
    if each.get("timeout"):
        yield f"or after {each['timeout']}"
    yield from _keyed(each)


def _batch(each: Mapping[str, object]) -> Iterator[str]:
    yield f"gathers up to {each.get('maxSize')} events for {each.get('timeout')}"
    yield from _keyed(each)


def _singleton(each: Mapping[str, object]) -> Iterator[str]:
    yield "runs alone:"
    yield "a second run is skipped" if each.get("mode") == "skip" else "a second run ends the first"
    yield from _keyed(each)


def _cancel(each: Mapping[str, object]) -> Iterator[str]:
    yield f"is cancelled by {each.get('event')}"
    if each.get("if"):
        yield f"if {each['if']}"
    if each.get("timeout"):
        yield f"within {each['timeout']}"


def _timeouts(each: Mapping[str, object]) -> Iterator[str]:
    if each.get("start"):
        yield f"is cancelled unless it starts within {each['start']}"
    if each.get("finish"):
        yield f"is cancelled unless it ends within {each['finish']}"


def _priority(each: Mapping[str, object]) -> Iterator[str]:
    yield f"goes ahead by {each.get('run')} seconds"


def _keyed(each: Mapping[str, object]) -> Iterator[str]:
    if each.get("key"):
        yield f"for each {each['key']}"


_SENTENCES = {
    "concurrency": _concurrency,
    "throttle": _throttle,
    "rateLimit": _rate_limit,
    "debounce": _debounce,
    "batchEvents": _batch,
    "singleton": _singleton,
    "priority": _priority,
    "cancel": _cancel,
    "timeouts": _timeouts,
}


@dataclass(frozen=True, slots=True)
class Error:
    """An error as pages show it, with what caused it, the nearest first."""

    name: str
    message: str
    stack: str
    causes: Sequence["Error"] = ()


def error(text: str) -> Error:
    """Take the JSON of an error apart."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raw = text
    causes: list[Error] = []
    seen = raw
    while isinstance(seen, Mapping) and isinstance(seen.get("cause"), Mapping) and len(causes) < 10:
        seen = seen["cause"]
        causes.append(_one_error(seen))
    return replace(_one_error(raw), causes=causes)


def _one_error(raw: object) -> Error:
    if not isinstance(raw, Mapping):
        return Error("Error", str(raw), "")
    return Error(
        name=str(raw.get("name") or "Error"),
        message=str(raw.get("message") or ""),
        stack=str(raw.get("stack") or ""),
    )

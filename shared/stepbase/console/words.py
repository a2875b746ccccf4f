"""How the console says things: durations, sizes, JSON, and a function's options in sentences. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from stepbase.console.cronwords import cron_in_words
from stepbase.protocol import names

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_CUT = 2_000
_ABOUT_FAILED = re.compile(r"event\.data\.function_id == '([^']+)'")

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
    return _UNTIL.sub(
        lambda m: f"{m[3]}\u00a0{_MONTHS[int(m[2])]}\u00a0{m[4]}", text or "between two calls"
    )


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


def pretty_value(value: object) -> str:
    """Write a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


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
            said.append(f"{cron_in_words(str(each['cron']))}{jitter}")
        elif failed := _failed_function(each):
            said.append(f"when {failed} has failed for good")
        else:
            condition = f" if {each['expression']}" if each.get("expression") else ""
            said.append(f"event {each.get('event')}{condition}")
    return said or ["only when it is invoked"]


def _failed_function(trigger: Mapping[str, object]) -> str:
    """Return the function whose failure handler has this trigger, or an empty string."""
    if trigger.get("event") != names.EVENT_FUNCTION_FAILED:
        return ""
    found = _ABOUT_FAILED.fullmatch(str(trigger.get("expression") or ""))
    return found[1] if found else ""


def success_rate(completed: int, failed: int) -> str:
    """Say how many of the runs that ended by themselves succeeded: ``"98.5 %"``; empty if none did."""
    both = completed + failed
    if not both:
        return ""
    share = 100 * completed / both
    # Never rounded up to a hundred, or down to nothing.
    return f"{min(share, 99.9) if failed else share:.1f} %" if completed else "0 %"


def options_in_words(config: Mapping[str, object]) -> list[str]:
    """Say a function's options, one sentence each, from its config as registered."""
    said = [_retries(config)] if "steps" in config else []
    for key, sentence in _SENTENCES.items():
        for each in _listed(key, config.get(key)):
            said.append(" ".join(sentence(each)))
    if config.get("idempotency"):
        said.append(f"starts once in 24 hours for each {config['idempotency']}")
    return [each for each in said if each]


def retries_of(config: Mapping[str, object]) -> int:
    """Return how many attempts follow the first, from a config as registered."""
    steps = config.get("steps")
    step = next(iter(steps.values()), None) if isinstance(steps, Mapping) else None
    retries = step.get("retries") if isinstance(step, Mapping) else None
    attempts = retries.get("attempts") if isinstance(retries, Mapping) else None
    return attempts if isinstance(attempts, int) else names.DEFAULT_RETRIES


def _retries(config: Mapping[str, object]) -> str:
    count = retries_of(config)
    if count == 0:
        return "tries each step once"
    return f"tries each step up to {count + 1} times, with growing pauses"


def _listed(key: str, value: object) -> Iterator[Mapping[str, object]]:
    """Yield what an option has as objects, whichever of the forms of the wire it came in."""
    if key == "concurrency" and isinstance(value, Mapping) and ("fn" in value or "step" in value):
        for of, limits in (("runs", value.get("fn")), ("steps", value.get("step"))):
            for limit in _listed(key, limits):
                yield {**limit, "of": of}
        return
    for each in value if isinstance(value, list) else [value]:
        if key == "concurrency" and isinstance(each, int) and not isinstance(each, bool):
            yield {"limit": each}
        elif isinstance(each, Mapping) and each:
            yield each


def _concurrency(each: Mapping[str, object]) -> Iterator[str]:
    if each.get("limit") == 0:
        yield "no limit of steps"
        return
    what = "runs" if each.get("of") == "runs" else "steps"
    yield f"at most {each.get('limit')} {what} at a time"
    yield from _keyed(each)
    if each.get("scope") in ("env", "account"):
        yield f"shared by all that say so ({each['scope']})"


def _engine(each: Mapping[str, object]) -> Iterator[str]:
    if each.get("retryDelay"):
        yield f"tries again after {each['retryDelay']}, then twice as long each time"
    if each.get("lookBack"):
        yield f"{'and ' if each.get('retryDelay') else ''}waits see events of the last {each['lookBack']}"


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
    yield f"gathers up to {each.get('maxSize')} events, for {each.get('timeout')} at most, into one run"
    if each.get("if"):
        yield f"if {each['if']}"
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
        yield f"{'and' if each.get('start') else 'is cancelled'} unless it ends within {each['finish']}"


def _priority(each: Mapping[str, object]) -> Iterator[str]:
    yield f"goes ahead of others by {each.get('run')} seconds"


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
    "stepbase": _engine,
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

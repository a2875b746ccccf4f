"""Syncs: how an app tells a server about its functions (`POST /fn/register`), as the server reads it.

Python's official SDK says `appname` and `deploy_type`, the others camelCase; both are accepted
(vectors `02-register…`, `api-register-variants.json`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.duration import parse_duration
from stepbase.protocol.jsontext import find_unstorable
from stepbase.protocol.lane_options import NO_LIMITS, LaneOptions, decode_lane_options
from stepbase.protocol.schemas import Schemas, decode_schemas
from stepbase.protocol.start_rules import NO_RULES, StartRules, decode_start_rules


@dataclass(frozen=True, slots=True)
class TriggerConfig:
    """What starts a function: an event name (with an optional CEL filter) or a cron schedule."""

    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    jitter: str | None = None


@dataclass(frozen=True, slots=True)
class CancelConfig:
    """An event that cancels a function's runs.

    Attributes:
        event: Its name.
        if_: CEL over `event` (the run's) and `async` (this one), or None for "always".
        timeout: Seconds for which the run can be cancelled this way, or None for a year.
    """

    event: str
    if_: str | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class FunctionConfig:
    """A function as registered.

    Attributes:
        slug: `<app>-<function>`, the composite id.
        name: For people.
        url: Where calls go, with `fnId` and `stepId` in the query.
        triggers: What starts it; empty for invoke-only.
        retries: Attempts after the first, 0–20.
        cancels: Events that cancel its runs.
        start_timeout: Seconds from the run's creation to its first call, or None.
        finish_timeout: Seconds from the first call to the run's end, or None.
        retry_delay: Seconds of the first pause between attempts, which doubles, instead of the wire's
            schedule; only stepbase's engine knows it. None: the schedule.
        look_back: How far its waits for events look back, in seconds, unless a wait says it; or None.
        rules: What decides at an event's arrival whether, when and with what a run starts.
        limits: What decides when its calls may be made, and in which order.
        raw: The whole object as it came.
    """

    slug: str
    name: str
    url: str
    triggers: tuple[TriggerConfig, ...]
    retries: int = names.DEFAULT_RETRIES
    cancels: tuple[CancelConfig, ...] = ()
    start_timeout: float | None = None
    finish_timeout: float | None = None
    retry_delay: float | None = None
    look_back: float | None = None
    rules: StartRules = NO_RULES
    limits: LaneOptions = NO_LIMITS
    raw: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """An app and all its functions; `schemas`: those of its events, or None if it does not tell them."""

    app_name: str
    url: str
    sdk: str
    framework: str
    functions: tuple[FunctionConfig, ...]
    schemas: Schemas | None = None


def decode_register(raw: object) -> RegisterRequest:
    """Read the body of `POST /fn/register`.

    Raises:
        ProtocolError: If it is malformed or breaks a limit; the message names the function and field.
    """
    if not isinstance(raw, dict):
        raise ProtocolError("Invalid request: expected a JSON object")
    lowered = {str(key).lower().replace("_", ""): value for key, value in raw.items()}
    app_name = lowered.get("appname")
    if not isinstance(app_name, str) or not app_name:
        raise ProtocolError("App ID required")
    url = lowered.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise ProtocolError(f"'url' must be the app's http(s) serve URL, got {url!r:.80}")
    functions = lowered.get("functions")
    if functions is None:
        functions = []
    if not isinstance(functions, list):
        raise ProtocolError("'functions' must be a list")
    _refuse_unstorable({**raw, "functions": None}, "the sync")
    decoded = tuple(decode_function(each) for each in functions)
    slugs = [each.slug for each in decoded]
    twice = {slug for slug in slugs if slugs.count(slug) > 1}
    if twice:
        raise ProtocolError(f"function ids must be unique in an app, twice here: {sorted(twice)}")
    return RegisterRequest(
        app_name=app_name,
        url=url,
        sdk=str(lowered.get("sdk") or ""),
        framework=str(lowered.get("framework") or ""),
        functions=decoded,
        schemas=decode_schemas(lowered.get("stepbase")),
    )


def decode_in_band(raw: object) -> RegisterRequest:
    """Read an app's answer to a sync in band, which names some things otherwise.

    Raises:
        ProtocolError: As `decode_register`.
    """
    if not isinstance(raw, dict):
        raise ProtocolError("Invalid answer: expected a JSON object")
    sdk = f"{raw.get('sdk_language')}:v{raw.get('sdk_version')}"
    return decode_register({**raw, "appname": raw.get("app_id"), "sdk": sdk})


def decode_function(raw: object) -> FunctionConfig:
    """Read one function of a sync, or of `functions.config` in the store.

    Raises:
        ProtocolError: As `decode_register`.
    """
    if not isinstance(raw, dict):
        raise ProtocolError("each function must be a JSON object")
    slug = raw.get("id")
    if not isinstance(slug, str) or not slug:
        raise ProtocolError("a function has no 'id'")
    _refuse_unstorable(raw, f"function {slug!r}: function")
    step = _only_step(raw, slug)
    url = _mapping(step.get("runtime"), slug, "steps.step.runtime").get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise _invalid(slug, "steps.step.runtime.url", "an http(s) URL", url)
    timeouts = _mapping(raw.get("timeouts") or {}, slug, "timeouts")
    ours = _mapping(raw.get("stepbase") or {}, slug, "stepbase")
    return FunctionConfig(
        slug=slug,
        name=str(raw.get("name") or slug),
        url=url,
        triggers=_triggers(raw.get("triggers"), slug),
        retries=_retries(step.get("retries"), slug),
        cancels=_cancels(raw.get("cancel"), slug),
        start_timeout=_seconds(timeouts.get("start"), slug, "timeouts.start"),
        finish_timeout=_seconds(timeouts.get("finish"), slug, "timeouts.finish"),
        retry_delay=_seconds(ours.get("retryDelay"), slug, "stepbase.retryDelay"),
        look_back=_look_back(ours.get("lookBack"), slug),
        limits=decode_lane_options(raw, slug),
        raw=_checked_options(raw, slug),
        rules=decode_start_rules(raw, slug),
    )


def _refuse_unstorable(value: object, where: str) -> None:
    """An event name that no column keeps would fail every event of the function, not this sync."""
    problem = find_unstorable(value, where)
    if problem is not None:
        raise ProtocolError(problem, code="invalid_function")


def _invalid(slug: str, where: str, expected: str, got: object) -> ProtocolError:
    return ProtocolError(
        f"function {slug!r}: {where} must be {expected}, got {got!r:.80}", code="invalid_function"
    )


def _mapping(value: object, slug: str, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _invalid(slug, where, "a JSON object", value)
    return value


def _list(value: object, slug: str, where: str, most: int) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _invalid(slug, where, "a list", value)
    if len(value) > most:
        raise _invalid(slug, where, f"a list of at most {most}", f"{len(value)} entries")
    return value


def _only_step(raw: Mapping[str, object], slug: str) -> Mapping[str, object]:
    steps = _mapping(raw.get("steps"), slug, "steps")
    if len(steps) != 1:
        raise _invalid(slug, "steps", "an object with exactly one step", f"{len(steps)} steps")
    return _mapping(next(iter(steps.values())), slug, "steps.step")


def _triggers(value: object, slug: str) -> tuple[TriggerConfig, ...]:
    triggers = []
    for i, each in enumerate(_list(value, slug, "triggers", names.MAX_TRIGGERS)):
        trigger = _mapping(each, slug, f"triggers[{i}]")
        event, cron = trigger.get("event"), trigger.get("cron")
        if bool(event) == bool(cron):
            raise _invalid(slug, f"triggers[{i}]", "one of 'event' and 'cron'", trigger)
        triggers.append(
            TriggerConfig(
                event=_optional_text(event, slug, f"triggers[{i}].event"),
                expression=_optional_text(
                    trigger.get("expression"), slug, f"triggers[{i}].expression"
                ),
                cron=_optional_text(cron, slug, f"triggers[{i}].cron"),
                jitter=_optional_text(trigger.get("jitter"), slug, f"triggers[{i}].jitter"),
            )
        )
    if len(set(triggers)) != len(triggers):
        raise _invalid(slug, "triggers", "a list without duplicates", value)
    return tuple(triggers)


def _cancels(value: object, slug: str) -> tuple[CancelConfig, ...]:
    cancels = []
    for i, each in enumerate(_list(value, slug, "cancel", names.MAX_CANCELS)):
        cancel = _mapping(each, slug, f"cancel[{i}]")
        event = cancel.get("event")
        if not isinstance(event, str) or not event:
            raise _invalid(slug, f"cancel[{i}].event", "an event name", event)
        cancels.append(
            CancelConfig(
                event=event,
                if_=_optional_text(cancel.get("if"), slug, f"cancel[{i}].if"),
                timeout=_seconds(cancel.get("timeout"), slug, f"cancel[{i}].timeout"),
            )
        )
    return tuple(cancels)


def _retries(value: object, slug: str) -> int:
    if value is None:
        return names.DEFAULT_RETRIES
    attempts = _mapping(value, slug, "steps.step.retries").get("attempts")
    if attempts is None:
        return names.DEFAULT_RETRIES
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0:
        raise _invalid(slug, "steps.step.retries.attempts", "an integer from 0 to 20", attempts)
    return min(attempts, names.MAX_RETRIES)


def _optional_text(value: object, slug: str, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _invalid(slug, where, "a string", value)
    return value


def _seconds(value: object, slug: str, where: str) -> float | None:
    text = _optional_text(value, slug, where)
    if text is None:
        return None
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise _invalid(slug, where, 'a duration like "2h"', value) from error


def _look_back(value: object, slug: str) -> float | None:
    seconds = _seconds(value, slug, "stepbase.lookBack")
    if seconds is not None and not 0 < seconds <= names.MAX_LOOK_BACK_SECONDS:
        hours = names.MAX_LOOK_BACK_SECONDS // 3600
        raise _invalid(slug, "stepbase.lookBack", f"a duration of at most {hours} hours", value)
    return seconds


def _checked_options(raw: Mapping[str, object], slug: str) -> Mapping[str, object]:
    """Refuse option combinations no server accepts (reference: function validation at sync)."""
    if raw.get("batchEvents"):
        clashing = [k for k in ("cancel", "debounce", "singleton", "priority") if raw.get(k)]
        if clashing:
            raise _invalid(slug, "batchEvents", f"used without {', '.join(clashing)}", "both")
    return raw

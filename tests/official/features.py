"""What the official SDKs can do: one row a feature, with a cell for each SDK.

A cell must be shown by tests (`shows`), or say why it is not. `test_table.py` fails on a blank one; the
table is printed after the tests.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

Sdk = Literal["python", "typescript"]
SDKS: tuple[Sdk, ...] = ("python", "typescript")


@dataclass(frozen=True)
class Cell:
    """What an SDK has of a feature: `has` is for the tests to show, the other kinds say why not."""

    kind: Literal["has", "absent", "later", "apart"]
    words: str = ""


HAS = Cell("has")


def partly(words: str) -> Cell:
    """The SDK has only this of the feature, which is to be shown."""
    return Cell("has", words)


def absent(words: str) -> Cell:
    """The SDK does not have it."""
    return Cell("absent", words)


def later(words: str) -> Cell:
    """The SDK has it, this version of the engine does not."""
    return Cell("later", words)


def apart(words: str) -> Cell:
    """The SDK has it, and the engine has no part in it."""
    return Cell("apart", words)


@dataclass(frozen=True)
class Feature:
    """A row: its words, and what each SDK has of it."""

    words: str
    python: Cell = HAS
    typescript: Cell = HAS

    def cell(self, sdk: Sdk) -> Cell:
        """Return the cell of an SDK."""
        return self.python if sdk == "python" else self.typescript


_TYPESCRIPT_ALONE = absent("TypeScript alone has it")
_PYTHON_ALONE = absent("Python alone has it")
_SERVER = apart("the server's own")

FEATURES: dict[str, Feature] = {
    # Events and triggers.
    "event fields": Feature("name, data, id, ts, user, v", partly("name, data, id, ts")),
    "sessions": Feature("meta.sessions of an event", _TYPESCRIPT_ALONE),
    "event id": Feature("an id starts a function once within 24 hours"),
    "event id seed": Feature("a request sent again is stored once"),
    "future event": Feature("a ts in the future delays the start"),
    "several triggers": Feature("up to ten for a function"),
    "wildcard trigger": Feature("a/* and a.*"),
    "no trigger": Feature("functions that are only invoked"),
    "trigger expression": Feature("CEL over the event"),
    "cron": Feature("schedule with time zone"),
    "cron jitter": Feature("up to five minutes"),
    "finished events": Feature("inngest/function.finished, failed and cancelled start functions"),
    # Attempts.
    "default retries": Feature("five attempts"),
    "retries": Feature("0 to 20"),
    "retry curve": Feature("of one's own", absent("no SDK sends one"), absent("no SDK sends one")),
    "NonRetriableError": Feature("no further attempt"),
    "RetryAfterError": Feature("the next attempt at that time"),
    "failing host": Feature("a host that is away or answers nonsense"),
    # Flow control.
    "concurrency": Feature("limit"),
    "concurrency key": Feature("a limit for each value"),
    "concurrency scope": Feature("a limit that functions share"),
    "concurrency of runs": Feature("whole runs, not calls", _TYPESCRIPT_ALONE),
    "throttle": Feature("starts are spread"),
    "rate limit": Feature("starts are dropped"),
    "debounce": Feature("the last of several events, after a time of quiet"),
    "priority": Feature("who goes first"),
    "batch": Feature("several events in one run"),
    "idempotency": Feature("an expression starts a function once within 24 hours"),
    "singleton": Feature("one run at a time: skip"),
    "singleton cancel": Feature("one run at a time: the newer"),
    "cancel on": Feature("an event ends runs"),
    "cancel on condition": Feature("if"),
    "cancel on match": Feature("match", absent("if alone")),
    "cancel on timeout": Feature("only for a time"),
    "timeout start": Feature("of a run that waits too long"),
    "timeout finish": Feature("of a run that takes too long"),
    "on failure": Feature("a handler for failed runs"),
    # Steps.
    "step.run": Feature("runs once, memo afterwards"),
    "sync functions": Feature("handlers that are not async", HAS, _PYTHON_ALONE),
    "input of steps": Feature("step.run(id, fn, ...args)"),
    "repeated step ids": Feature("numbered in order"),
    "nested steps": Feature(
        "a step within a step", HAS, partly("the SDK never answers; the run can be cancelled")
    ),
    "step.sleep": Feature("for a duration"),
    "step.sleep_until": Feature("until an instant"),
    "step.wait_for_event": Feature("hit and timeout"),
    "wait condition": Feature("if; match", partly("if_exp")),
    "step.invoke": Feature("by reference, with its result"),
    "step.invoke by id": Feature("also of another app"),
    "failing invoke": Feature("an error, a timeout, an unknown function"),
    "step.send_event": Feature("one or several"),
    "step.ai.infer": Feature("the server asks the model", partly("experimental.ai")),
    "step.ai.wrap": Feature("a call of a model's library as a step", _TYPESCRIPT_ALONE),
    "step.fetch": Feature("the server makes the request", _TYPESCRIPT_ALONE),
    "step.wait_for_signal": Feature("hit and timeout", _TYPESCRIPT_ALONE),
    "step.send_signal": Feature("wakes who waits", _TYPESCRIPT_ALONE),
    "step error": Feature("caught in the function after the last attempt"),
    "parallel": Feature("steps at once", partly("group.parallel of thunks")),
    "race": Feature("the first of several"),
    "planned steps": Feature("steps of different kinds in one group"),
    "defer": Feature("a function after the run", _TYPESCRIPT_ALONE, later("the run fails")),
    "experiment": Feature(
        "group.experiment, scores", _TYPESCRIPT_ALONE, later("metadata is not stored")
    ),
    # Sizes.
    "big state": Feature("memos too large for a call are fetched (use_api)"),
    "big output": Feature("up to its limit, and over it"),
    # The SDK's own, on this engine.
    "middleware": Feature("its hooks are called"),
    "encryption": Feature("middleware that encrypts data, results and events"),
    "remote state": Feature("results elsewhere", partly("experimental"), _PYTHON_ALONE),
    "sentry": Feature(
        "middleware that reports errors", apart("talks to Sentry"), apart("talks to Sentry")
    ),
    "adapters": Feature(
        "web frameworks",
        partly("FastAPI, Flask, Django; not tried: Tornado, DigitalOcean"),
        partly("Node, fetch API"),
    ),
    "streaming": Feature("replies that keep the connection alive"),
    "checkpointing": Feature("steps are told while the call goes on", _TYPESCRIPT_ALONE),
    "typed events": Feature("schemas of events", _TYPESCRIPT_ALONE),
    "serializer": Feature(
        "results of one's own types", partly("PydanticSerializer, output_type"), _PYTHON_ALONE
    ),
    "testing tools": Feature(
        "functions without a server", apart("needs no server"), apart("needs no server")
    ),
    # Between server and SDK.
    "sync out of band": Feature("the app registers itself"),
    "sync in band": Feature("the app answers with its functions"),
    "modified": Feature("false if nothing changed; functions that are gone are archived"),
    "signing key": Feature("calls and answers are signed"),
    "fallback key": Feature("the key before the last one"),
    "event key": Feature("only with it may events be sent"),
    "introspection": Feature("what the app says of itself"),
    "traces": Feature(
        "spans of the user", absent("a guide, no code"), partly("accepted, not stored")
    ),
    "cancel of a run": Feature("by the API", absent("no call for it")),
    "Connect": Feature("WebSocket workers", later("a later part"), later("a later part")),
    "realtime": Feature("channels", later("a later part"), later("a later part")),
    "durable endpoints": Feature(
        "a request as a run", _TYPESCRIPT_ALONE, later("a later part")
    ),
    "environments": Feature("branches", later("one environment"), later("one environment")),
    # The server's.
    "bulk cancel": Feature("tests/engine/test_cancel_many.py", _SERVER, _SERVER),
    "replay": Feature("tests/engine/test_rerun.py", _SERVER, _SERVER),
    "pause": Feature("tests/engine/test_limits.py", _SERVER, _SERVER),
    "metrics": Feature("tests/engine/test_metrics.py", _SERVER, _SERVER),
    "dashboard": Feature("pages to look at runs", _SERVER, _SERVER),
    "MCP": Feature("an endpoint for assistants", _SERVER, _SERVER),
}  # fmt: skip

_declared: set[tuple[str, Sdk]] = set()
_seen: dict[tuple[str, Sdk], list[str]] = defaultdict(list)


def shows(sdk: Sdk, *keys: str) -> pytest.MarkDecorator:
    """Mark a test, or a parameter of one, as showing features.

    Raises:
        ValueError: If there is no such feature, or the SDK does not have it.
    """
    for key in keys:
        if key not in FEATURES or FEATURES[key].cell(sdk).kind != "has":
            raise ValueError(f"{sdk} has no feature {key!r} in the table")
        _declared.add((key, sdk))
    return pytest.mark.shows(sdk, *keys)


def note(item: pytest.Item) -> None:
    """Note in the table what a test that runs shows."""
    _, _, parameter = item.name.partition("[")
    name = parameter.removesuffix("]") or item.name.removeprefix("test_")
    for mark in item.iter_markers("shows"):
        sdk, *keys = mark.args
        for key in keys:
            _seen[key, sdk].append(name)


def blanks(sdk: Sdk) -> list[str]:
    """Return the features an SDK has that no test of the loaded modules shows."""
    return [
        key
        for key, feature in FEATURES.items()
        if feature.cell(sdk).kind == "has" and (key, sdk) not in _declared
    ]


def table() -> Iterator[str]:
    """Yield the lines of the table, without those not asked for; none if nothing was shown."""
    if not _seen:
        return
    width = max(map(len, FEATURES))
    yield "the official SDKs on this engine"
    for key in FEATURES:
        for sdk in SDKS:
            text = _text(key, sdk)
            if text is not None:
                yield f"{key:{width}}  {sdk:10}  {text}"


def _text(key: str, sdk: Sdk) -> str | None:
    cell = FEATURES[key].cell(sdk)
    if cell.kind != "has":
        return f"{cell.kind}: {cell.words}"
    if (key, sdk) in _seen:
        names = ", ".join(sorted(set(_seen[key, sdk])))
        return f"{names} ({cell.words})" if cell.words else names
    return None if (key, sdk) in _declared else "BLANK"

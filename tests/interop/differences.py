"""Where our answers differ from the official Python SDK's, and why. Everything else must be equal.

Answers are compared as one JSON document `{status, headers, body}`; headers are those in `HEADERS`.
A path is written as in messages: `$.body[0].error.stack`, with `[*]` for any index.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.sdk_calls import Reply

HEADERS = (
    "content-type",
    "retry-after",
    "x-inngest-env",
    "x-inngest-expected-server-kind",
    "x-inngest-no-retry",
    "x-inngest-req-version",
    "x-inngest-sdk-handled",
    "x-inngest-signature",
    "x-inngest-sync-kind",
)
"""Compared. Not compared: `x-inngest-sdk`, `user-agent` and `x-inngest-framework` (they name the SDK and
the host) and `server-timing` (its own measurements)."""


@dataclass(frozen=True)
class Difference:
    """One path that may differ.

    Attributes:
        path: Where; `*` alone means that the whole answer differs and is checked by itself.
        reason: Why that is right.
        shapes: Call shapes it holds for, or None for all.
    """

    path: str
    reason: str
    shapes: frozenset[str] | None = None


def _for(*shapes: str) -> frozenset[str]:
    return frozenset(shapes)


DIFFERENCES = (
    Difference("$.body.stack", "file names and our own frames; ours shows only the user's"),
    Difference("$.body[*].error.stack", "file names and our own frames; ours shows only the user's"),
    Difference("$.headers.x-inngest-signature", "signs the time and our own bytes; checked by itself"),
    Difference("$.body[*].error.cause", "ours sends the cause, as TypeScript does"),
    Difference("$.body.cause", "ours sends the cause, as TypeScript does"),
    Difference(
        "$.body[*].name",
        "the end of a sleep that starts now; checked by itself",
        _for(
            "sleep", "05-sleep", "scenario-cancel-on", "scenario-sleepuntil",
            "scenario-demo-run-run-sleep-wait",
        ),
    ),
    Difference(
        "*",
        "NonRetriableError in a step fails the step (206 StepFailed with no-retry), as in TypeScript: user "
        "code can catch it. Python fails the whole run",
        _for("nonretriable in step", "17-nonretriable-in-step", "scenario-stepnonretriable"),
    ),
    Difference(
        "*",
        "RetryAfterError in a step is a StepError with a retry-after header on the 206, as in TypeScript. "
        "Python answers with a 500 of the function",
        _for("retry after in step", "18-retry-after", "scenario-retryafter"),
    ),
    Difference(
        "$.headers.retry-after",
        "whole seconds for a span of time, as TypeScript: no clock has to agree. Python sends a date",
        _for("retry after in function"),
    ),
    Difference(
        "*",
        "a step inside a step is final at once, with the reason; Python tries it again to no avail",
        _for("nested step"),
    ),
    Difference(
        "*",
        "a refused signature says why, and keeps the SDK header, so that the server records the message; "
        "it is a 401 without no-retry, as Python's",
        _for("unsigned call", "wrong signature", "stale signature", "unsigned in-band sync"),
    ),
    Difference(
        "*",
        "a signature older than five minutes is refused, as in TypeScript; Python never looks at the time",
        _for("old signature"),
    ),
    Difference(
        "*",
        "introspection without a signature shows the unauthenticated shape, as the specification says "
        "and Python did before 0.5.19 (now 401)",
        _for("unsigned introspection", "introspection, wrong signature"),
    ),
    Difference("$.body.sdk_version", "our version"),
    Difference("$.body.framework", "the name of the host"),
    Difference("$.body.inspection.sdk_version", "our version"),
    Difference("$.body.inspection.framework", "the name of the host"),
    Difference("$.body.sdk_author", "not Inngest"),
    Difference("$.body.capabilities.connect", "stepbase has no Connect worker"),
    Difference("$.body.inspection.capabilities.connect", "stepbase has no Connect worker"),
    Difference("$.body.api_origin", "without a trailing slash"),
    Difference("$.body.event_api_origin", "without a trailing slash"),
    Difference("$.body.inspection.api_origin", "without a trailing slash"),
    Difference("$.body.inspection.event_api_origin", "without a trailing slash"),
    Difference(
        "$.body.functions[*].steps.step.retries.attempts",
        "retries are always sent (3 if not given): the server's default of 4 is a surprise",
    ),
    Difference(
        "$.body.message",
        "says what to do",
        _for("unknown function", "body is not JSON", "call without ctx", "unexpected step",
             "dev PUT from a cloud server"),
    ),
    Difference(
        "$.body.name",
        "the class of ours",
        _for("unknown function", "body is not JSON", "call without ctx"),
    ),
    Difference(
        "$.body.code", "says more than theirs", _for("body is not JSON", "call without ctx")
    ),
    Difference(
        "$.status",
        "a body that is no call is a 400; Python says 500. Neither is final",
        _for("body is not JSON", "call without ctx"),
    ),
    Difference(
        "$.body.message",
        "names the step, the path and what to do",
        _for("unserialisable result of function"),
    ),
    Difference(
        "*",
        "a result that is no JSON fails its step for good, naming step and path; Python fails the call and "
        "tries it again, though it cannot come out differently",
        _for("unserialisable result of step", "unserialisable result of function"),
    ),
    Difference(
        "$.body[*].data",
        "functions' own configuration is compared by itself",
        _for("26-introspection-GET-sdk"),
    ),
    Difference("$.body.function_count", "another number of functions", _for("26-introspection-GET-sdk")),
)  # fmt: skip


def document(reply: Reply) -> dict[str, Any]:
    """Return what is compared of an answer."""
    headers = {name: reply.headers[name] for name in HEADERS if name in reply.headers}
    body = json.loads(reply.content) if reply.content else None
    return {"status": reply.status, "headers": headers, "body": body}


def unexplained(shape: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return one line for each path that differs without being on the list."""
    allowed = [each for each in DIFFERENCES if each.shapes is None or shape in each.shapes]
    if any(each.path == "*" for each in allowed):
        return []
    patterns = [_pattern(each.path) for each in allowed]
    mine, other = dict(_leaves(ours, "$")), dict(_leaves(theirs, "$"))
    found = []
    for path in sorted(mine.keys() | other.keys()):
        left, right = mine.get(path, "absent"), other.get(path, "absent")
        if left != right and not any(pattern.fullmatch(path) for pattern in patterns):
            found.append(f"{shape}: {path}: ours {left!r:.80}, theirs {right!r:.80}")
    return found


def _pattern(path: str) -> re.Pattern[str]:
    # A path that is a whole object or list covers what is inside.
    return re.compile(re.escape(path).replace(r"\[\*\]", r"\[\d+\]") + r"(?:[.\[].*)?")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, (type(value).__name__, value)

"""Where our answers differ from the official SDKs', and why. Everything else must be equal.

Answers are compared as one JSON document `{status, headers, body}`; headers are those in `HEADERS`.
A path is written as in messages: `$.body[0].error.stack`, with `[*]` for any index. Where the two
official SDKs disagree we follow TypeScript for errors inside steps, Python for bodies.
"""

from dataclasses import dataclass
from typing import Literal

Sdk = Literal["python", "typescript"]
SDKS: tuple[Sdk, ...] = ("python", "typescript")

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
    """A path that may differ.

    Attributes:
        name: As the table in `docs/protocol.md` has it; empty for what can only differ, such as a
            version or a time.
        path: Where; what is inside is covered too, unless it ends in "=". `*` alone means that the
            whole answer differs and is checked by itself.
        reason: Why that is right.
        sdks: The SDKs it differs from.
        shapes: Call shapes it holds for, or None for all.
    """

    name: str
    path: str
    reason: str
    sdks: tuple[Sdk, ...] = SDKS
    shapes: tuple[str, ...] | None = None


_PY: tuple[Sdk, ...] = ("python",)
_TS: tuple[Sdk, ...] = ("typescript",)

CANNOT_BE_EQUAL = tuple(
    Difference("", path, reason)
    for path, reason in {
        "$.body.stack": "file names and frames; ours shows only the user's",
        "$.body[*].error.stack": "file names and frames; ours shows only the user's",
        "$.headers.x-inngest-signature": "signs the time and our own bytes; checked by itself",
        "$.body.sdk_version": "our version",
        "$.body.framework": "the name of the host",
        "$.body.inspection.sdk_version": "our version",
        "$.body.inspection.framework": "the name of the host",
        "$.body.sdk_author": "not Inngest",
        "$.body.sdk": "our version",
        "$.body.cause.stack": "file names and frames; ours shows only the user's",
        "$.body[*].error.cause.stack": "file names and frames; ours shows only the user's",
    }.items()
) + (
    Difference(
        "", "$.body.cause.message", "Python writes a KeyError's message in quotes", _TS,
        ("error with a cause",),
    ),
    Difference(
        "", "$.body[*].error.cause.message", "Python writes a KeyError's message in quotes", _TS,
        ("error in step, with a cause",),
    ),
    Difference("", "$.requests[*].body[*].ts", "the time", shapes=("request of send",)),
    Difference("", "$.body[*].timing", "when a step ran, and how long", _TS),
    Difference("", "$.body.sdk_language", "another language", _TS),
    Difference("", "$.body.inspection.sdk_language", "another language", _TS),
    Difference(
        "", "$.body[*].name", "the end of a sleep that starts now; checked by itself", _PY,
        ("sleep", "05-sleep", "scenario-cancel-on", "scenario-sleepuntil",
         "scenario-demo-run-run-sleep-wait"),
    ),
    Difference(
        "", "$.body[*].data", "functions' own configuration is compared by itself", _PY,
        ("26-introspection-GET-sdk",),
    ),
    Difference(
        "", "$.body.function_count", "another number of functions", _PY,
        ("26-introspection-GET-sdk",),
    ),
)  # fmt: skip

_OF_BOTH: tuple[Difference, ...] = (
    Difference(
        "id of a sent event", "$.requests[*].body[*].id",
        "made of the run and the step, so that a step that is tried again sends nothing twice",
        shapes=("request of send",),
    ),
    Difference(
        "content-type of a fetch", "$.requests[*].content-type", "none: the request has no body",
        shapes=("request of big state",),
    ),
    Difference(
        "a step inside a step", "*",
        "final at once, with the reason; Python answers with other words, TypeScript never",
        shapes=("nested step",),
    ),
    Difference(
        "refused signatures", "*",
        "a 401 that says why and keeps the SDK header, so that the server records the message; without "
        "no-retry, as Python's",
        shapes=("unsigned call", "wrong signature", "stale signature", "unsigned in-band sync"),
    ),
    Difference(
        "introspection without signature", "*",
        "shows the unauthenticated shape, as the specification says and Python did before 0.5.19 (now 401)",
        shapes=("unsigned introspection", "introspection, wrong signature"),
    ),
    Difference(
        "default retries", "$.body.functions[*].steps.step.retries.attempts",
        "retries are always sent (3 if not given): the server's default of 4 is a surprise",
    ),
    Difference(
        "streams of def handlers", "$.status", "as any other; Python streams async handlers alone",
        _PY, ("stream of a def handler",),
    ),
    Difference(
        "signature of a stream", "$.signed",
        "the body in it, as TypeScript; Python signs before it knows one",
        _PY, ("signature of a stream",),
    ),
    Difference(
        "refusals while streaming", "$.status",
        "answered at once, as Python; TypeScript wraps them in a stream too",
        _TS, ("refusal of a stream",),
    ),
    Difference("capabilities", "$.body.capabilities", "stepbase has no Connect worker"),
    Difference("capabilities", "$.body.inspection.capabilities", "stepbase has no Connect worker"),
    Difference("origins", "$.body.api_origin", "without a trailing slash"),
    Difference("origins", "$.body.event_api_origin", "without a trailing slash"),
    Difference(
        "words of a refusal", "$.body.message", "says what to do",
        shapes=("unknown function", "body is not JSON", "call without ctx", "unexpected step",
                "dev PUT from a cloud server"),
    ),
    Difference(
        "words of a refusal", "$.body.name", "the class of ours",
        shapes=("unknown function", "body is not JSON", "call without ctx",
                "dev PUT from a cloud server"),
    ),
    Difference(
        "words of a refusal", "$.body.code", "says more than theirs",
        shapes=("body is not JSON", "call without ctx"),
    ),
    Difference(
        "a body that is no call", "$.status", "a 400; both say 500. Neither is final",
        shapes=("body is not JSON", "call without ctx"),
    ),
    Difference(
        "a result that is no JSON", "*",
        "fails its step for good, naming step and path; both fail the call and try it again, though it "
        "cannot come out differently",
        shapes=("unserialisable result of step", "unserialisable result of function"),
    ),
)  # fmt: skip

_OF_BOTH += (
    Difference(
        "losers of a race", "*",
        "the winner's result goes on at once; both ask for the losers' steps again first",
        shapes=("race, one done",),
    ),
    *(
        Difference(
            "order in nested groups", f"$.body[*].{field}",
            "as the event loop starts their tasks; the order of planned steps means nothing",
            shapes=("parallel groups in groups",),
        )
        for field in ("id", "name", "displayName", "userland.id")
    ),
)  # fmt: skip

_OF_PYTHON = (
    Difference("cause of an error", "$.body[*].error.cause", "sent, as TypeScript does", _PY),
    Difference("cause of an error", "$.body.cause", "sent, as TypeScript does", _PY),
    Difference(
        "NonRetriableError in a step", "*",
        "fails the step (206 StepFailed with no-retry), as in TypeScript: user code can catch it. Python "
        "fails the whole run",
        _PY, ("nonretriable in step", "17-nonretriable-in-step", "scenario-stepnonretriable"),
    ),
    Difference(
        "RetryAfterError in a step", "*",
        "a StepError with a retry-after header on the 206, as in TypeScript. Python answers with a 500 of "
        "the function",
        _PY, ("retry after in step", "18-retry-after", "scenario-retryafter"),
    ),
    Difference(
        "RetryAfterError between steps", "$.headers.retry-after",
        "whole seconds for a span of time, as TypeScript: no clock has to agree. Python sends a date",
        _PY, ("retry after in function",),
    ),
    Difference(
        "type of a step", "$.body[*].opts", "says what kind of step it is, as TypeScript does", _PY,
        ("send", "11-send-event-step", "scenario-sendevent"),
    ),
    Difference(
        "a refused registration", "$.status",
        "relayed with its status, as TypeScript; Python says 200 as if it had worked", _PY,
        ("refused registration",),
    ),
    *(
        Difference(
            "fields of a registration", f"$.body.functions[*].{field}",
            "left out when there is none; Python gives failure handlers empty lists", _PY,
        )
        for field in ("cancel=", "concurrency=")
    ),
    Difference(
        "one step left of a group", "$.body[*]",
        "run at once, as TypeScript; Python plans each step of a group", _PY,
        ("parallel branches, one ahead",),
    ),
    Difference(
        "winner of a race", "$.body", "who was first for the server, as TypeScript; Python has no winner",
        _PY, ("race, both done",),
    ),
    Difference(
        "age of a signature", "*",
        "older than five minutes is refused, as in TypeScript; Python never looks at the time",
        _PY, ("old signature",),
    ),
)  # fmt: skip

_CHECKPOINTED = (
    "checkpoint one step", "checkpoint two steps", "checkpoint after a memo",
    "checkpoint a step, then a group", "checkpoint not saved",
)  # fmt: skip

_OF_TYPESCRIPT = (
    Difference(
        "expected server kind", "$.headers.x-inngest-expected-server-kind",
        "on every reply, as Python; TypeScript says it only in some", _TS,
    ),
    Difference("empty fields of an op", "$.body[*].opts=", "null, as Python; TypeScript says {}", _TS),
    *(
        Difference(
            "empty fields of an op", f"$.body[*].opts.{path}", "null, as Python; TypeScript leaves it out",
            _TS, shapes,
        )
        for path, shapes in {
            "if=": ("wait", "wait, planning"),
            "timeout=": ("invoke", "invoke, planning"),
            "payload.v=": ("invoke", "invoke, planning", "invoke by id"),
        }.items()
    ),
    Difference(
        "names of ops", "$.body[*].name", "the step's id, as Python; TypeScript has none, or sendSignal",
        _TS,
        ("invoke", "invoke, planning", "invoke by id", "fetch", "infer", "signal sent",
         "signal sent, planning"),
    ),
    Difference(
        "send_signal", "$.body[*].data", "the run's id; TypeScript has {runId}", _TS, ("signal sent",)
    ),
    Difference(
        "empty fields of an op", "$.body[*].userland.index", "null, as Python; TypeScript leaves it out",
        _TS,
    ),
    Difference("timing of a step", "$.body[*].timing", "sent, as TypeScript", _PY),
    Difference("code of an error", "$.body[*].error.code", "sent, as Python", _TS),
    Difference("code of an error", "$.body[*].error.__serialized", "not sent, as Python", _TS),
    Difference("code of an error", "$.body[*].error.cause.code", "sent, as Python", _TS),
    Difference("code of an error", "$.body[*].error.cause.__serialized", "not sent, as Python", _TS),
    Difference("code of an error", "$.body.cause.code", "sent, as Python", _TS),
    Difference("code of an error", "$.body.cause.__serialized", "not sent, as Python", _TS),
    Difference("code of an error", "$.body.code", "sent, as Python", _TS),
    Difference("code of an error", "$.body.__serialized", "not sent, as Python", _TS),
    Difference(
        "no-retry: false", "$.headers.x-inngest-no-retry",
        "only said when it is true, as Python", _TS,
        ("error of function", "error with a cause", "retry after in function", "error in step",
         "error in step, with a cause", "error in step, attempt 2", "retry after in step",
         "unexpected step", "call without ctx", "parallel, targeted, fails",
         "streamed error of function", "streamed error in step", "checkpoint a failure",
         "checkpoint a step that fails"),
    ),
    Difference(
        "status of a final error", "$.status", "a 500 with no-retry, as Python; TypeScript says 400", _TS,
        ("nonretriable in function", "run, error memo", "invoke, failed", "infer, failed",
         "fetch, failed", "parallel, one failed", "race, one failed", "checkpoint given up"),
    ),
    Difference(
        "last attempt of a step", "$.headers.x-inngest-no-retry",
        "StepFailed says that it is final, as in Python; TypeScript repeats it in a header", _TS,
        ("error in step, last attempt",),
    ),
    Difference(
        "last attempt of a step", "$.body[*].data",
        "the error stands in `error`, as in Python; TypeScript repeats it in `data`", _TS,
        ("error in step, last attempt", "nonretriable in step",
         "checkpoint a step that fails for good"),
    ),
    Difference(
        "a call without max_attempts", "*",
        "a step's error is never its last then, as in Python; TypeScript refuses the call", _TS,
        ("error in step, no limit",),
    ),
    Difference(
        "a sleep for a span", "$.body[*].name",
        "the moment it ends, as Python; TypeScript sends the span", _TS, ("sleep",),
    ),
    Difference(
        "a planned step that is gone", "$.body",
        "answered at once, as Python; TypeScript waits for it for ten seconds, then lists what it found",
        _TS, ("unexpected step",),
    ),
    Difference(
        "a planned sleep", "*",
        "reported when it is asked for, as Python; TypeScript does not find it and answers after ten seconds",
        _TS, ("sleep until, targeted",),
    ),
    Difference(
        "send_event", "$.body[*].data", "a list of ids, as Python; TypeScript has {ids}", _TS, ("send",)
    ),
    Difference(
        "send_event", "$.body[*].name", "the step's id, as Python; TypeScript says sendEvent", _TS,
        ("send",),
    ),
    Difference(
        "words of a refusal", "$.body.type", "not sent, as Python", _TS, ("unknown function",)
    ),
    Difference(
        "a body that is no call", "*",
        "an answer with the SDK header, as Python; the exception leaves TypeScript for its host", _TS,
        ("body is not JSON",),
    ),
    Difference(
        "refused signatures", "*", "says why, and keeps the SDK header", _TS, ("old signature",)
    ),
    Difference(
        "fields of introspection", "$.body.extra", "not sent, as Python", _TS,
        ("introspection", "signed introspection"),
    ),
    Difference(
        "fields of introspection", "$.body.function_count",
        "without failure handlers, as Python; TypeScript counts them", _TS,
    ),
    Difference(
        "fields of introspection", "$.body.has_signing_key_fallback", "sent, as Python", _TS,
    ),
    Difference(
        "fields of introspection", "$.body.signing_key_hash",
        "whole, as Python; TypeScript shows 12 digits", _TS,
    ),
    Difference(
        "fields of introspection", "$.body.signing_key_fallback_hash",
        "whole, as Python; TypeScript shows 12 digits", _TS,
    ),
    Difference(
        "fields of introspection", "$.body.inspection", "as Python has them", _TS, ("in-band sync",),
    ),
    Difference(
        "fields of a registration", "$.body.env", "left out when there is none, as Python", _TS,
        ("in-band sync",),
    ),
    *(
        Difference("fields of a registration", f"$.body.{name}", reason, _TS)
        for name, reason in {
            "featureObservations": "not sent, as Python",
            "appName": "spelled appname, as Python",
            "appname": "spelled so, as Python",
            "deployType": "spelled deploy_type, as Python",
            "deploy_type": "spelled so, as Python",
            "deployId": "only in the query, as Python",
        }.items()
    ),
    *(
        Difference(
            "serve URL with a query", path, "without the sync's own query, as Python", _TS,
            ("registration",),
        )
        for path in ("$.body.url", "$.body.functions[*].steps.step.runtime.url")
    ),
    Difference(
        "bearer token", "$.headers.authorization",
        "the hash alone, as Python; TypeScript keeps the key's prefix before it", _TS,
        ("registration",),
    ),
    Difference(
        "bearer token", "$.requests[*].authorization",
        "the hash alone, and none without a key, as Python; TypeScript keeps the key's prefix, and sends "
        "an empty one in dev mode", _TS, ("request of signal", "request of big state"),
    ),
    *(
        Difference(
            "private fields of a checkpointed op", f"$.body[*].{field}",
            "not sent; they are TypeScript's own, and servers ignore them", _TS, _CHECKPOINTED,
        )
        for field in (
            "fulfilled", "handled", "hasStepState", "hashedId", "memoizationDeferred", "middleware",
            "mode", "promise", "rawArgs", "transformedResultPromise",
        )
    ),
    *(
        Difference(
            "fields of RunComplete", f"$.body[*].{field}", "all that ops have; TypeScript sends id and data",
            _TS, ("checkpoint one step", "checkpoint two steps", "checkpoint after a memo"),
        )
        for field in ("name", "displayName", "userland")
    ),
    *(
        Difference(
            "a checkpointed run without steps", path,
            "a 200 with the result, as without checkpointing; TypeScript sends RunComplete", _TS,
            ("checkpoint no step",),
        )
        for path in ("$.status", "$.body")
    ),
    Difference(
        "words of a refusal", "$.body.message", "says what has happened", _TS, ("checkpoint given up",)
    ),
    Difference("words of a refusal", "$.body.name", "the class of ours", _TS, ("checkpoint given up",)),
    Difference(
        "concurrency", "$.function.concurrency",
        "always a list, as Python; TypeScript sends what was written", _TS,
        ("option concurrency number", "option everything at once"),
    ),
    Difference(
        "burst of a throttle", "$.function.throttle.burst", "1 is sent, as Python", _TS,
        ("option throttle", "option everything at once"),
    ),
    Difference(
        "retries of a failure handler", "$.function.steps.step.retries.attempts",
        "none, as Python; TypeScript gives it one", _TS, ("option on failure",),
    ),
    Difference(
        "answer to a sync", "$.body",
        "the server's own, as Python; TypeScript makes its own words of it", _TS,
        ("sync", "refused registration"),
    ),
    Difference(
        "the other kind of server", "*", "is refused, as in Python; TypeScript does not look", _TS,
        ("kind", "dev PUT from a cloud server"),
    ),
)  # fmt: skip

DIFFERENCES = _OF_BOTH + _OF_PYTHON + _OF_TYPESCRIPT

"""Where our engine differs from the recorded server, and why. Everything else must be equal.

An entry names a file (of the stub's replies: `file#behaviour`; of an API: `file#entry`) and a path in
what is compared: `{calls, missing, unexpected, runs}` of a run, `{status, body}` of an answer. `*` in a
name stands for anything, `[*]` in a path for any index, and a path for all that is under it. An entry
that no longer differs fails the tests.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Difference:
    """One path that may differ.

    Attributes:
        where: File, behaviour or entry; `*` stands for anything.
        path: Where in it.
        reason: Why that is right, or what is not there yet.
        is_sure: False if timing decides whether it differs.
    """

    where: str
    path: str
    reason: str
    is_sure: bool = True


_VARIANTS = "api-register-variants.json#"
_INGEST = "api-event-ingest.json#"
_AUTH = "api-start-mode-auth.json#"
_REST = "api-rest.json#"
_GRAPHQL = "api-graphql.json#"
_STUB = "stub-sdk-odd-replies.json#"

_ENDS = "a run that could only be polled for ever ends with an error that says why"
_AT_ONCE = "what breaks the protocol can only come again: the run ends at the first, in our words"
_WORDS = "the error is ours: no SDK wrote one"
_AS_REGISTERED = "as the app registered it"
_NAME = "a name of the engine's own"
_VERSION = "ours counts the syncs that changed a function; theirs says 0 here"
_OTHER_EVENT = "theirs was another event, with data"
_NOT_IN_GRAPHQL = "no suite of the SDKs asks for it"
_LOST = "events without a key are refused; theirs says 200 and throws them away"

DIFFERENCES = (
    Difference("*", "$.calls[*].ctx.generation_id", "counts the leases of our items"),
    Difference(
        "*",
        "$.calls[*].headers.x-stepbase-together",
        "says that results of steps run side by side in one call may be checkpointed",
    ),
    Difference("*", "$.calls[*].ctx.job_id", _NAME),
    Difference("*", "$.calls[*].ctx.qi_id", _NAME),
    # Runs.
    Difference(
        "scenario-parallel*.json",
        "$.calls[*].ctx.stack.current",
        "always the length of the stack; theirs is what it was when the call was put in the queue",
    ),
    Difference(
        "scenario-parallelrace.json",
        "$.calls[*].ctx.stack.stack",
        "the order in which the branches end is not repeatable",
        is_sure=False,
    ),
    Difference(
        "scenario-parallelrace.json",
        "$.missing",
        "theirs calls twice with both branches stored, because it looks only every 150 ms",
        is_sure=False,
    ),
    Difference(
        "scenario-parallelrace.json",
        "$.unexpected",
        "ours calls when the first branch is stored, before the second is",
        is_sure=False,
    ),
    Difference(
        "scenario-big-state-use_api.json",
        "$.calls[*].events",
        "with use_api the list is left out: the SDK fetches it, as its protocol says",
    ),
    Difference(
        "scenario-invoketimeout.json",
        "$.calls[*].steps.*.error.error",
        "name and message again in one string",
    ),
    Difference(
        "scenario-cancel-on.json",
        "$.runs.0[*].output",
        "says why the run was cancelled; theirs is {}",
    ),
    Difference(
        "09-invoke.json", "$.calls[*].event.id", "names what invoked it: stable when repeated"
    ),
    Difference(
        "09-invoke.json", "$.calls[*].events[*].id", "names what invoked it: stable when repeated"
    ),
    Difference(
        "09-invoke.json",
        "$.calls[*].event.data._inngest",
        "only what resumes the caller, no tracing",
    ),
    Difference(
        "09-invoke.json",
        "$.calls[*].events[*].data._inngest",
        "only what resumes the caller, no tracing",
    ),
    Difference(
        "09-invoke.json", "$.unexpected", "the second call was not recorded: it is answered by hand"
    ),
    *(
        Difference("23-on-failure-handler.json", f"$.calls[*].{where}.data.{what}", reason)
        for where in ("event", "events[*]")
        for what, reason in (
            ("error.code", "the error as the SDK sent it, which Python gives a code"),
            ("events[*].user", "an event looks the same wherever it is shown"),
        )
    ),
    Difference(
        "27-start-mode-sync-PUT-from-server.json",
        "$.headers.x-inngest-sync-kind",
        "with keys apps are asked for their functions in band, as Inngest Cloud does",
    ),
    Difference(
        "27-start-mode-sync-PUT-from-server.json",
        "$.headers.x-stepbase",
        "says which server asks, so that our SDK tells what only ours reads (docs/protocol.md, registration)",
    ),
    # Replies that no SDK should give.
    Difference(_STUB + "200-no-sdk-header", "$.runs[0].output", _WORDS),
    Difference(_STUB + "206-no-sdk-header", "$.runs[0].output", _WORDS),
    Difference(_STUB + "404-no-sdk-header", "$.runs[0].output", _WORDS),
    Difference(_STUB + "500-html-no-sdk", "$.runs[0].output", _WORDS),
    Difference(_STUB + "302", "$.runs[0].output", _WORDS),
    Difference(
        _STUB + "500-plain-with-sdk",
        "$.runs[0].output",
        "an error is always an object: {name, message}",
    ),
    Difference(_STUB + "206-empty-array", "*", _ENDS),
    Difference(_STUB + "discovery-request", "*", _ENDS),
    Difference(_STUB + "dup-id-in-batch", "*", _ENDS + "; theirs hangs"),
    Difference(_STUB + "re-report-memoized", "*", _ENDS + "; theirs ends it as if all were well"),
    Difference(_STUB + "sleep-bad", "*", _AT_ONCE + "; theirs tries for ever"),
    Difference(_STUB + "206-empty-body", "*", _AT_ONCE),
    Difference(_STUB + "planned-notfound", "*", _AT_ONCE),
    Difference(_STUB + "op-unknown", "*", _AT_ONCE),
    Difference(_STUB + "steperror-no-error", "*", _AT_ONCE),
    Difference(_STUB + "wait-bad-if", "$.runs[0].output", _AT_ONCE),
    Difference(_STUB + "runcomplete", "$.runs[0].output", "the result is kept; theirs loses it"),
    Difference(_STUB + "stream-201", "$.runs[0].output", "the result is kept; theirs loses it"),
    Difference(
        _STUB + "steperror-noretry",
        "$.calls[*].steps.*.error.noRetry",
        "the error as the SDK sent it",
    ),
    Difference(
        _STUB + "two-stepruns",
        "$.missing",
        "two results in one reply bring one more call, not one for each",
    ),
    Difference(
        _STUB + "two-stepruns",
        "$.calls[*].ctx.disable_immediate_execution",
        "results alone open no group of parallel steps",
    ),
    Difference(
        "gateway-and-ai-outbound-requests.json",
        "$[*].headers.authorization",
        "without a key there is no such header; theirs is empty",
    ),
    # Answers.
    Difference(_VARIANTS + "bad-json", "$.body", "in our words, with the status beside them"),
    Difference(_VARIANTS + "wrong-kind-cloud", "$.body", "says what to do, with the status beside it"),
    *(
        Difference(_VARIANTS + entry, "$.body.data", "errors are always {error, status}")
        for entry in (
            "empty-object", "mini-no-appName", "fn-bad-cron", "fn-bad-expression", "fn-no-steps",
            "fn-3-concurrency",
        )
    ),
    *(
        Difference(_VARIANTS + entry, "$.body.error", "names the function and what is wrong with it")
        for entry in ("fn-bad-cron", "fn-bad-expression", "fn-no-steps", "fn-3-concurrency")
    ),
    Difference(_INGEST + "bad-json", "$.body.error", "in our words"),
    Difference(_INGEST + "data-not-object", "$.body.error", "in our words"),
    Difference(_INGEST + "get", "$.body", "says why"),
    Difference(_INGEST + "no-key", "*", _LOST),
    Difference(_AUTH + "event no key", "*", _LOST),
    Difference(_AUTH + "event key as bearer", "*", _LOST),
    Difference(_INGEST + "invoke-endpoint*", "*", "no endpoint invokes functions: send an event"),
    *(
        Difference(_AUTH + entry, "$.body", "errors are always JSON: {error, status}")
        for entry in (
            "runs auth=none", "runs auth=wrong", "runs auth=sha256(ascii)", "register no auth",
            "actions no auth", "dev info",
        )
    ),
    *(
        Difference(
            _AUTH + entry,
            "$.body.data[*].function_version",
            _VERSION,
        )
        for entry in (
            "runs auth=sha256(hex) bare", "runs auth=signkey-prod-+sha256(hex)",
            "runs auth=raw signing key", "runs auth=raw hex",
        )
    ),
    Difference(_AUTH + "gql no auth", "*", "asks for the key like all others; theirs answers anybody"),
    # GraphQL.
    Difference(_GRAPHQL + "run", "$.body.data.run.eventName", "theirs has it in lists of runs alone"),
    Difference(_GRAPHQL + "run", "$.body.data.run.trace.spanID", _NAME),
    Difference(
        _GRAPHQL + "run",
        "$.body.data.run.trace.childrenSpans[*].outputID",
        _NAME,
    ),
    Difference(
        _GRAPHQL + "run-not-found",
        "$.body.errors[*].message",
        "says which run; theirs is its database's",
    ),
    Difference(_GRAPHQL + "run-not-found", "$.body.errors[*].locations", "says where in the query"),
    Difference(_GRAPHQL + "event-functionRuns", "$.body.data.event.payload", _OTHER_EVENT),
    Difference(_GRAPHQL + "eventV2-runs", "$.body.data.eventV2.raw", _OTHER_EVENT + ", and v: null"),
    Difference(_GRAPHQL + "syntax-error", "$.body.errors[*].message", "quotes names in another way"),
    Difference(_GRAPHQL + "runs-filter-function", "*", _NOT_IN_GRAPHQL),
    Difference(_GRAPHQL + "apps", "*", _NOT_IN_GRAPHQL),
    Difference(_GRAPHQL + "cancel-run-mutation", "*", "changes are requests of /v1"),
    Difference(_GRAPHQL + "rerun-mutation", "*", "changes are requests of /v1"),
    # Questions about runs and events.
    *(
        Difference(_REST + entry, "$.body.data", "errors are always {error, status}")
        for entry in (
            "GET /v1/events/bad/runs", "GET /v1/events/unknown", "GET /v1/runs/bad",
            "GET /v1/runs/unknown", "POST /v1/cancellations", "POST /v1/signals unknown",
            "GET /v0/runs/{completed}/actions",
        )
    ),
    *(
        Difference(_REST + entry, "$.status", "the status of the body is that of the answer")
        for entry in (
            "GET /v1/events/bad/runs", "GET /v1/events/unknown", "GET /v1/runs/bad", "GET /v1/runs/unknown",
        )
    ),
    Difference(
        _REST + "GET /v1/runs/unknown", "$.body", "404, in our words; theirs is its database's failure"
    ),
    *(
        Difference(_REST + entry, path, _VERSION)
        for entry, path in (
            ("GET /v1/runs/{id} *", "$.body.data.function_version"),
            ("with bogus Authorization header", "$.body.data.function_version"),
            ("GET /v1/events/{id}/runs (*)", "$.body.data[*].function_version"),
        )
    ),
    *(
        Difference(_REST + entry, path, "says how the event came")
        for entry, path in (
            ("GET /v1/events", "$.body.data[*].source"),
            ("GET /v1/events/{id}", "$.body.data.source"),
        )
    ),
    Difference(_REST + "GET /v1/events*", "$.body.metadata.cached_until", "nothing is cached"),
    Difference(_REST + "GET /v1/events?name=", "$.body.data[*]", "theirs was sent twice, once with data"),
    Difference(_REST + "GET /v1/events/{id}", "$.body.data.data", _OTHER_EVENT),
    Difference(
        _REST + "GET /v1/runs/{id} after cancel", "$.body.data.output", "says that it was cancelled, and how"
    ),
    Difference(_REST + "GET /v1/runs/{id}/jobs sleeping", "$.body.data[*].JobID", _NAME),
    Difference(
        _REST + "GET /v1/runs/{id}/jobs sleeping", "$.body.data[*].Raw", "theirs is its queue's own item"
    ),
    Difference(_REST + "DELETE /v1/runs/*", "$.status", "204: there is no body"),
    Difference(_REST + "GET /v1/cancellations", "*", "cancellations are not kept; theirs cannot find them"),
    *(
        Difference(_REST + "GET /v1/apps/{name}/functions", "$.body[*]." + path, reason)
        for path, reason in (
            ("archived_at", "only what is in use is listed"),
            ("created_at", "not kept"),
            ("is_paused", "theirs cannot be paused"),
            ("config.steps[*].retries", "what holds, also if the app did not say"),
            ("config.cancel", _AS_REGISTERED),
            ("config.concurrency", _AS_REGISTERED),
            ("config.idempotency", _AS_REGISTERED),
            ("config.rateLimit", _AS_REGISTERED),
        )
    ),
    Difference(_REST + "GET /v0/runs/{id}/batch", "$.body[*].user", "as in calls: always there"),
    Difference(_REST + "GET /dev", "*", "SDKs look only whether it answers"),
    Difference(_REST + "GET /unknown-path", "*", "there is no console"),
    Difference(_REST + "GET /v1/unknown", "$.body", "in other words"),
)  # fmt: skip

NOT_THE_ENGINES: Mapping[str, str] = {
    "01-sync-PUT-to-sdk.json": "the request was made by hand, the answer is the SDK's",
    "26-introspection-GET-sdk.json": "a question to the SDK, which no engine asks",
    "sdk-cloud-mode-behaviour.json": "questions to the SDK, which no engine asks",
}
"""Recordings that are not played, and why."""


def unexplained(where: str, found: Mapping[str, tuple[object, object]]) -> list[str]:
    """Return one line for each path that differs without being on the list."""
    allowed = [each for each in DIFFERENCES if fnmatchcase(where, each.where)]
    return [
        f"{where}: {path}: ours {ours!r:.120}, theirs {theirs!r:.120}"
        for path, (ours, theirs) in found.items()
        if not any(covers(each, path) for each in allowed)
    ]


def explaining(where: str, paths: Iterable[str]) -> list[str]:
    """Return the reasons that hold for what differs in a file, each once; not those of all files."""
    own = _own(paths)
    reasons = {
        each.reason: None
        for each in DIFFERENCES
        if each.where != "*"
        and fnmatchcase(where, each.where)
        and any(covers(each, path) for path in own)
    }
    return list(reasons)


def unused(found: Mapping[str, Iterable[str]]) -> list[Difference]:
    """Return the entries that explain nothing in what was found, by name and path."""
    own = {where: _own(paths) for where, paths in found.items()}
    return [each for each in DIFFERENCES if each.is_sure and not _explains(each, found, own)]


def _explains(
    each: Difference, found: Mapping[str, Iterable[str]], own: Mapping[str, Iterable[str]]
) -> bool:
    return any(
        fnmatchcase(where, each.where) and any(covers(each, path) for path in paths)
        for where, paths in (found if each.where == "*" else own).items()
    )


def _own(paths: Iterable[str]) -> list[str]:
    """Return the paths that no entry for all files explains."""
    general = [each for each in DIFFERENCES if each.where == "*"]
    return [path for path in paths if not any(covers(each, path) for each in general)]


def covers(difference: Difference, path: str) -> bool:
    """Say whether an entry's path is this one or above it."""
    if difference.path == "*":
        return True
    pattern = re.escape(difference.path).replace(r"\[\*\]", r"\[\d+\]").replace(r"\*", r"[^.\[]+")
    return re.fullmatch(pattern + r"(?:[.\[].*)?", path) is not None

"""Which feature each compared request shows, and the table of features and SDKs printed at the end."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tests.interop.comparing import compare, document
from tests.interop.differences import DIFFERENCES, SDKS, Difference, Sdk
from tests.support.sdk_calls import Reply

FEATURES: dict[str, tuple[str, ...]] = {
    "function result": ("return", "return *"),
    "function error": ("error of function", "error with a cause"),
    "NonRetriableError": ("nonretriable in *",),
    "RetryAfterError": ("retry after in *",),
    "step.run": ("run", "run none", "run zero", "run empty", "run list", "run false", "run float",
                 "run text", "run, memo*"),
    "repeated step ids": ("twice, *",),
    "step error": ("error in step*",),
    "step error, caught": ("catch, *", "run, error memo"),
    "planned steps": ("run, planning", "sleep, planning"),
    "targeted calls": ("run, targeted*", "unexpected step", "sleep until, targeted"),
    "step.sleep": ("sleep", "sleep, memo"),
    "step.sleep_until": ("sleep until",),
    "step.send_event": ("send", "send, memo", "request of send"),
    "step.wait_for_event": ("wait", "wait, *"),
    "step.invoke": ("invoke*",),
    "step.wait_for_signal": ("signal wait*",),
    "step.send_signal": ("signal sent*", "request of signal"),
    "state that is fetched": ("request of big state",),
    "step.fetch": ("fetch*",),
    "step.ai": ("infer*",),
    "parallel steps": ("parallel", "parallel, *", "parallel after *", "parallel before *"),
    "parallel branches": ("parallel branches*", "parallel groups*"),
    "race": ("race", "race, *"),
    "batches": ("events of a batch",),
    "failure handlers": ("failure handler*",),
    "checkpointing": ("checkpoint *",),
    "step within step": ("nested step",),
    "streaming": ("streamed *", "stream of *", "signature of a stream", "refusal of a stream"),
    "results that are no JSON": ("unserialisable *",),
    "bodies that are no call": ("body is not JSON", "call without ctx", "unknown function"),
    "trust probe": ("probe",),
    "signatures": ("fallback key", "rewritten body", "unsigned call", "wrong signature",
                   "stale signature", "old signature"),
    "introspection": ("introspection*", "signed introspection", "unsigned introspection", "kind"),
    "sync out of band": ("sync", "registration", "refused registration",
                         "dev PUT from a cloud server"),
    "sync in band": ("in-band sync", "unsigned in-band sync"),
    "option retries": ("option retries", "option no retries"),
    "triggers": ("option event *", "option cron*", "option several triggers*"),
    **{f"option {name}": (f"option {name}*",) for name in (
        "name", "concurrency", "throttle", "rate limit", "debounce", "priority", "batch",
        "idempotency", "singleton", "cancel on", "timeouts", "on failure", "everything",
    )},
}  # fmt: skip
"""By feature, the shapes that show it; the first pattern that fits counts."""

ABSENT: dict[tuple[Sdk, str], str] = {
    ("python", "checkpointing"): "TypeScript alone has it",
    ("python", "step.wait_for_signal"): "TypeScript alone has it",
    ("python", "step.send_signal"): "TypeScript alone has it",
    ("python", "step.fetch"): "TypeScript alone has it",
}
"""Features an SDK does not have."""

UNASKED: dict[tuple[Sdk, str], str] = {
    ("typescript", "nested step"): "a step inside a step",
    ("typescript", "wait, targeted"): "a planned sleep",
}
"""Requests an SDK never answers, with the name of the difference."""

NOT_HERE: dict[str, tuple[Sdk, ...]] = {
    "Connect": SDKS,
    "realtime": SDKS,
    "defer": ("typescript",),
    "durable endpoints": ("typescript",),
    "group.experiment": ("typescript",),
    "scores": ("typescript",),
    "sessions": ("typescript",),
    "step.ai.wrap": ("typescript",),
}
"""Features that stepbase does not have, with the SDKs that do."""

_NOT_ASKED = "not asked: these tests were not all chosen"
_seen: dict[tuple[str, Sdk], set[str]] = defaultdict(set)
_used: set[Difference] = set()


def feature_of(shape: str) -> str:
    """Return the feature a shape shows."""
    for feature, patterns in FEATURES.items():
        if any(fnmatchcase(shape, pattern) for pattern in patterns):
            return feature
    raise LookupError(f"no feature has the shape {shape!r}")


def differing(sdk: Sdk, shape: str, ours: Reply, theirs: Reply) -> list[str]:
    """Compare two answers, note it in the table, and return what is not explained."""
    return differing_documents(sdk, shape, document(ours), document(theirs))


def differing_documents(
    sdk: Sdk, shape: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[str]:
    """Compare two documents; see `differing`."""
    comparison = compare(sdk, shape, ours, theirs)
    _seen[feature_of(shape), sdk] |= comparison.names
    _used.update(comparison.used)
    return comparison.unexplained


def note(sdk: Sdk, shape: str, names: set[str]) -> None:
    """Note what a test has compared by itself."""
    _seen[feature_of(shape), sdk] |= names


def table() -> Iterator[str]:
    """Yield the lines of the table, if anything was compared."""
    if not _seen:
        return
    width = max(map(len, FEATURES))
    for (sdk, shape), name in UNASKED.items():
        if (feature_of(shape), "python") in _seen:
            note(sdk, shape, {name})
    yield "stepbase beside the official SDKs"
    for feature in FEATURES:
        for sdk in SDKS:
            yield f"{feature:{width}}  {sdk:10}  {_cell(feature, sdk)}"
    for feature, sdks in NOT_HERE.items():
        for sdk in SDKS:
            cell = "not in stepbase" if sdk in sdks else "not in that SDK"
            yield f"{feature:{width}}  {sdk:10}  {cell}"
    for each in stale():
        yield f"listed for nothing: {each.name}, {each.path}"


def stale() -> list[Difference]:
    """Return the entries of the list that explained nothing, if every feature was asked."""
    if any(_cell(feature, sdk) == _NOT_ASKED for feature in FEATURES for sdk in SDKS):
        return []
    return [each for each in DIFFERENCES if each not in _used]


def _cell(feature: str, sdk: Sdk) -> str:
    if (sdk, feature) in ABSENT:
        return f"not in that SDK: {ABSENT[sdk, feature]}"
    names = _seen.get((feature, sdk))
    if names is None:
        return _NOT_ASKED
    return f"differs on purpose: {', '.join(sorted(names))}" if names else "same"

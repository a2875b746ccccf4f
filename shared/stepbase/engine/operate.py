"""What people ask of runs from outside: make one again, cancel many."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from stepbase.engine import expr
from stepbase.engine.expr import Expression
from stepbase.engine.lanes import lane_of, priority_of
from stepbase.engine.registry import Registry
from stepbase.engine.starts import Function, Rerun, pauses_of
from stepbase.engine.store import Store
from stepbase.protocol.ids import hash_step_id, ulid
from stepbase.protocol.jsontext import dumps, loads

_PAGE = 2000
_CANCEL_AT_ONCE = 256
# Events may have 3 MiB each.
_EVENTS_AT_ONCE = 64
_CANCELLED = dumps({"name": "Cancelled", "message": "cancelled in bulk through the API"})


@dataclass(frozen=True, slots=True)
class Again:
    """How a run is to be made again.

    Attributes:
        run_id: The run, which has ended.
        step: Id (or its hash) of the step to begin at, or None for the whole.
        input: What that step runs with instead of its own arguments, or None.
    """

    run_id: str
    step: str | None = None
    input: Sequence[object] | None = None


async def rerun(
    store: Store, registry: Registry, again: Again, new_id: Callable[[], str]
) -> tuple[str, str]:
    """Make a run again; return the new run's id, and what `Store.rerun` says of it."""
    rows = await store.get_runs(run_id=again.run_id)
    if not rows:
        return "", "unknown"
    function = await registry.get(rows[0]["function_id"])
    event = await store.get_event(rows[0]["event_id"])
    if function is None or function.is_archived or event is None:
        return "", "gone"
    parsed = loads(event["payload"])
    assert isinstance(parsed, dict)  # events are objects
    run_id = new_id()
    wanted = Rerun(
        old=again.run_id,
        run_id=run_id,
        version=function.version,
        deadline=function.config.start_timeout,
        steps=[] if again.step is None else [again.step, hash_step_id(again.step)],
        input=None if again.input is None else dumps({"input": list(again.input)}),
        pauses=pauses_of(function.config.cancels, parsed, expr.holds),
        lane=lane_of(function.function_id, function.config.limits, parsed, expr.value_of),
        priority=priority_of(function.config.limits, parsed, expr.value_of),
    )
    return run_id, await store.rerun(wanted)


async def cancel_many(
    store: Store,
    functions: Sequence[Function],
    after: datetime | None,
    before: datetime,
    condition: Expression | None,
) -> int:
    """Cancel the live runs of functions that were created between two times; return how many.

    What ended one page is not undone when a later one fails: asked again, it goes on with the rest.
    """
    count = 0
    for function in functions:
        async for runs in _live(store, function, after, before):
            if condition is not None:
                runs = await _fitting(store, runs, condition)
            for i in range(0, len(runs), _CANCEL_AT_ONCE):
                count += len(await store.cancel(runs[i : i + _CANCEL_AT_ONCE], _CANCELLED))
    return count


async def _live(
    store: Store, function: Function, after: datetime | None, before: datetime
) -> AsyncIterator[list[str]]:
    last: str | None = "" if after is None else _first_id(after)
    while last is not None:
        runs, last = await store.live_runs(function.function_id, last, _first_id(before), _PAGE)
        if runs:
            yield runs


def _first_id(instant: datetime) -> str:
    """Return the lowest run id of a time: ids carry when a run was created."""
    return ulid(max(0, int(instant.timestamp() * 1000)), bytes(10))


async def _fitting(store: Store, runs: Sequence[str], condition: Expression) -> list[str]:
    found = []
    for i in range(0, len(runs), _EVENTS_AT_ONCE):
        for row in await store.get_run_events(runs[i : i + _EVENTS_AT_ONCE]):
            if condition.is_true({"event": loads(row["event"])}):
                found.append(row["run_id"])
    return found

"""Events to runs: which functions an event starts, and what each start needs. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from stepbase.engine import celtext
from stepbase.engine.lanes import NO_LANE, Lane, lane_of, priority_of
from stepbase.engine.match import Wait, wait_for, wildcard_prefixes
from stepbase.engine.rules import Rule, rules_for
from stepbase.protocol import names
from stepbase.protocol.ids import hash_step_id
from stepbase.protocol.sync import CancelConfig, FunctionConfig

_CANCEL_SECONDS = 365 * 86_400.0
_ABOUT = ("data", "_inngest")


@dataclass(frozen=True, slots=True)
class Event:
    """An event about to be stored.

    Attributes:
        id: Internal ULID.
        event_id: The sender's id, or None.
        payload: The event as functions see it, as JSON text.
        parsed: The same, parsed.
        source: "api" or "outbox".
        outbox_id: The outbox row it was taken from, or None.
        target: Slug of the one function it is for, whatever that one's triggers are, or None.
    """

    id: str
    event_id: str | None
    name: str
    payload: str
    parsed: Mapping[str, object]
    ts: datetime
    source: str = "api"
    outbox_id: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the engine knows it."""

    function_id: UUID
    app_name: str
    version: int
    config: FunctionConfig
    is_paused: bool = False
    is_archived: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """A cancel_on of one run; `expires` in seconds from its start."""

    hash: str
    event_name: str
    wait: Wait
    expires: float


@dataclass(frozen=True, slots=True)
class Buffered:
    """The buffer whose events a start takes.

    Attributes:
        gen: With which it was taken.
        event_ids, payloads: All events of a batch, in order; empty for a debounce.
    """

    id: str
    gen: int
    event_ids: tuple[str, ...] = ()
    payloads: tuple[str, ...] = ()


@dataclass(slots=True)
class Start:
    """A run to be started.

    Attributes:
        event: Place of its event in the batch, from 1.
        key: The sender's event id, which de-duplicates, or None.
        due: When it starts, or None for now.
        deadline: Seconds in which the first call must happen, or None.
        parent: "<run>.<hash>" of the step that invoked it, or None.
        rules: What may keep it from starting, or starts it later or with others.
        lane: Where its calls wait if they are limited.
        priority: Seconds by which it goes before others.
        buffer: Where its events have waited, or None.
        is_direct: The engine has a free slot: lease the item to it in the same statement.
    """

    event: int
    run_id: str
    function: Function
    key: str | None
    due: datetime | None
    deadline: float | None
    pauses: tuple[Pause, ...]
    parent: str | None = None
    rules: tuple[Rule, ...] = ()
    lane: Lane = NO_LANE
    priority: float = 0.0
    buffer: Buffered | None = None
    is_direct: bool = False

    @property
    def waits(self) -> Rule | None:
        """The rule that has it start later, or None."""
        return next((rule for rule in self.rules if rule.name in ("debounce", "batch")), None)

    @property
    def function_id(self) -> UUID:
        """The function's id."""
        return self.function.function_id

    @property
    def version(self) -> int:
        """The function's version at the start."""
        return self.function.version


@dataclass(frozen=True, slots=True)
class Rerun:
    """A run to be made again.

    Attributes:
        old, run_id: The run that has ended, and the id of the new one.
        version: The function's version now.
        deadline: Seconds in which the first call must happen, or None.
        steps: The step to begin at, under any of these hashes; empty for the whole run.
        input: `{"input": […]}` for that step, as JSON text, or None.
        pauses: What would cancel it.
        lane, priority: As in Start.
    """

    old: str
    run_id: str
    version: int
    deadline: float | None
    steps: Sequence[str]
    input: str | None
    pauses: Sequence[Pause]
    lane: Lane = NO_LANE
    priority: float = 0.0


@dataclass(frozen=True, slots=True)
class Ingest:
    """One statement's worth of events and the runs they start."""

    events: Sequence[Event]
    starts: Sequence[Start] = field(default_factory=list)


class Functions:
    """All functions, found by id or by the event that starts them."""

    def __init__(self, functions: Sequence[Function]) -> None:
        self.by_id = {each.function_id: each for each in functions}
        self.by_slug = {each.config.slug: each for each in functions}
        self.invocable = frozenset(each.config.slug for each in functions if not each.is_archived)
        self._by_event: dict[str, list[tuple[Function, str | None]]] = {}
        for each in functions:
            if each.is_archived:
                continue
            for trigger in each.config.triggers:
                if trigger.event is not None:
                    known = self._by_event.setdefault(trigger.event, [])
                    known.append((each, trigger.expression))

    def started_by(
        self, event: Event, holds: Callable[[str, Mapping[str, object]], bool]
    ) -> list[Function]:
        """Return the functions an event starts, each once even if several triggers match."""
        if event.name == names.EVENT_FUNCTION_INVOKED:
            invoked = self.by_slug.get(str(celtext.lookup(event.parsed, (*_ABOUT, "fn_id"))))
            return [invoked] if invoked is not None else []
        if event.target is not None:
            due = self.by_slug.get(event.target)
            return [due] if due is not None and not due.is_archived else []
        found: dict[UUID, Function] = {}
        for pattern in (event.name, *wildcard_prefixes(event.name)):
            for function, expression in self._by_event.get(pattern, ()):
                if function.function_id in found:
                    continue
                if expression is None or holds(expression, {"event": event.parsed}):
                    found[function.function_id] = function
        return list(found.values())


def plan_starts(
    events: Sequence[Event],
    functions: Functions,
    holds: Callable[[str, Mapping[str, object]], bool],
    new_id: Callable[[], str],
    now: datetime,
    value_of: Callable[[str, Mapping[str, object]], object] | None = None,
) -> list[Start]:
    """Work out every run that a batch of events starts; without `value_of` none has rules or limits."""
    starts = []
    for place, event in enumerate(events, 1):
        for function in functions.started_by(event, holds):
            config = function.config
            starts.append(
                Start(
                    event=place,
                    run_id=new_id(),
                    function=function,
                    key=event.event_id,
                    due=event.ts if event.ts > now else None,
                    deadline=config.start_timeout,
                    pauses=pauses_of(config.cancels, event.parsed, holds),
                    parent=_parent(event),
                    rules=()
                    if value_of is None
                    else rules_for(function.function_id, config.rules, event.parsed, value_of),
                    lane=lane_of(
                        function.function_id,
                        config.limits,
                        event.parsed,
                        value_of,
                        is_paused=function.is_paused,
                    ),
                    priority=priority_of(config.limits, event.parsed, value_of),
                )
            )
    return starts


class _One(Functions):
    """One function, whatever the event."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def started_by(
        self, event: Event, holds: Callable[[str, Mapping[str, object]], bool]
    ) -> list[Function]:
        """Return it."""
        return [self._function]


def plan_buffered(
    buffer: Buffered,
    event: Event,
    function: Function,
    holds: Callable[[str, Mapping[str, object]], bool],
    now: datetime,
    value_of: Callable[[str, Mapping[str, object]], object],
) -> Start:
    """Work out the run that a buffer starts with its (first) event; what let the event in is over."""
    [start] = plan_starts([event], _One(function), holds, lambda: buffer.id, now, value_of)
    start.buffer, start.key, start.due = buffer, None, None
    start.rules = tuple(rule for rule in start.rules if rule.name == "singleton")
    if buffer.event_ids:
        start.pauses, start.deadline = (), None
    return start


def _parent(event: Event) -> str | None:
    if event.name != names.EVENT_FUNCTION_INVOKED:
        return None
    correlation = celtext.lookup(event.parsed, (*_ABOUT, "correlation_id"))
    return correlation if isinstance(correlation, str) else None


def pauses_of(
    cancels: Sequence[CancelConfig],
    event: Mapping[str, object],
    holds: Callable[[str, Mapping[str, object]], bool],
) -> tuple[Pause, ...]:
    """Return what would cancel a run that this event starts."""
    pauses = []
    for place, cancel in enumerate(cancels):
        wait = wait_for(cancel.if_, event, lambda text: holds(text, {"event": event}))
        if wait is not None:
            pauses.append(
                Pause(
                    hash=hash_step_id(f"cancel:{place}"),
                    event_name=cancel.event,
                    wait=wait,
                    expires=_CANCEL_SECONDS if cancel.timeout is None else cancel.timeout,
                )
            )
    return tuple(pauses)


def event_time(ms: object) -> datetime:
    """Turn an event's `ts` (milliseconds) into a time."""
    return (
        datetime.fromtimestamp(float(ms) / 1000, UTC)
        if isinstance(ms, int | float)
        else datetime.fromtimestamp(0, UTC)
    )

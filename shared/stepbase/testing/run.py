"""A run as a test looks at it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from stepbase.errors import StepError
from stepbase.protocol import names
from stepbase.protocol.ids import hash_step_id
from stepbase.protocol.memo import MemoKind, decode_memo
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed
from stepbase.sdk.event import Event, from_payload
from stepbase.sdk.function import Function
from stepbase.testing.fakes import RpcRecord
from stepbase.testing.opened import Opener
from stepbase.testing.server import Server
from stepbase.testing.state import RunState, StepState
from stepbase.testing.store import MAIN
from stepbase.testing.world import Notes

R_co = TypeVar("R_co", covariant=True)

_MOST_SHOWN = 100
_TYPED = (Opcode.STEP_RUN, Opcode.STEP_PLANNED, Opcode.INVOKE_FUNCTION)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt: of a step by its id, or of the code between steps (None)."""

    step: str | None
    attempt: int
    error: StepError


class Run(Generic[R_co]):
    """A run in the lab; it changes as the story goes on.

    Its `repr` is the whole story so far, so that a failed `assert` shows it.
    """

    def __init__(
        self,
        server: Server,
        notes: Notes,
        function: Function[R_co],
        state: RunState,
        look: "Callable[[RunState], Run[Any]]",
    ) -> None:
        self._server = server
        self._look = look
        self._notes = notes
        self._function = function
        self._state = state
        self._opener = Opener(function)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._state.id

    @property
    def function(self) -> str:
        """The function's name on the wire, such as ``"currency-award"``."""
        return self._state.slug

    @property
    def event(self) -> Event[Any]:
        """The event that started it, its data as a dict."""
        raw = self._opener.event(self._state.event.parsed)
        return from_payload(raw, raw.get("data"))

    @property
    def status(self) -> str:
        """What it is doing.

        ``completed``, ``failed`` or ``cancelled`` at the end; until then ``scheduled`` (its event lies
        in the future), ``retrying`` (a pause between attempts), ``waiting`` (for an event or a
        signal), ``invoking``, ``sleeping``, or ``running``.
        """
        if self.has_ended:
            return self._state.status.lower()
        mine = [item for item in self._server.items.values() if item.run_id == self.id]
        later = [item for item in mine if item.due is not None and item.due > self._server.now]
        if any(item.is_call for item in later):
            return "retrying" if self._state.started_at else "scheduled"
        statuses = {step.status for step in self._state.steps.values() if step.is_open}
        order = ("waiting", "invoking", "sleeping")
        return next((each for each in order if each in statuses), "running")

    @property
    def has_ended(self) -> bool:
        """True once nothing more happens in it."""
        return self._state.ended_at is not None

    @property
    def output(self) -> Any:
        """What the function returned, as plain JSON; None until then."""
        if self._state.output is None:
            return None
        return self._opener.memo({"data": json.loads(self._state.output)})["data"]

    @property
    def result(self) -> R_co:
        """What the function returned, as its return annotation says.

        Raises:
            AssertionError: If it has not; the message tells the story.
        """
        if self._state.output is None:
            raise AssertionError(f"there is no result: {self!r}")
        what = f"the result of {self.function}"
        result: R_co = typed.decode(self.output, self._function.returns, what)
        return result

    @property
    def error(self) -> StepError | None:
        """What it failed with or was cancelled by (`name`, `message`, `stack`), or None."""
        return None if self._state.error is None else _error(json.loads(self._state.error))

    @property
    def steps(self) -> Mapping[str, Any]:
        """Results of the finished steps by id, in the order they were stored.

        Typed as the handler got them; a failed step's is its `StepError`. Later uses of an id are
        ``"id:1"``, ``"id:2"``, …
        """
        stored = (self._state.steps[hashed] for hashed in self._state.stack)
        return {_key(step): self._value(step) for step in stored}

    @property
    def sleeps(self) -> Mapping[str, datetime]:
        """When the sleeps so far end, or ended, by step id."""
        return dict(self._dues(Opcode.SLEEP))

    @property
    def waits(self) -> Mapping[str, str]:
        """What is waited for now: the name of the event or signal, by step id."""
        return {_key(step): step.awaits for step in self._open_steps() if step.awaits is not None}

    @property
    def attempts(self) -> Sequence[Attempt]:
        """The attempts that failed, in order."""
        return [
            Attempt(self._name(each.hash), each.attempt, _error(json.loads(each.error)))
            for each in self._state.attempts
        ]

    @property
    def rpc_calls(self) -> Sequence[RpcRecord]:
        """The calls of SQL functions it made, in order."""
        return list(self._notes.rpc_calls.get(self.id, ()))

    @property
    def events_sent(self) -> Sequence[Event[Any]]:
        """The events it sent, in order, their data as dicts."""
        sent = (self._opener.event(raw) for raw in self._notes.events.get(self.id, {}).values())
        return [from_payload(raw, raw["data"]) for raw in sent]

    @property
    def invoked(self) -> "Sequence[Run[Any]]":
        """The runs it invoked, in order."""
        return [
            self._look(run)
            for run in self._server.runs.values()
            if run.parent is not None and run.parent.partition(".")[0] == self.id
        ]

    def _name(self, hashed: str | None) -> str | None:
        if hashed is None:
            return None
        step = self._state.steps.get(hashed)
        name = step.name if step is not None else self._notes.steps[self.id, hashed].name
        return _numbered(name, hashed)

    def _open_steps(self) -> Iterator[StepState]:
        return (step for step in self._state.steps.values() if step.is_open)

    def _dues(self, opcode: Opcode) -> Iterator[tuple[str, datetime]]:
        for step in self._state.steps.values():
            if step.op == opcode and step.due is not None:
                yield _key(step), step.due

    def _value(self, step: StepState) -> Any:
        memo = decode_memo(self._opener.memo(json.loads(step.memo)))
        if memo.kind is MemoKind.ERROR:
            return _error(memo.value)
        if step.op == Opcode.WAIT_FOR_EVENT and isinstance(memo.value, dict):
            return from_payload(memo.value, memo.value.get("data"))
        note = self._notes.steps.get((self.id, step.hash))
        if note is None or step.op not in _TYPED:
            return memo.value
        return typed.decode(memo.value, note.returns, f'step "{step.name}"')

    def __repr__(self) -> str:
        lines = [f"<run {self.id} of {self.function}: {self._shown_status()}"]
        lines += [f"  {_key(step)}: {self._shown_step(step)}" for step in self._in_order()]
        lines += [
            f"  attempt {each.attempt} of {each.step or 'the code between steps'} failed: {each.error}"
            for each in self.attempts
        ]
        return "\n".join(lines) + ">"

    def _in_order(self) -> list[StepState]:
        return [*(self._state.steps[hashed] for hashed in self._state.stack), *self._open_steps()]

    def _shown_status(self) -> str:
        if self.error is not None:
            return f"{self.status}: {self.error}"
        main = self._server.items.get((self.id, MAIN))
        if self.status in ("retrying", "scheduled") and main is not None:
            return f"{self.status}, next call {main.due}"
        return self.status if self.output is None else f"{self.status}: {_short(self.output)}"

    def _shown_step(self, step: StepState) -> str:
        if not step.is_open:
            return f"{step.status} {_short(self._opener.memo(json.loads(step.memo)))}"
        what = f" for {step.awaits}" if step.awaits else ""
        return f"{step.status}{what}" + (f" until {step.due}" if step.due else "")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def _key(step: StepState) -> str:
    """Return a step's id as the user wrote it, with its number from the second use on."""
    return _numbered(step.name, step.hash)


def _numbered(name: str, hashed: str) -> str:
    for n in range(names.MAX_STEPS):
        if hash_step_id(name, n) == hashed:
            return name if n == 0 else f"{name}:{n}"
    return name


def _error(raw: Any) -> StepError:
    fields = raw if isinstance(raw, dict) else {"message": str(raw)}
    name, message = str(fields.get("name") or "Error"), str(fields.get("message") or "")
    return StepError(name, message, fields.get("stack"), fields.get("cause"))

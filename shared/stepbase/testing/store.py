"""What the server in memory keeps, and the few ways in which it changes. Pure.

Dicts for the engine's tables, a method for each of its SQL functions that closes steps and ends runs; like
those, it leaves events of the server's own in an outbox.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

from stepbase.engine import opening
from stepbase.engine.effects import NewEvent, NewItem, NewPause, Settlement, StepRow, Verdict
from stepbase.engine.starts import Event, Start
from stepbase.protocol import names
from stepbase.protocol.event import EventIn, decode_event
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.memo import error_memo
from stepbase.protocol.op import Op, Opcode
from stepbase.testing.matching import Holds, fits
from stepbase.testing.state import Pause, QueueItem, RunState, StepState

MAIN = "main"
"""The queue item of a run's own calls."""

_TELLING = (
    names.EVENT_FUNCTION_FINISHED,
    names.EVENT_FUNCTION_FAILED,
    names.EVENT_FUNCTION_CANCELLED,
)


class Store:
    """Runs, queue items, pauses and the outbox.

    Attributes:
        now: What time it is.
        runs: All runs by id, in the order they were started.
        items: Everything runs wait for.
        outbox: Events of the server's own that nobody has taken yet.
    """

    def __init__(self, now: datetime, holds: Holds) -> None:
        self.now = now
        self._holds = holds
        self._arrived: list[tuple[datetime, Event]] = []
        self.runs: dict[str, RunState] = {}
        self.items: dict[tuple[str, str], QueueItem] = {}
        self.pauses: dict[tuple[str, str], Pause] = {}
        self.outbox: list[EventIn] = []

    def after(self, seconds: float | None) -> datetime:
        """Return the time in so many seconds."""
        return self.now + timedelta(seconds=seconds or 0)

    def put(
        self, run: RunState, job: str, kind: str, due: datetime | None, step: str | None = None
    ) -> None:
        """Add a queue item, if the run has none of that name."""
        self.items.setdefault((run.id, job), QueueItem(run.id, job, kind, due, step))

    def begin(self, start: Start, event: Event) -> str:
        """Start a run: its first call, its deadline, and what cancels it; returns its id."""
        run = RunState(start.run_id, start.function, event, self.now, start.parent)
        self.runs[run.id] = run
        self.put(run, MAIN, "edge", start.due or self.now)
        if start.deadline is not None:
            self.put(run, "deadline:start", "deadline", self.after(start.deadline), "start")
        for each in start.pauses:
            expires = self.after(each.expires)
            pause = Pause(run.id, each.hash, "cancel", each.event_name, each.wait, expires)
            self.pauses[run.id, each.hash] = pause
        return run.id

    def match(self, event: Event) -> None:
        """Let an event end the waits and the runs that it fits."""
        self._arrived.append((self.now, event))
        for pause in list(self.pauses.values()):
            run = self.runs[pause.run_id]
            if pause.event_name != event.name or pause.kind == "signal":
                continue
            if (run.id, pause.hash) not in self.pauses or pause.expires <= self.now:
                continue
            if pause.kind == "cancel" and run.event.id == event.id:
                continue  # an event does not cancel the run that it started
            if not fits(pause.wait, run.event, event, self._holds):
                continue
            if pause.kind == "cancel":
                self.cancel(run, "an event matched cancel_on")
            else:
                self.close(run, pause.hash, "done", event.payload)

    def settle(self, run: RunState, item: QueueItem, effects: Settlement) -> None:
        """Apply everything that a reply changed, as `stepbase.settle` does."""
        if effects.was_called and run.started_at is None:
            self._note_start(run)
        run.version = effects.version or run.version
        if effects.failed is not None:
            run.attempts.append(effects.failed)
        run.attempts.extend(effects.tried)
        item.outage_since = (item.outage_since or self.now) if effects.is_outage else None
        born = {row.hash for row in effects.steps if self._store(run, row)}
        run.planning = max(run.planning, effects.planning) if run.has_open_step else 0
        pauses = [each for each in effects.pauses if each.hash in born]
        tried = {each.hash for each in effects.tried}
        for new in effects.items:
            if new.hash in born:
                self._open(run, new, attempt=int(new.hash in tried))
        for pause in pauses:
            self._pause(run, pause, born)
        for event in effects.events:
            if event.hash in born:
                self._send(event)
        if run.ended_at is None:
            self._give(run, item, effects)
            self._look_back(run, [each for each in pauses if each.look_back is not None])

    def save(self, run: RunState, item: QueueItem, ops: Sequence[Op]) -> None:
        """Store finished steps while their call goes on, as `stepbase.checkpoint` does."""
        if run.started_at is None:
            self._note_start(run)
        item.attempt = 0
        for op in ops:
            is_failed = op.error is not None
            memo = dumps(error_memo(op.error or {}) if is_failed else {"data": op.data})
            status = "failed" if is_failed else "done"
            self._store(run, StepRow(op.id, opening.title(op), op.op.value, status, memo))

    def _note_start(self, run: RunState) -> None:
        finish = run.function.config.finish_timeout
        run.started_at = self.now
        run.status = "Running"
        if finish is not None:
            self.put(run, "deadline:finish", "deadline", self.after(finish), "finish")

    def _give(self, run: RunState, item: QueueItem, effects: Settlement) -> None:
        """Do with a queue item what the verdict says."""
        match effects.verdict:
            case Verdict.END:
                status = effects.status or "Failed"
                self.finish(run, status, output=effects.output, error=effects.error)
                return
            case Verdict.DONE:
                self.items.pop((run.id, item.job), None)
                if item.job.startswith("after:"):
                    self._next_of_race(run)
                return
            case Verdict.TIMER:
                item.due = effects.due or self.after(effects.delay)
            case Verdict.PARK:
                item.due = None if run.has_open_step else self.now
            case Verdict.CONTINUE | Verdict.READY:
                item.due = self.now
        item.attempt, item.kind, item.step = effects.attempt, effects.kind, effects.step
        if item.kind == "sleep" and item.step is not None:
            run.steps[item.step].due = item.due

    def _pause(self, run: RunState, new: NewPause, beside: Collection[str]) -> None:
        """Let a step wait for an event or a signal; a signal that another run waits for ends this one."""
        if new.kind == "signal" and not self._takes_over(run, new, beside):
            return
        self.pauses[run.id, new.hash] = Pause(
            run.id, new.hash, new.kind, new.event_name, new.wait, self.after(new.expires)
        )
        run.steps[new.hash].awaits = new.event_name
        if new.look_back is not None:
            item = self.items[run.id, new.hash]
            item.kind, item.due = "wait", self.after(new.expires)
            run.steps[new.hash].due = item.due

    def _look_back(self, run: RunState, pauses: Sequence[NewPause]) -> None:
        """End new waits with the first event that came before, of those that the run has not seen."""
        ids = {event.id for event in run.events}
        given = {step.memo for step in run.steps.values() if step.op == Opcode.WAIT_FOR_EVENT}
        for pause in pauses:
            since = self.after(-(pause.look_back or 0))
            found = (
                event.payload
                for at, event in self._arrived
                if at >= since
                and event.name == pause.event_name
                and event.id not in ids
                and event.payload not in given
                and fits(pause.wait, run.event, event, self._holds)
            )
            payload = next(found, None)
            if payload is not None:
                self.close(run, pause.hash, "done", payload)

    def signal(self, name: str, data: object) -> str | None:
        """Give a signal to the run that waits for it; returns its id, or None if nobody does."""
        for pause in self.pauses.values():
            if pause.kind == "signal" and pause.event_name == name and pause.expires > self.now:
                memo = dumps({"data": {"signal": name, "data": data}})
                self.close(self.runs[pause.run_id], pause.hash, "done", memo)
                return pause.run_id
        return None

    def _takes_over(self, run: RunState, new: NewPause, beside: Collection[str]) -> bool:
        """See to it that nobody else waits for a signal; a wait that is taken over ends with its time."""
        for key, pause in list(self.pauses.items()):
            if pause.kind != "signal" or pause.event_name != new.event_name:
                continue
            name = dumps(new.event_name)
            message = f"run {pause.run_id} waits for the signal {name} already"
            if pause.run_id == run.id and pause.hash in beside:
                message = f"two steps of this run wait for the signal {name}"
            elif new.replaces or pause.expires <= self.now:
                del self.pauses[key]
                continue
            error = dumps({"name": "SignalTaken", "message": message})
            self.finish(run, "Failed", error=error)
            return False
        return True

    def _store(self, run: RunState, row: StepRow) -> bool:
        """Store a step, or close it if it is open; returns True if it is new."""
        known = run.steps.get(row.hash)
        if known is None:
            run.steps[row.hash] = StepState(row.hash, row.name, row.op, row.status, row.memo)
            if not run.steps[row.hash].is_open:
                run.stack.append(row.hash)
        elif row.status in ("done", "failed"):
            self.close(run, row.hash, row.status, row.memo)
        return known is None

    def _open(self, run: RunState, item: NewItem, attempt: int) -> None:
        """Add what a new open step waits for."""
        due = item.due or self.after(item.delay)
        self.put(run, item.hash, item.kind, due, item.hash)
        self.items[run.id, item.hash].attempt = attempt
        run.steps[item.hash].due = None if item.kind == "step" else due

    def _send(self, event: NewEvent) -> None:
        """Put an event of the server's own into the outbox."""
        self.outbox.append(decode_event(json.loads(event.payload), is_internal=True))

    def close(self, run: RunState, hashed: str, status: str, memo: str) -> None:
        """Store how an open step ended; when it was the last, the run goes on."""
        step = run.steps[hashed]
        if not step.is_open or run.ended_at is not None:
            return
        step.status, step.memo = status, memo
        run.stack.append(hashed)
        self.pauses.pop((run.id, hashed), None)
        self.items.pop((run.id, hashed), None)
        if run.has_open_step:
            if run.planning == 2:
                due = None if self._of_race(run) else self.now
                self.put(run, f"after:{hashed}", "edge", due)
            return
        run.planning = 0
        if not self._of_race(run):
            self._go_on(self.items.get((run.id, MAIN)))

    def _of_race(self, run: RunState) -> list[QueueItem]:
        """Return the calls of a race: one at a time is made, the others are parked."""
        return [
            item
            for (run_id, job), item in self.items.items()
            if run_id == run.id and job.startswith("after:")
        ]

    def _next_of_race(self, run: RunState) -> None:
        """Let a run go on whose last call of a race is done."""
        calls = self._of_race(run)
        if calls:
            self._go_on(calls[0])
        elif not run.has_open_step:
            self._go_on(self.items.get((run.id, MAIN)))

    def _go_on(self, item: QueueItem | None) -> None:
        if item is not None and item.due is None and not item.is_held:
            item.due, item.kind, item.step, item.attempt = self.now, "edge", None, 0

    def finish(
        self, run: RunState, status: str, *, output: str | None = None, error: str | None = None
    ) -> None:
        """End a run, give its result to the step that invoked it, and tell of it; once."""
        if run.ended_at is not None:
            return
        run.status, run.output, run.error, run.ended_at = status, output, error, self.now
        for step in run.steps.values():
            if step.is_open:
                step.status = "cancelled"
        for table in (self.items, self.pauses):
            for key in [key for key in table if key[0] == run.id]:
                del table[key]
        if run.parent is not None:
            parent, _, hashed = run.parent.partition(".")
            is_done = status == "Completed"
            memo = f'{{"data":{output}}}' if is_done else f'{{"error":{error}}}'
            self.close(self.runs[parent], hashed, "done" if is_done else "failed", memo)
        if run.event.name not in _TELLING:
            self.outbox.extend(_told(run))

    def cancel(self, run: RunState, message: str) -> None:
        """End a run as cancelled."""
        self.finish(run, "Cancelled", error=dumps({"name": "Cancelled", "message": message}))

    def time_is_over(self, run: RunState, item: QueueItem) -> None:
        """Do what an item that is no call is for, now that it is due."""
        hashed = item.step or ""
        if item.kind == "sleep":
            item.kind, item.step, item.attempt = "edge", None, 0
            self.close(run, hashed, "done", "null")
        elif item.kind == "wait":
            self.close(run, hashed, "done", "null")
        elif item.kind == "invoke":
            error = {
                "name": names.INVOKE_TIMEOUT,
                "message": "Timed out waiting for invoked function to complete",
            }
            self.close(run, hashed, "failed", dumps({"error": error}))
        elif hashed == "start" and run.started_at is not None:
            del self.items[item.run_id, item.job]
        else:
            self.cancel(run, f"the run did not {hashed} within its timeout")


def _status_line(run: RunState) -> dict[str, str]:
    """Return what a server adds to the error of a run that failed by the status of an answer."""
    last = run.attempts[-1] if run.attempts else None
    if run.status != "Failed" or last is None or last.hash is not None or last.error != run.error:
        return {}
    has_failed = last.http_status is not None and last.http_status >= 300
    return {"error": f"invalid status code: {last.http_status}"} if has_failed else {}


def _told(run: RunState) -> Iterator[EventIn]:
    """Yield the server's own events about an ended run."""
    error = json.loads(run.error) if run.error else None
    data: dict[str, object] = {
        "function_id": run.slug,
        "run_id": run.id,
        "event": dict(run.event.parsed),
        "events": [dict(each.parsed) for each in run.events],
        "result": json.loads(run.output) if run.output else error,
        "error": {**_status_line(run), **error} if isinstance(error, dict) else error,
        "_inngest": {"status": run.status},
    }
    if run.parent is not None:
        data["correlation_id"] = run.parent
    yield EventIn(names.EVENT_FUNCTION_FINISHED, data, f"finished:{run.id}")
    if run.status == "Failed":
        yield EventIn(names.EVENT_FUNCTION_FAILED, data, run.id)
    elif run.status == "Cancelled":
        yield EventIn(names.EVENT_FUNCTION_CANCELLED, data, run.id)

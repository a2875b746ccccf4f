"""The world as one call sees it: the lab's clock, its server, its fakes."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from stepbase.config import InngestConfig
from stepbase.errors import NonRetriableError
from stepbase.protocol.event import decode_event, payload
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.protocol.op import decode_op
from stepbase.sdk.http import Answer, Exchange
from stepbase.sdk.replay import NewStep
from stepbase.supabase.call import PreparedCall
from stepbase.supabase.table import PreparedWrite
from stepbase.testing.fakes import Fakes, RpcRecord, arguments_of, record_of
from stepbase.testing.server import Server

ORIGIN: Final = "http://stepbase.test"
SETTINGS: Final = InngestConfig(
    is_dev=True,
    api_origin=ORIGIN,
    event_origin=ORIGIN,
    serve_origin=None,
    serve_path=None,
    env=None,
    event_key=None,
    signing_key=None,
    signing_key_fallback=None,
)


@dataclass(frozen=True, slots=True)
class StepNote:
    """What only the handler knows of a step: its id as written, and its result's type."""

    name: str
    returns: Any


@dataclass(slots=True)
class Notes:
    """What calls did, by run id ("" for what the test itself did), and what went wrong in the lab."""

    rpc_calls: dict[str, list[RpcRecord]] = field(default_factory=lambda: defaultdict(list))
    events: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    steps: dict[tuple[str, str], StepNote] = field(default_factory=dict)
    problem: AssertionError | None = None


@dataclass(frozen=True, slots=True)
class World:
    """What stands in for the surroundings of one call (`stepbase.standin`).

    Attributes:
        run_id: The run, or "" outside of any.
        is_async: The handler is `async def`.
        is_probe: The call is only to see where the handler goes: nothing it sends arrives.
        is_real_rpc: SQL functions without a fake are called in the real database.
    """

    server: Server
    fakes: Fakes
    notes: Notes
    run_id: str = ""
    is_async: bool = False
    is_probe: bool = False
    is_real_rpc: bool = False

    def now(self) -> datetime:
        """Return the lab's time."""
        return self.server.now

    def inngest(self) -> InngestConfig:
        """Return settings that lead to the lab's server."""
        return SETTINGS

    def step(self, new: NewStep) -> None:
        """Note a step's type, and put its fake in place."""
        note = StepNote(new.place.step_id, new.returns)
        self.notes.steps[self.run_id, new.place.hashed] = note
        fake = self.fakes.of_step(new.place.step_id, new.place.hashed)
        if fake is None or new.work is None:
            return
        args, kwargs = _arguments(new.work)
        answer = partial(fake.answer, *args, **kwargs)
        new.is_raw = True
        new.work = partial(_awaited, answer) if self.is_async else answer

    def rpc(self, prepared: PreparedCall) -> Callable[[PreparedCall, str], Any] | None:
        """Return the fake of an SQL function.

        Raises:
            NonRetriableError: If there is none, and the database is not to be asked.
        """
        record = self.notes.rpc_calls[self.run_id].append
        fake = self.fakes.of_call(prepared)
        if fake is not None:
            return partial(self.fakes.call, fake, record)
        record(record_of(prepared))
        if self.is_real_rpc:
            return None
        what, fake_it = (
            f"SQL function {prepared.function}",
            f'lab.fake_rpc("{prepared.function}", …)',
        )
        if isinstance(prepared, PreparedWrite):
            what, fake_it = prepared.function, f'lab.fake_table("{prepared.table}", …)'
        raise self.fail(
            f"{what} was called with {dict(prepared.args)} and has no fake: {fake_it}, "
            "or Lab(app, real_rpc=True) to call the database"
        )

    def fail(self, message: str) -> NonRetriableError:
        """Note that the test itself is wrong; returns what ends the run meanwhile."""
        self.notes.problem = self.notes.problem or AssertionError(message)
        return NonRetriableError(message)

    def carry(self, exchange: Exchange) -> Answer:
        """Answer what an app asks its server."""
        path = urlsplit(exchange.url).path
        body = json.loads(exchange.body or b"null")
        if path.startswith("/e/"):
            return _answer(200, {"ids": self._take_events(body), "status": 200})
        if path == "/v1/signals":
            name, data = body["signal"], body.get("data")
            run_id = None if self.is_probe else self.server.signal(name, data)
            found = {"data": {"run_id": run_id}} if run_id else {"error": "No signal found"}
            return _answer(200 if run_id else 404, found)
        if path.startswith("/v0/runs/"):
            return self._state(path)
        if path.startswith("/v1/checkpoint/"):
            ops = [decode_op(raw, "of a checkpoint") for raw in body["steps"]]
            is_kept = self.server.save(self.run_id, body["qi_id"], body["generation_id"], ops)
            return _answer(200 if is_kept else 409, {})
        return _answer(404, {"error": f"the lab's server does not answer {exchange.method} {path}"})

    def _take_events(self, raw: list[Any]) -> list[str]:
        events = [decode_event(each) for each in raw]
        ids = [self.server.new_id() for _ in events]
        if self.is_probe:
            return ids
        now_ms = round(self.now().timestamp() * 1000)
        for event, internal_id in zip(events, ids, strict=True):
            seen = payload(event, internal_id, now_ms)
            self.notes.events[self.run_id][str(seen["id"])] = seen
        self.server.accept(events, ids)
        return ids

    def _state(self, path: str) -> Answer:
        """Answer with what was too much for a call's body."""
        run_id, _, what = path.removeprefix("/v0/runs/").partition("/")
        run = self.server.runs[run_id]
        if what == "batch":
            return _answer(200, [dict(each.parsed) for each in run.events])
        return _answer(200, {hashed: json.loads(memo) for hashed, memo in run.memos})


def _answer(status: int, body: object) -> Answer:
    return Answer(status, {"content-type": "application/json"}, dumps_bytes(body))


def _arguments(work: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a step's function would have been called with."""
    if not isinstance(work, partial):
        return (), {}
    if work.args and isinstance(work.args[0], PreparedCall):
        return (), arguments_of(work.args[0])
    return work.args, work.keywords


async def _awaited(answer: Callable[[], Any]) -> Any:
    value = answer()
    return await value if hasattr(value, "__await__") else value

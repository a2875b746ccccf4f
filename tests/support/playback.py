"""Plays recorded replies of an SDK back to an engine, and compares its calls with the recorded ones.

A call is matched by its target (`step` or a planned step), its attempt and the steps it knows. Replies
to the calls of one parallel group are held until the whole group is there, and then given in the
recorded order, each when the one before is stored: so the order of the results is the recorded one.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

from tests.support.engine_client import EngineClient
from tests.support.recordings import TIME, expanded
from tests.support.stub_host import SDK_HEADERS, Answer, StubHost

_SOON = timedelta(milliseconds=100)
_RETRY_AFTER = timedelta(seconds=1)  # the least an engine honours
_KEPT_HEADERS = re.compile(r"x-inngest-(?!sdk-handled).*|retry-after|location|content-type")
_SHORT = re.compile(r"[1-9]\d*m?s")
_VALUES = ("x-inngest-step-id", "x-inngest-req-version")


@dataclass
class Exchange:
    """One recorded call with its reply.

    Attributes:
        memos: Ids of the steps the call knows.
        asked: The call's body, or as much of it as was recorded.
        headers: The call's headers, or None if they were not recorded.
        ended: When the reply was given, to which its times are relative.
    """

    target: str
    attempt: int
    memos: frozenset[str]
    asked: dict[str, Any]
    headers: dict[str, str] | None
    reply: Mapping[str, Any]
    ended: datetime | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of_call(cls, raw: Mapping[str, Any]) -> "Exchange":
        """Read an entry of `sdk_calls` or `exchanges`."""
        request = raw["request"]
        body = expanded(request["body"])
        target = request["path"].split("stepId=")[1]
        ended = datetime.fromtimestamp(raw["t_end"], UTC) if "t_end" in raw else None
        memos = frozenset(body["ctx"]["stack"]["stack"])
        attempt = body["ctx"]["attempt"]
        headers = {name.lower(): value for name, value in request["headers"]}
        return cls(target, attempt, memos, body, headers, raw["response"], ended)

    @classmethod
    def of_stub(cls, raw: Mapping[str, Any]) -> "Exchange":
        """Read a call of `stub-sdk-odd-replies.json`."""
        asked: dict[str, Any] = {"steps": raw["steps_in_request"], "ctx": {}}
        for name in ("attempt", "disable_immediate_execution"):
            if name in raw:
                asked["ctx"][name] = raw[name]
        memos = frozenset(raw["steps_in_request"])
        return cls(raw.get("stepId", "step"), raw["attempt"], memos, asked, None, raw["reply"])

    @property
    def is_whole(self) -> bool:
        """True if the whole call was recorded."""
        return self.headers is not None

    def answer(self) -> Answer:
        """Return the reply, with times relative to now and short."""
        body = expanded(self.reply["body"])
        if isinstance(body, str) and not self.is_whole:
            text = body  # the stub's replies were recorded as text
        else:
            text = json.dumps(body)
        try:
            ops = json.loads(text)
        except ValueError:
            ops = None
        if self.reply["status"] == 206 and isinstance(ops, list):
            text = json.dumps([_soon(op, self.ended) for op in ops])
        headers = {
            name.lower(): _retry_after(value) if name.lower() == "retry-after" else value
            for name, value in self.reply["headers"]
            if _KEPT_HEADERS.fullmatch(name.lower())
        }
        return Answer(self.reply["status"], text=text, headers=headers)


def _soon(op: Any, ended: datetime | None) -> Any:
    if not isinstance(op, dict):
        return op
    op = {**op, "opts": dict(op["opts"])} if op.get("opts") else dict(op)
    if op.get("op") == "Sleep" and op.get("name"):
        op["name"] = _shortened(op["name"], ended)
    for name in ("duration", "timeout"):
        if isinstance(op.get("opts"), dict) and op["opts"].get(name):
            op["opts"][name] = _shortened(op["opts"][name], ended)
    return op


def _shortened(text: str, ended: datetime | None) -> str:
    if _SHORT.fullmatch(text):
        return "100ms"
    if not TIME.fullmatch(text):
        return text
    when = datetime.fromisoformat(text)
    if when.year < 2026:
        return text  # meant to be in the past
    span = when - ended if ended is not None else _SOON
    span = _SOON if span < timedelta(seconds=10) else span
    return (datetime.now(UTC) + span).isoformat()


def _retry_after(text: str) -> str:
    when = datetime.now(UTC) + _RETRY_AFTER
    if text.isdigit():
        return "1"
    if TIME.fullmatch(text):
        return when.isoformat()
    return format_datetime(when, usegmt=True) if text.endswith("GMT") else text


Improvise = Callable[[dict[str, Any]], Answer | None]


class Playback:
    """The recorded calls of one function in one run.

    Args:
        improvise: Answers calls that were not recorded; without it such a call ends the run.
        is_race: Do not hold replies back.
        delay: Seconds every reply takes.
    """

    def __init__(
        self,
        exchanges: list[Exchange],
        *,
        improvise: Improvise | None = None,
        is_race: bool = False,
        delay: float = 0,
    ) -> None:
        self.exchanges = exchanges
        self.calls: list[dict[str, Any] | None] = [None] * len(exchanges)
        self.headers: dict[int, dict[str, str]] = {}
        self.unexpected: list[str] = []
        self.fetched: dict[str, Any] = {}
        self._improvise = improvise
        self._is_race = is_race
        self._delay = delay

    def fits(self, call: Mapping[str, Any]) -> bool:
        """Say whether a call is of this run, if several runs of the function are played."""
        data = [each.asked["event"]["data"] for each in self.exchanges if "event" in each.asked]
        return call["event"]["data"] in data

    async def answer(
        self, client: EngineClient, call: dict[str, Any], headers: dict[str, str]
    ) -> Answer:
        """Answer a call as recorded."""
        target, attempt = call["_step_id"], call["ctx"]["attempt"]
        stack = frozenset(call["ctx"]["stack"]["stack"])
        index = self._find(target, attempt, stack)
        if index is None:
            self.unexpected.append(f"{target[:8]} attempt {attempt} knowing {len(stack)}")
            return self._unrecorded(call, target, stack)
        self.calls[index] = call
        self.headers[index] = headers
        exchange = self.exchanges[index]
        exchange.arrived.set()
        if call["use_api"]:
            self.fetched = await fetched(client, call["ctx"]["run_id"])
        if not self._is_race:
            await self._turn(client, call["ctx"]["run_id"], exchange)
        await asyncio.sleep(self._delay)
        return exchange.answer()

    def _find(self, target: str, attempt: int, stack: frozenset[str]) -> int | None:
        for index, each in enumerate(self.exchanges):
            is_same = (each.target, each.attempt, each.memos) == (target, attempt, stack)
            if is_same and self.calls[index] is None:
                return index
        return None

    def _unrecorded(self, call: dict[str, Any], target: str, stack: frozenset[str]) -> Answer:
        improvised = self._improvise(call) if self._improvise is not None else None
        if improvised is not None:
            return improvised
        for each in self.exchanges:
            if (each.target, each.memos) == (target, stack):
                return each.answer()
        headers = {**SDK_HEADERS, "x-inngest-no-retry": "true"}
        return Answer(500, {"name": "NotRecorded", "message": "not recorded"}, headers)

    async def _turn(self, client: EngineClient, run_id: str, exchange: Exchange) -> None:
        """Wait for the group, then for the results that were recorded before this one."""
        if exchange.target == "step":
            return
        group = [
            each
            for each in self.exchanges
            if each.target != "step" and each.memos == exchange.memos and each.attempt == 0
        ]
        if exchange not in group:
            return
        for each in group:
            await each.arrived.wait()
        stored = [each for each in group if _is_result(each)]
        before = stored[: stored.index(exchange)] if exchange in stored else stored
        if before:
            await _until_stored(client, run_id, before[-1].target)

    def compared(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the calls as they came and as they were recorded."""
        missing: list[str] = []
        ours: dict[str, Any] = {"calls": []}
        theirs: dict[str, Any] = {"unexpected": "", "missing": "", "calls": []}
        for index, (exchange, call) in enumerate(zip(self.exchanges, self.calls, strict=True)):
            if call is None:
                missing.append(f"{exchange.target[:8]} attempt {exchange.attempt}")
                continue
            ours["calls"].append(_call(call, exchange, self.headers[index]))
            theirs["calls"].append(_call(exchange.asked, exchange, exchange.headers or {}))
        ours |= {"unexpected": ", ".join(self.unexpected), "missing": ", ".join(missing)}
        return ours, theirs


def _is_result(exchange: Exchange) -> bool:
    return exchange.reply["status"] == 206 and '"StepError"' not in json.dumps(
        exchange.reply["body"]
    )


async def _until_stored(client: EngineClient, run_id: str, step: str) -> None:
    while step not in (await client.request("GET", f"/v0/runs/{run_id}/actions"))[1]:
        await asyncio.sleep(0.005)


async def fetched(client: EngineClient, run_id: str) -> dict[str, Any]:
    """Return what an SDK fetches for a call with `use_api`, by the last part of the path."""
    found = {}
    for name in ("batch", "actions"):
        found[name] = (await client.request("GET", f"/v0/runs/{run_id}/{name}"))[1]
    return found


def _call(body: Mapping[str, Any], exchange: Exchange, headers: Mapping[str, str]) -> Any:
    """Return what is compared of a call."""
    if not exchange.is_whole:
        ctx = {name: body["ctx"][name] for name in exchange.asked["ctx"]}
        return {"steps": body["steps"], "ctx": ctx}
    sent = {
        name.lower(): value if name.lower() in _VALUES else "present"
        for name, value in headers.items()
        if name.lower().startswith("x-")
    }
    return {**{key: value for key, value in body.items() if key != "_step_id"}, "headers": sent}


class Stage:
    """A stub host on which several playbacks run at once, found by function and event."""

    def __init__(self, host: StubHost, client: EngineClient) -> None:
        self._host = host
        self._client = client
        self._playbacks: dict[str, list[Playback]] = {}

    def add(self, slug: str, playback: Playback) -> None:
        """Let a playback answer for a function."""
        self._playbacks.setdefault(slug, []).append(playback)
        self._host.handlers[slug] = partial(self._answer, slug)

    async def _answer(self, slug: str, call: dict[str, Any]) -> Answer:
        at = next(i for i, each in enumerate(self._host.calls) if each is call)
        headers = dict(self._host.requests[at][0])
        found = self._playbacks[slug]
        playback = found[0]
        if len(found) > 1:
            playback = next(each for each in found if each.fits(call))
        return await playback.answer(self._client, call, headers)

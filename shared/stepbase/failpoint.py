"""Named places where a crash test may kill the process, as `kill -9` would.

Nothing happens unless `STEPBASE_FAILPOINTS` arms a name: `engine.before_call=0.02,engine.after_reply=0.02`
gives each pass a chance to die; `name=1` dies at the first pass. Each hit is appended to
`STEPBASE_FAILPOINT_LOG` before the process goes, so that a test can count what it really tested.
"""

import asyncio
import os
import random
import signal
from collections.abc import Coroutine
from typing import TypeVar

from stepbase import config

NAMES = frozenset(
    {
        "engine.before_ingest",  # events were accepted, their statement is not sent yet
        "engine.in_ingest",  # the ingest statement is sent, its answer not read
        "engine.after_ingest",  # events and runs are stored, nobody was told
        "engine.after_lease",  # items are leased, none of them is worked on yet
        "engine.before_call",  # leased, the function not called yet
        "engine.after_reply",  # the function has answered, nothing is written yet
        "engine.before_child_end",  # an invoked run's last reply is there, nothing is written yet
        "engine.in_settle",  # the settle statement is sent, its answer not read
        "engine.after_settle",  # the effects of a call are written, the next call is not made
        "engine.in_checkpoint",  # the checkpoint statement is sent, its answer not read
        "engine.after_checkpoint",  # steps are stored, the function was not told
        "engine.in_match",  # an event may end a pause, its condition is not checked yet
        "engine.at_timeout",  # a wait's, an invoke's or a run's time is over, nothing is written yet
        "buffers.after_take",  # due debounces and batches are taken, their runs not started
        "crons.before_fire",  # due schedules are read, not fired yet
        "crons.after_fire",  # schedules have fired: moved on, their events in the outbox
        "relay.after_take",  # outbox rows are leased, not yet ingested
        "rpc.after_commit",  # the gateway has committed an RPC and not answered
    }
)
_MOMENT_SECONDS = 0.01

Result = TypeVar("Result")


def _parse(text: str) -> dict[str, float]:
    armed: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, chance = part.partition("=")
        if name not in NAMES:
            raise ValueError(f"unknown failpoint {name!r}; known: {', '.join(sorted(NAMES))}")
        armed[name] = float(chance or 1)
    return armed


_armed = _parse(config.failpoints())
_log = config.failpoint_log()


def hit(name: str) -> None:
    """Die here by SIGKILL if `name` is armed and its chance comes up; otherwise return."""
    if _armed and _comes_up(name):
        _die(name)


async def during(name: str, work: Coroutine[object, object, Result]) -> Result:
    """Do `work`; if `name` is armed and its chance comes up, die at any moment of it, or just after."""
    if not _armed or not _comes_up(name):
        return await work
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=random.random() * _MOMENT_SECONDS)
    _die(name)
    return await task


def is_armed(name: str) -> bool:
    """Say whether `name` may kill this process."""
    return name in _armed


def _comes_up(name: str) -> bool:
    chance = _armed.get(name, 0.0)
    return chance > 0 and random.random() < chance


def _die(name: str) -> None:
    if _log:
        with open(_log, "a", encoding="utf-8") as file:
            file.write(name + "\n")
    os.kill(os.getpid(), signal.SIGKILL)

"""Named places where a crash test may kill the process, as `kill -9` would.

Nothing happens unless `STEPBASE_FAILPOINTS` arms a name: `engine.before_call=0.02,engine.after_reply=0.02`
gives each pass a chance to die; `name=1` dies at the first pass. Each hit is appended to
`STEPBASE_FAILPOINT_LOG` before the process goes, so that a test can count what it really tested.
"""

import os
import random
import signal

from stepbase import config

NAMES = frozenset(
    {
        "engine.before_call",  # leased, the function not called yet
        "engine.after_reply",  # the function has answered, nothing is written yet
        "engine.in_settle",  # the settle statement is sent, its answer not read
        "relay.after_take",  # outbox rows are leased, not yet ingested
        "rpc.after_commit",  # the gateway has committed an RPC and not answered
    }
)


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
    if not _armed:
        return
    chance = _armed.get(name, 0.0)
    if chance and random.random() < chance:
        if _log:
            with open(_log, "a", encoding="utf-8") as file:
                file.write(name + "\n")
        os.kill(os.getpid(), signal.SIGKILL)


def is_armed(name: str) -> bool:
    """Say whether `name` may kill this process."""
    return name in _armed

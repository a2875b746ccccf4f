"""How an app asks its server: what every request carries, how often it is tried, and who carries it.

What is asked is written as a script that yields `Exchange`s, to be sent an `Answer`, and `Pause`s;
`drive` and `adrive` carry it in sync and async code.
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from stepbase.config import InngestConfig
from stepbase.protocol import names, signing
from stepbase.sdk import http
from stepbase.sdk.http import Answer, Exchange
from stepbase.sdk.version import SDK

R = TypeVar("R")

TRIES = 5
FIRST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Pause:
    """Asks the driver to wait before the next try."""

    seconds: float


Asking = Generator[Exchange, Answer, Answer]
Script = Generator[Exchange | Pause, Any, R]


def origin_headers(settings: InngestConfig) -> dict[str, str]:
    """Return the headers that say which SDK asks, for which environment, on which platform."""
    headers = {names.SDK: SDK, "user-agent": SDK}
    if settings.env:
        headers[names.ENV] = settings.env
    if settings.platform:
        headers[names.PLATFORM] = settings.platform
    return headers


def ask(
    method: str,
    url: str,
    settings: InngestConfig,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Asking:
    """Ask the server's API with the signing key, and with the fallback key if that is refused."""
    base = {
        **origin_headers(settings),
        names.REQ_VERSION: str(names.EXECUTION_VERSION),
        **(headers or {}),
    }
    keys = [each for each in (settings.signing_key, settings.signing_key_fallback) if each]
    answer = Answer(0, {}, b"")
    for key in keys or [""]:
        bearer = {"authorization": f"Bearer {signing.hash_key(key)}"} if key else {}
        answer = yield Exchange(method, url, {**base, **bearer}, body)
        if answer.status not in (401, 403):
            break
    return answer


def tried(ask_once: Callable[[], Asking], tries: int = TRIES) -> Script[Answer]:
    """Ask a few times, with growing pauses, until the server has answered for good."""
    import random  # not before something is asked

    answer = Answer(0, {}, b"")
    for attempt in range(tries):
        answer = yield from ask_once()
        if not _may_pass(answer):
            break
        if attempt < tries - 1:
            yield Pause(FIRST_PAUSE_SECONDS * (2**attempt + random.random()))
    return answer


def is_away(answer: Answer) -> bool:
    """Say whether the server is away, or has no database: what was asked has not failed, it was not heard."""
    return answer.status == 0 or answer.status in names.AWAY


def _may_pass(answer: Answer) -> bool:
    status = answer.status
    return status == 0 or status in (408, 425, 429) or (status >= 500 and status != 501)


def drive(script: Script[R], carry: Callable[[Exchange], Answer] = http.send) -> R:
    """Carry out a script, blocking."""
    answer: Answer | None = None
    while True:
        try:
            asked = script.send(answer)
        except StopIteration as done:
            result: R = done.value
            return result
        answer = None
        if isinstance(asked, Exchange):
            answer = carry(asked)
        else:
            time.sleep(asked.seconds)


async def adrive(script: Script[R]) -> R:
    """Carry out a script on the running event loop."""
    import asyncio

    answer: Answer | None = None
    while True:
        try:
            asked = script.send(answer)
        except StopIteration as done:
            result: R = done.value
            return result
        answer = None
        if isinstance(asked, Exchange):
            answer = await http.asend(asked)
        else:
            await asyncio.sleep(asked.seconds)

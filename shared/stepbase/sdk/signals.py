"""Sending signals: the request and the answer, once for both kinds of callers."""

import json
from collections.abc import Generator

from stepbase.config import InngestConfig
from stepbase.errors import SendError
from stepbase.sdk.ask import ask
from stepbase.sdk.http import Answer, Exchange
from stepbase.sdk.sender import acarry, carry


def send(name: str, data: str, settings: InngestConfig) -> str | None:
    """Send a signal, blocking; see `script`."""
    return carry(script(name, data, settings))


async def asend(name: str, data: str, settings: InngestConfig) -> str | None:
    """Send a signal on the running event loop; see `script`."""
    return await acarry(script(name, data, settings))


def script(
    name: str, data: str, settings: InngestConfig
) -> Generator[Exchange, Answer, str | None]:
    """Send a signal, its data as JSON text; returns the run it woke, or None if none was waiting.

    Raises:
        SendError: If the server refused it, or did not answer.
    """
    body = f'{{"signal":{json.dumps(name)},"data":{data}}}'.encode()
    headers = {"content-type": "application/json"}
    url = f"{settings.api_origin}/v1/signals"
    answer = yield from ask("POST", url, settings, headers, body)
    if answer.status == 404:
        return None
    if answer.status == 0:
        raise SendError(f"signal not sent: {answer.body.decode()}")
    if not 200 <= answer.status < 300:
        raise SendError(
            f"the server refused a signal (HTTP {answer.status}): "
            f"{answer.body[:200].decode(errors='replace')}",
            status=answer.status,
        )
    return _run_id(answer)


def _run_id(answer: Answer) -> str | None:
    try:
        body = json.loads(answer.body)
        return str(body["data"]["run_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise SendError(
            f"the server took a signal, but did not say for which run: {answer.body[:200]!r}",
            status=answer.status,
        ) from error

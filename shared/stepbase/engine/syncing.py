"""Syncs an app: asks for its functions, and stores them if they are in the answer itself (in band)."""

import json
import uuid

from stepbase.engine.caller import Caller
from stepbase.engine.registry import Registry
from stepbase.errors import ProtocolError
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.protocol.sync import RegisterRequest, decode_in_band


async def sync(caller: Caller, registry: Registry, url: str) -> tuple[int, bytes]:
    """Sync the app at `url`; return the status and body of the answer to that.

    A failure is noted beside the app, for people to see, until a sync works.

    Raises:
        OSError: If nothing (that speaks HTTP) answers there.
        ValueError: If the URL is none.
        ProtocolError: If its answer has functions and they are refused.
        StoreError: If the database is away.
    """
    try:
        answer = await caller.sync(url)
        if answer.is_in_band:
            return answer.status, dumps_bytes(await _taken(registry, answer.body))
    except OSError as error:
        await registry.note_error("away", str(error), url=url)
        raise
    except ProtocolError as error:
        await registry.note_error(error.code, str(error), url=url)
        raise
    if answer.status >= 400:
        code, text = _refusal(answer.status, answer.body)
        await registry.note_error(code, text, url=url)
    return answer.status, answer.body


async def _taken(registry: Registry, body: bytes) -> dict[str, object]:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Invalid answer: {error}") from error
    return await register(registry, decode_in_band(raw))


def _refusal(status: int, body: bytes) -> tuple[str, str]:
    """Return the code and the words of an app's answer to a sync that it did not make."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raw = None
    told = raw if isinstance(raw, dict) else {}
    words = told.get("message") or told.get("error") or body[:300].decode("utf-8", "replace")
    code = told.get("code")
    return str(code) if code else f"http_{status}", f"HTTP {status}: {words!s:.1000}"


async def register(registry: Registry, wanted: RegisterRequest) -> dict[str, object]:
    """Store an app's functions; return what it is answered.

    Raises:
        ProtocolError: If an expression or a cron schedule in it does not work.
        StoreError: If the database is away.
    """
    app_id, modified = await registry.register(wanted)
    return {
        "ok": True,
        "modified": modified,
        # Names this answer only; nothing is looked up by it.
        "sync_id": str(uuid.uuid4()),  # noqa: TID251
        "app_id": str(app_id),
    }

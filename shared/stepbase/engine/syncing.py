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

    Raises:
        OSError: If nothing (that speaks HTTP) answers there.
        ValueError: If the URL is none.
        ProtocolError: If its answer has functions and they are refused.
        StoreError: If the database is away.
    """
    answer = await caller.sync(url)
    if not answer.is_in_band:
        return answer.status, answer.body
    try:
        raw = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Invalid answer: {error}") from error
    return answer.status, dumps_bytes(await register(registry, decode_in_band(raw)))


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

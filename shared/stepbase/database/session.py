"""Whether a connection is a session of its own, which LISTEN needs."""

import asyncio
import secrets

import asyncpg

from stepbase.database.dberrors import NO_SESSION
from stepbase.errors import StoreError

_PROBE_SECONDS = 5.0


async def probe(connection: "asyncpg.Connection[asyncpg.Record]", dsn: str) -> None:
    """Make sure that this connection is a session: what another one notifies of reaches it while it rests.

    (A pooler that lends sessions for one transaction passes on only what comes during it.)

    Raises:
        StoreError: If a transaction pooler sits in between.
    """
    came = asyncio.Event()

    def hear(*_: object) -> None:
        came.set()

    name = f"stepbase_probe_{secrets.token_hex(8)}"
    await connection.add_listener(name, hear)
    other = await asyncpg.connect(dsn, command_timeout=_PROBE_SECONDS)
    try:
        await other.execute(f"notify {name}")
    finally:
        other.terminate()
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await came.wait()
    except TimeoutError:
        raise StoreError(f"notifications {NO_SESSION}", sqlstate=None, is_transient=False) from None
    await connection.remove_listener(name, hear)

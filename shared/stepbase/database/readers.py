"""One kind of reader for an outbox: engines, or relays (migration …000255)."""

from typing import Literal

import asyncpg

from stepbase.database.dberrors import translated
from stepbase.errors import StoreError

OTHER_KIND = "SB015"
"""SQLSTATE of an outbox that another kind of reader reads."""

ALONE = "select stepbase.outbox_alone($1)"

Kind = Literal["engine", "relay"]


async def read_as(connection: "asyncpg.Connection[asyncpg.Record]", kind: Kind) -> None:
    """Say that this session reads the outbox, until it ends.

    Raises:
        StoreError: If the database is away, or has no fitting schema.
    """
    with translated():
        await connection.execute("select stepbase.outbox_read_as($1)", kind)


async def alone(connection: "asyncpg.Connection[asyncpg.Record]", kind: Kind) -> None:
    """Make sure that no other kind reads the outbox.

    Raises:
        StoreError: SB015 if one does; the message says who, and how to end it.
    """
    try:
        with translated():
            await connection.execute(ALONE, kind)
    except StoreError as error:
        raise explained(error) from error


def explained(error: StoreError) -> StoreError:
    """Return the error in the database's own words, of which the hint says what to do."""
    said, _, hint = str(error).partition("\nHINT:  ")
    if error.sqlstate != OTHER_KIND or not hint:
        return error
    text = f"{said.partition(': ')[2]}. {hint}"
    return StoreError(text, sqlstate=OTHER_KIND, is_transient=False)

"""Who may read an outbox: one project, and one kind of reader, engines or relays (migration …000255)."""

from typing import Literal

import asyncpg

from stepbase.config import LOCAL
from stepbase.database.dberrors import translated
from stepbase.errors import StoreError

OTHER_PROJECT = "SB013"
"""SQLSTATE of a database that belongs to another project."""
OTHER_KIND = "SB015"
"""SQLSTATE of an outbox that another kind of reader reads."""

ENGINE_ON_A_COPY = (
    "Is it a restored copy or a branch? An engine would go on with the original's runs here, and call its "
    "apps. Make the copy harmless (select * from stepbase.disarm_copy('<this project>', '<the original>')), "
    "or, if the original is gone, start the engine once with --take-over"
)
ALONE = "select stepbase.outbox_alone($1)"

Kind = Literal["engine", "relay"]


async def read_as(connection: "asyncpg.Connection[asyncpg.Record]", kind: Kind) -> None:
    """Say that the connection reads the outbox, until it is closed.

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


def fits(owner: str | None, project: str | None) -> bool:
    """Say whether a database that belongs to `owner` is for `project`; a local stack's names are all one."""
    if owner is None or project is None or owner == project:
        return True
    return project == LOCAL and owner.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]")


def of_another(error: StoreError, advice: str) -> StoreError:
    """Return the error, with advice if it says that the database is another project's."""
    if error.sqlstate != OTHER_PROJECT:
        return error
    # The driver's class, then the message, then the database's hint, which is for those who write SQL.
    what = str(error).partition(": ")[2].partition("\n")[0]
    return StoreError(f"{what}. {advice}", sqlstate=OTHER_PROJECT, is_transient=False)


def explained(error: StoreError) -> StoreError:
    """Return the error in the database's own words, of which the hint says what to do."""
    said, _, hint = str(error).partition("\nHINT:  ")
    if error.sqlstate != OTHER_KIND or not hint:
        return error
    text = f"{said.partition(': ')[2]}. {hint}"
    return StoreError(text, sqlstate=OTHER_KIND, is_transient=False)
